from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layertap.checkpoints.json_file import MAX_DEPTH, read_array, read_object
from layertap.errors import ConfigError


def test_reads_what_is_there(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": [1, {"b": "\u00e9"}]}', encoding="utf-8")
    assert read_object(path) == {"a": [1, {"b": "\u00e9"}]}
    path.write_text("[1, 2]", encoding="utf-8-sig")
    assert read_array(path) == [1, 2]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b'{"a": 1,\n"b": }', "line 2, column 6: not JSON"),
        (b'{"a": 1,\n\n"b": "\xff"}', "line 3: not UTF-8"),
        (b"", "line 1, column 1: not JSON"),
        (b"[]", "expected a JSON object, found an array"),
        (b"null", "expected a JSON object, found null"),
        (b"true", "expected a JSON object, found true or false"),
        (b"3.5", "expected a JSON object, found a number"),
        (b'"x"', "expected a JSON object, found a string"),
        (b"[" * 100_000, "nested deeper"),
        (b'{"a":' * 200 + b"1" + b"}" * 200, "nested deeper"),
        (b'{"a": ' + b"9" * 5000 + b"}", "too many digits"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_place(tmp_path, data, says):
    path = tmp_path / "config.json"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=says) as caught:
        read_object(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_object(tmp_path)


def test_an_object_is_not_an_array(tmp_path):
    path = tmp_path / "modules.json"
    path.write_text("{}")
    with pytest.raises(ConfigError, match="expected a JSON array, found an object"):
        read_array(path)


@pytest.mark.parametrize("depth", [MAX_DEPTH - 1, MAX_DEPTH])
def test_depth_limit(tmp_path, depth):
    path = tmp_path / "a.json"
    path.write_text('{"a":' * depth + "1" + "}" * depth)
    if depth < MAX_DEPTH:
        assert read_object(path)
    else:
        with pytest.raises(ConfigError, match="nested deeper"):
            read_object(path)


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=60) | st.text(alphabet='{}[]:,"\\0e-.\n', max_size=40).map(str.encode))
def test_any_bytes_give_an_object_or_our_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("j") / "a.json"
    path.write_bytes(data)
    try:
        found = read_object(path)
    except ConfigError:
        return
    assert found == json.loads(data.decode("utf-8-sig"))
