"""The options of readers are the same in Python and on the command line of every command that reads a file."""

from __future__ import annotations

import inspect
from dataclasses import fields

import pytest

import layertap
from layertap.cli.main import parser
from layertap.data.input import open_reader, read_options
from layertap.data.readers.options import MAX_RECORD_BYTES, ReadOptions
from layertap.errors import OptionError

DEFAULTS = {own.name: own.default for own in fields(ReadOptions)} | {"max_record_bytes": None}
LAYOUT = {"delimiter", "quoting", "header", "records", "encoding", "max_record_bytes"}
FLAGS = {"header": "--no-header", "max_record_bytes": "--max-record-size"}
ARGUMENTS = {
    "extract": ["a.txt", "-o", "b.npy"],
    "predict": ["a.txt", "-o", "b.jsonl", "--head", "h"],
    "explain": ["a.txt"],
    "probe": ["a.txt", "--label", "l"],
    "fit": ["a.txt", "--label", "l", "-o", "h"],
    "finetune": ["a.txt", "-o", "h"],
    "verify": ["m"],
}


@pytest.mark.parametrize("function", [open_reader, read_options, layertap.extract])
def test_python_has_every_option_with_its_default(function):
    parameters = inspect.signature(function).parameters
    assert {name: parameters[name].default for name in DEFAULTS} == DEFAULTS
    lines = (inspect.getdoc(function) or "").splitlines()  # Python 3.13 cuts the indentation itself
    described = [name for name in DEFAULTS if any(line.startswith(f"    {name}: ") for line in lines)]
    assert function is read_options or described == list(DEFAULTS)
    assert read_options() == ReadOptions(max_record_bytes=MAX_RECORD_BYTES)


@pytest.mark.parametrize("command", ARGUMENTS)
def test_the_command_line_has_every_option_with_its_default(command):
    options = parser(command).parse_args([command, *ARGUMENTS[command]])
    wanted = LAYOUT if command not in ("extract", "predict") else set(DEFAULTS)
    for name in wanted - {"max_record_bytes"}:
        assert getattr(options, name) == DEFAULTS[name], name
    flags = [FLAGS.get(name, "--" + name.replace("_", "-")) for name in sorted(wanted)]
    text = parser(command)._subparsers._group_actions[0].choices[command].format_help()  # type: ignore[union-attr, index]
    assert [flag for flag in flags if f" {flag}" not in text] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quoting": "all"}, "quoting is 'all'; it can be 'none' or 'minimal'"),
        ({"records": "page"}, "records is 'page'; it can be 'line', 'paragraph' or 'file'"),
        ({"header": 0}, "header is 0; it can be True or False"),
        ({"delimiter": "::"}, "delimiter is '::'; it can be one character"),
    ],
)
def test_values_that_are_none(options, message):
    with pytest.raises(OptionError, match=message):
        read_options(**options)


@pytest.mark.parametrize(
    ("name", "near"), [("delimeter", "'delimiter'"), ("text_colum", "'text_column'"), ("thread", "'threads'")]
)
def test_an_option_that_is_none_names_the_nearest(tmp_path, name, near):
    with pytest.raises(OptionError, match=f"there is no option '{name}' here; did you mean {near}"):
        layertap.extract(tmp_path / "a.txt", tmp_path / "b.npy", **{name: 1})
