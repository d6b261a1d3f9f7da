from __future__ import annotations

import gzip
import io
import json
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layertap.data import open_reader
from layertap.errors import InputError, OptionError, UsageError
from layertap.records import Record
from tests.data.readers.reading import records
from tests.writing import write


def texts(path: Path, **options: Any) -> list[str]:
    return [record.text for record in records(path, **options)]


def naive_lines(data: str) -> list[str]:
    lines: list[str] = []
    current = ""
    i = 0
    while i < len(data):
        if data[i] == "\n":
            lines.append(current)
            current = ""
            i += 1
        elif data[i : i + 2] == "\r\n":
            lines.append(current)
            current = ""
            i += 2
        else:
            current += data[i]
            i += 1
    return [*lines, current] if current else lines


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet=st.one_of(st.sampled_from("\n\r\u2028\u2029\x0b\x0c\x1c\x85 ab\u00e9\u4e2d\U0001f600"))))
def test_txt_lines_are_those_of_a_naive_reading(tmp_path_factory: pytest.TempPathFactory, data: str) -> None:
    path = write(tmp_path_factory.getbasetemp() / "lines.txt", data)
    with open_reader(path) as reader:
        found = list(reader)
    assert [record.text for record in found] == naive_lines(data)
    assert [record.row for record in found] == list(range(len(found)))


def test_only_the_first_byte_order_mark_goes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "\ufeffone\n\ufefftwo\n\n")
    assert texts(path) == ["one", "\ufefftwo", ""]


def test_gzipped_text_is_read_and_progress_counts_stored_bytes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt.gz", gzip.compress(b"one\ntwo\n" * 1000))
    with open_reader(path) as reader:
        assert len(list(reader)) == 2000
        assert reader.bytes_total == path.stat().st_size == reader.bytes_read


def test_damaged_gzip_is_an_input_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt.gz", gzip.compress(b"one\ntwo\n" * 1000)[:-12])
    with pytest.raises(InputError, match=r"a\.txt\.gz: cannot be read after line"):
        texts(path)


def test_standard_input_is_txt_unless_said_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    for format_, data, expected in (
        (None, b"one\ntwo", ["one", "two"]),
        ("jsonl", b'{"text": "one"}\n', ["one"]),
    ):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
        with open_reader("-", format=format_) as reader:
            assert reader.bytes_total is None
            assert [record.text for record in reader] == expected
            assert reader.bytes_read == len(data)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.txt", b"one\ntw\xffo\n", r"a\.txt: line 2: not UTF-8: byte 0xff at byte 3 of the line"),
        ("a.txt", b"one\nt\xe9o\n", r"line 2: not UTF-8: .*--encoding, for example latin-1"),
        ("a.txt", b"one\ntw\0o\n", "line 2: a NUL at byte 3"),
        ("a.jsonl", b'{"text": "a"}\n{"text": \n', "line 2: broken JSON: .* at character 10"),
        ("a.jsonl", b'{"text": "a"}\n\n["b"]\n', "line 3: a list, not an object"),
        ("a.jsonl", b'{"text": "a"}\nnull\n', "line 2: null, not an object"),
        ("a.jsonl", b'{"text": "a"}\n{"text": null}\n', "line 2: column 'text' is null"),
        ("a.jsonl", b'{"text": "a"}\n{"text": 5}\n', "line 2: column 'text' is a number, not a text"),
        ("a.jsonl", b'{"text": "a"}\n{"txt": "b"}\n', "line 2: there is no column 'text'"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "\xff"}\n', "line 2: not UTF-8: byte 0xff at byte 11"),
        ("a.jsonl", b'{"text": "a"}\n' + b"[" * 100_000, "line 2: JSON nested more than 100 deep|line 2: broken JSON"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "b", "n": ' + b"1" * 5000 + b"}", "line 2: a whole number has more than"),
    ],
)
def test_a_bad_row_stops_or_is_skipped_and_listed(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    path = write(tmp_path / name, data)
    with pytest.raises(InputError, match=message):
        texts(path)
    more = path.read_bytes().rstrip(b"\n") + (b"\nlast" if name == "a.txt" else b'\n{"text": "last"}')
    write(tmp_path / name, more)
    with open_reader(path, on_error="skip") as reader:
        found = list(reader)
        assert [(record.row, record.text) for record in found] == [(0, found[0].text), (2, "last")]
        (error,) = reader.errors
        assert error.row == 1
    with pytest.raises(InputError, match=f"{error.where}: "):
        texts(path)


def test_skipping_bears_max_errors_and_no_more(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"a\n\xff\nb\n\xff\nc\n")
    with open_reader(path, on_error="skip", max_errors=2) as reader:
        assert [(record.row, record.text) for record in reader] == [(0, "a"), (2, "b"), (4, "c")]
        assert [(error.row, error.where) for error in reader.errors] == [(1, "line 2"), (3, "line 4")]
    with pytest.raises(InputError, match=r"more rows than the 1 allowed .* line 4: not UTF-8"):
        texts(path, on_error="skip", max_errors=1)


def test_inputs_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.txt: no such file"):
        open_reader(tmp_path / "none.txt")
    with pytest.raises(InputError, match=r"this is a directory"):
        open_reader(tmp_path)
    with pytest.raises(OptionError, match=r"the name does not say the format.*txt, jsonl"):
        open_reader(write(tmp_path / "a.doc", "{}"))
    with pytest.raises(OptionError, match=r"no input format 'xml'"):
        open_reader(write(tmp_path / "a.txt", ""), format="xml")


def test_options_that_do_not_go_together(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "a\n")
    with pytest.raises(OptionError, match=r"txt, which has no columns, so that the id column 'key' cannot be read"):
        open_reader(path, id_column="key")
    with pytest.raises(OptionError, match=r"so that the columns 'a', 'b' cannot be read; leave it out"):
        open_reader(path, columns=["a", "b"])
    with pytest.raises(OptionError, match=r"max_errors .* goes with on_error 'skip'"):
        open_reader(path, max_errors=3)
    with pytest.raises(OptionError, match=r"it can be 0 or more"):
        open_reader(path, on_error="skip", max_errors=-1)
    with pytest.raises(OptionError, match=r"'raise' or 'skip'"):
        open_reader(path, on_error="ignore")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=r"give a list of column names"):
        open_reader(path, columns="label")
    with pytest.raises(OptionError, match=r"'a' twice"):
        open_reader(path, columns=["a", "b", "a"])


def test_jsonl_roles_of_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"id": 7, "text": "a", "label": 1, "key": "k"}\n{"text": "b", "label": 2}\n')
    assert records(path) == [
        Record(row=0, text="a", id=7, columns={"label": 1, "key": "k"}),
        Record(row=1, text="b", columns={"label": 2}),
    ]
    assert records(path, text_column="key", columns=["text", "label"], on_error="skip") == [
        Record(row=0, text="k", id=7, columns={"text": "a", "label": 1}),
    ]
    assert records(path, columns=[])[0] == Record(row=0, text="a", id=7)
    with pytest.raises(UsageError, match=r"no column 'body'; its columns are 'id', 'text', 'label', 'key'"):
        open_reader(path, text_column="body")
    with pytest.raises(UsageError, match=r"no column 'x', 'y'; its columns are"):
        open_reader(path, columns=["x", "label"], id_column="y")
    with pytest.raises(UsageError, match=r"both 'key' and the input's own 'id'"):
        open_reader(path, id_column="key")
    assert records(path, id_column="key", columns=["label"])[0].id == "k"


def test_missing_text_column_names_the_only_candidate(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"body": "a", "n": 1}\n')
    with pytest.raises(
        UsageError, match=r"no column 'text' and no text column is named; .*only one with strings is 'body'"
    ):
        open_reader(path)


def test_an_id_that_cannot_be_one(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "a", "id": 1.5, "key": true}\n')
    assert records(path) == [Record(row=0, text="a", columns={"id": 1.5, "key": True})]
    with pytest.raises(InputError, match=r"line 1: column 'key' is true or false; ids are"):
        records(path, id_column="key", columns=[])


def test_jsonl_types_hold_every_row_not_just_the_first(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"text": "t", "id": i, "n": i, "f": i, "s": "x", "l": [i], "o": {"a": i}, "mixed": i} for i in range(3000)
    ]
    rows[2900] |= {"f": 0.5, "mixed": "word", "l": [], "late": True, "n": 2**60}
    path = write(tmp_path / "a.jsonl", rows)
    with open_reader(path) as reader:
        assert dict(reader.column_types) == {
            "id": pa.int64(),
            "n": pa.int64(),
            "f": pa.float64(),
            "s": pa.string(),
            "l": pa.list_(pa.int64()),
            "o": None,
            "mixed": pa.string(),
            "late": pa.bool_(),
        }
        assert next(iter(reader.column_types)) == "id"
        assert [record.columns["n"] for record in reader] == [row["n"] for row in rows]


def test_types_of_a_file_find_its_bad_rows_before_any_record_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "a"}\n' * 2000 + "broken\n")
    with open_reader(path) as reader, pytest.raises(InputError, match=r"line 2001: broken JSON"):
        _ = reader.column_types
    with open_reader(path, on_error="skip") as reader:
        assert reader.column_types == {}
        assert len(list(reader)) == 2000
        assert [error.row for error in reader.errors] == [2000]


def test_types_of_a_pipe_come_from_its_first_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [json.dumps({"text": "a", "n": i if i < 1500 else "late"}) for i in range(2000)]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\n".join(lines).encode())))
    with open_reader("-", format="jsonl") as reader:
        assert dict(reader.column_types) == {"n": pa.int64()}
        assert len(list(reader)) == 2000


def test_an_empty_jsonl_has_no_records(tmp_path: Path) -> None:
    assert texts(write(tmp_path / "a.jsonl", " \n\n")) == []


def test_ten_megabytes_on_one_line(tmp_path: Path) -> None:
    text = "word " * (2 << 20)
    started = time.process_time()
    assert texts(write(tmp_path / "a.txt", text)) == [text]
    assert texts(write(tmp_path / "a.jsonl", json.dumps({"text": text}))) == [text]
    assert time.process_time() - started < 5
