"""Records of plain text: lines, paragraphs and whole files."""

from __future__ import annotations

import io

import pyarrow as pa
import pytest

from layertap.data import Input, open_reader
from layertap.data.input import read_options
from layertap.errors import InputError, OptionError
from tests.data.readers.reading import records
from tests.writing import write

BOOK = "\n\nOne line\nand another.\n  \n\t\nA second paragraph.\r\n\r\nThe third,\nwithout an end"


def test_records_are_lines_paragraphs_or_the_file(tmp_path, monkeypatch):
    path = write(tmp_path / "book.txt", BOOK.encode())
    assert len(records(path)) == len(records(path, records="line")) == 10
    paragraphs = ["One line\nand another.", "A second paragraph.", "The third,\nwithout an end"]
    found = records(path, records="paragraph")
    assert [(record.row, record.text, record.id) for record in found] == [
        (i, t, None) for i, t in enumerate(paragraphs)
    ]
    with open_reader(path, records="file") as reader:
        assert reader.column_types == {"id": pa.string()}
        assert [(record.text, record.id) for record in reader] == [(BOOK, "book.txt")]
    with open_reader(path, records="paragraph") as reader:
        assert [where for where, _ in reader.located()] == ["line 3", "line 7", "line 9"]
    with Input(source=path, options=read_options(records="paragraph")).open(range(1, 2)) as reader:
        assert [record.text for record in reader] == paragraphs[1:2]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(BOOK.encode())))
    assert [(record.text, record.id) for record in records("-", records="file")] == [(BOOK, None)]


@pytest.mark.parametrize("kind", ["paragraph", "file"])
def test_long_and_bad_records_of_several_lines(tmp_path, monkeypatch, kind):
    path = write(tmp_path / "a.txt", b"short\n\n" + b"long line\n" * 5 + b"\nlast\n")
    with pytest.raises(InputError, match=r"line [13]: the (paragraph|file) is longer than 20 bytes"):
        records(path, records=kind, max_record_bytes=20)
    found = records(path, records=kind, max_record_bytes=20, on_error="skip")
    assert [record.text for record in found] == (["short", "last"] if kind == "paragraph" else [])
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes())))
    with pytest.raises(InputError, match="longer than 20 bytes"):
        records("-", records=kind, max_record_bytes=20, on_error="skip")
    with pytest.raises(InputError, match="not UTF-8"):
        records(write(path, b"fine\n\xff\n"), records=kind)


def test_many_empty_lines_and_bare_carriage_returns_are_noted(tmp_path):
    for content, expected in (
        (BOOK, "5 of 10 lines are empty, and each is a text; --records paragraph"),
        ("a\nb\nc\n\nd\n", ""),
        ("one\rtwo\rthree", "1 text holds carriage returns"),
    ):
        with open_reader(write(tmp_path / "a.txt", content.encode())) as reader:
            list(reader)
        assert expected in " ".join(reader.notes)
        assert bool(reader.notes) == bool(expected)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.conll", "a.conllu"])
def test_an_empty_file_is_noted(tmp_path, name):
    with open_reader(write(tmp_path / name, b"")) as reader:
        assert list(reader) == []
    assert reader.notes == (f"{tmp_path / name}: the file is empty (0 bytes)",)


def test_options_of_other_formats_are_refused(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"text": "a"}\n')
    for options in ({"records": "file"}, {"delimiter": ";"}, {"quoting": "none"}, {"header": False}):
        with pytest.raises(
            OptionError, match=r"read as jsonl, and --(records|delimiter|quoting|no-header) is an option"
        ):
            open_reader(path, **options)
    with pytest.raises(OptionError, match="records is 'page'; it can be 'line', 'paragraph' or 'file'"):
        open_reader(path, records="page")


@pytest.mark.parametrize(
    ("content", "format_"),
    [
        ("text\tlabel\na\tpos\nb\tneg\n", "tsv"),
        ('{"text": "a"}\n{"text": "b"}\n', "jsonl"),
        ("text,label\n" + "a,pos\n" * 5, "csv"),
        ("One, two.\nThree, four.\n", None),
        ("a\tb\nc\n", None),
        ("{\n}\n", None),
    ],
)
def test_lines_that_look_like_another_format_are_noted(tmp_path, content, format_):
    with open_reader(write(tmp_path / "a.txt", content)) as reader:
        list(reader)
    expected = [] if format_ is None else [f"--input-format {format_} says otherwise"]
    assert [note[-len(expected[0]) :] for note in reader.notes] == expected
