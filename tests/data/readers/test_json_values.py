"""JSON arrays and objects over several lines: the same records as one object a line, in bounded memory."""

from __future__ import annotations

import io
import json
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layertap.data import Input, open_reader
from layertap.data.readers import json_values
from layertap.errors import InputError, UsageError
from tests.data.readers.reading import records
from tests.writing import write

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet=st.sampled_from('ab"\\{}[],\n\u4e2d')),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2),
    max_leaves=8,
)
ROWS = st.lists(st.fixed_dictionaries({"text": st.text(alphabet=st.sampled_from('x"\\]},')), "v": VALUES}), max_size=6)


@settings(max_examples=100, deadline=None)
@given(rows=ROWS, indent=st.sampled_from([None, 1, "\t"]), escaped=st.booleans(), chunk=st.integers(1, 40))
def test_arrays_and_objects_are_read_as_lines_are(tmp_path_factory, rows, indent, escaped, chunk):
    folder = tmp_path_factory.getbasetemp()
    by_line = [(r.text, r.columns) for r in records(write(folder / "a.jsonl", rows))]
    array = json.dumps(rows, indent=indent, ensure_ascii=escaped)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_values, "READ_BYTES", chunk)
        for content in (array, f" \n{array}\n"):
            for name in ("a.json", "b.jsonl"):
                assert [(r.text, r.columns) for r in records(write(folder / name, content))] == by_line
        if indent is not None:
            content = "\n".join(json.dumps(row, indent=indent, ensure_ascii=escaped) for row in rows)
            assert [(r.text, r.columns) for r in records(write(folder / "c.json", content))] == by_line


def test_arrays_through_a_pipe_by_rows_and_joined(tmp_path, monkeypatch):
    content = json.dumps([{"text": f"text {i}"} for i in range(20)], indent=2)
    path = write(tmp_path / "a.json", content)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO((content + "\n" + content).encode())))
    assert len(records("-", format="jsonl")) == 40
    with Input(source=path).open(range(5, 8)) as reader:
        assert [record.text for record in reader] == ["text 5", "text 6", "text 7"]
    with open_reader(path) as reader:
        assert next(reader.located())[0] == "item 1"
        assert len(list(reader.again())) == 20


@pytest.mark.parametrize(
    ("content", "message", "left"),
    [
        ('[{"text": "a"}, {"text": }, {"text": "c"}]', r"item 2: broken JSON: .* at character 10", ["a", "c"]),
        ('[{"text": "a"}, "b", {"text": "c"}]', "item 2: .* not an object with columns", ["a", "c"]),
        (
            '[{"text": "a"}, {"text": "' + "x" * 200 + '"}, {"text": "c"}]',
            "item 2: the item is longer than",
            ["a", "c"],
        ),
        ('[{"text": "a"}, {"x": [' + "1, " * 99 + '1]}, {"text": "c"}]', "item 2: the item is longer than", ["a", "c"]),
        ('[{"text": "a"}, {"text": "b"', "the file ends within its array, after item 1", None),
        ('[{"text": "a"}]\n{"text": "b"}', "something stands behind the end of its array, after item 1", None),
        ('{\n"text": "a"\n}\n{\n"text": 5\n}\n', "item 2: column 'text' is a number", ["a"]),
    ],
)
def test_bad_items(tmp_path, monkeypatch, content, message, left):
    path = write(tmp_path / "a.json", content)
    for chunk in (7, 1 << 18):
        monkeypatch.setattr(json_values, "READ_BYTES", chunk)
        with pytest.raises(InputError, match=message):
            records(path, max_record_bytes=100)
        if left is not None:
            found = records(path, max_record_bytes=100, on_error="skip")
            assert [record.text for record in found] == left


def test_an_array_is_read_in_bounded_memory(tmp_path):
    item = json.dumps({"text": "x" * 1000})
    path = write(tmp_path / "a.json", "[" + ",".join([item] * 20_000) + "]")
    tracemalloc.start()
    with open_reader(path) as reader:
        assert sum(1 for _ in reader) == 20_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 << 20 < path.stat().st_size


def test_other_json_files_name_the_remedy(tmp_path):
    path = write(tmp_path / "a.json", json.dumps({"version": 1, "data": [{"text": "a"}, {"text": "b"}]}))
    with pytest.raises(
        UsageError, match=r"""no column 'text'.*in 'data', .*jq -c '\.\["data"\]\[\]' .*a\.json \| layertap"""
    ):
        records(path)
    with pytest.raises(InputError, match=r"line 1: broken JSON: .*an object on each line .*or one JSON array"):
        records(write(path, "one text\nanother\n"))
    assert records(write(path, "[]")) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a"},\n{"text": "b"},\n', "line 1: .*; take the comma at its end off"),
        ("{'text': 'a'}\n", "JSON has double quotation marks, as json.dumps"),
        ('"a"\n"b"\n', r"a string, not an object .*jq -c '\{text: \.\}' "),
        ('["a", "b"]', r"item 1: a string, not an object .*jq -c '\.\[\] \| \{text: \.\}' "),
        ('{"text": {"0": "a", "1": "b"}, "n": {"0": 1, "1": 2}}', "a whole column in each key, .*orient='records'"),
        ('{"text": ["a", "b"], "n": [1, 2]}', "a whole column in each key"),
        ('{"text": ["a", "b"], "n": 1}\n{"text": ["a"], "n": 1}\n', r"is a list, not a text; .*--words-column text"),
    ],
)
def test_other_json_names_the_remedy(tmp_path, content, message):
    with pytest.raises((InputError, UsageError), match=message):
        records(write(tmp_path / "a.json", content))
