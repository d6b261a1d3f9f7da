"""Encodings of text files: byte order marks, encodings asked for, and what cannot be decoded."""

from __future__ import annotations

import io

import pytest

from layertap.data import open_reader
from layertap.errors import InputError, OptionError
from tests.data.readers.reading import records
from tests.writing import write

CONTENT = {
    "txt": "\u00e9t\u00e9 caf\u00e9\n",
    "jsonl": '{"text": "\u00e9t\u00e9 caf\u00e9"}\n',
    "csv": "text,n\n\u00e9t\u00e9 caf\u00e9,1\n",
    "tsv": "text\tn\n\u00e9t\u00e9 caf\u00e9\t1\n",
    "conll": "\u00e9t\u00e9 O\ncaf\u00e9 O\n",
    "conllu": "".join(
        f"{i}\t{word}{chr(9)}_" + "\t_" * 7 + "\n" for i, word in ((1, "\u00e9t\u00e9"), (2, "caf\u00e9"))
    ),
}


@pytest.mark.parametrize("format_", CONTENT)
def test_every_text_format_is_read_in_every_encoding(tmp_path, monkeypatch, format_):
    text = CONTENT[format_]
    for encoding in ("utf-8-sig", "utf-16", "utf-32"):  # these begin with a byte order mark
        path = write(tmp_path / f"a.{format_}", text.encode(encoding))
        assert [record.text for record in records(path)] == ["\u00e9t\u00e9 caf\u00e9"]
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes())))
        assert [record.text for record in records("-", format=format_)] == ["\u00e9t\u00e9 caf\u00e9"]
    for encoding in ("latin-1", "cp1252", "gb18030", "utf-16-le", "utf-16-be", "utf-32-le", "utf-7"):
        path = write(tmp_path / f"a.{format_}", text.encode(encoding))
        assert [record.text for record in records(path, encoding=encoding)] == ["\u00e9t\u00e9 caf\u00e9"]


def test_a_byte_order_mark_overrides_the_encoding_with_a_note(tmp_path):
    path = write(tmp_path / "a.txt", "\u00e9\n".encode("utf-16"))
    for encoding, notes in (("utf-16", 0), ("latin-1", 1)):
        with open_reader(path, encoding=encoding) as reader:
            assert [record.text for record in reader] == ["\u00e9"]
            assert len(reader.notes) == notes
    assert "read as utf-16-le, as its byte order mark says, and not as iso8859-1" in reader.notes[0]


@pytest.mark.parametrize("format_", CONTENT)
def test_bytes_that_are_not_utf8_name_the_remedy(tmp_path, format_):
    path = write(tmp_path / f"a.{format_}", CONTENT[format_].encode("latin-1"))
    with pytest.raises(InputError, match=r"line \d: not UTF-8: byte 0xe9 .*name the encoding \(--encoding"):
        records(path)


@pytest.mark.parametrize(("encoding", "bad"), [("gb18030", b"\xff"), ("utf-16-le", b"\x00\xdc"), ("ascii", b"\xe9")])
def test_what_is_not_in_the_encoding_is_a_bad_row(tmp_path, encoding, bad):
    data = "one\nt".encode(encoding) + bad + "o\nthree\n".encode(encoding)
    path = write(tmp_path / "a.txt", data)
    with pytest.raises(InputError, match=r"line 2: bytes that are not in the encoding"):
        records(path, encoding=encoding)
    found = records(path, encoding=encoding, on_error="skip")
    assert [(record.row, record.text) for record in found] == [(0, "one"), (2, "three")]


@pytest.mark.parametrize(
    "encoding", ["klingon", "", "rot13", "base64", "idna", "punycode", "unicode_escape", 5, "a\0b"]
)
def test_encodings_that_are_none(tmp_path, encoding):
    with pytest.raises(OptionError, match="it can be the name of an encoding, for example latin-1"):
        open_reader(write(tmp_path / "a.txt", ""), encoding=encoding)
