"""Compressed text files, by their first bytes: files, pipes, damage."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from collections.abc import Callable

import pyarrow as pa
import pytest

from layertap.data import open_reader
from layertap.errors import InputError
from tests.data.readers.reading import records
from tests.writing import write

PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: pa.Codec("zstd").compress(data, asbytes=True),
}
CONTENT = {
    "txt": b"one\ntwo\n",
    "jsonl": b'{"text": "one"}\n{"text": "two"}\n',
    "csv": b"text,n\none,1\ntwo,2\n",
    "tsv": b"text\tn\none\t1\ntwo\t2\n",
    "conll": b"one O\n\ntwo O\n",
    "conllu": "".join(f"1\t{word}{chr(9)}_" + "\t_" * 7 + "\n\n" for word in ("one", "two")).encode(),
}


@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize("format_", CONTENT)
def test_every_text_format_is_read_compressed(tmp_path, monkeypatch, suffix, format_):
    packed = PACK[suffix](CONTENT[format_])
    with open_reader(write(tmp_path / f"a.{format_}{suffix}", packed)) as reader:
        assert [record.text for record in reader] == ["one", "two"]
        assert reader.bytes_read == reader.bytes_total == len(packed)
    # The name need not say it, and a pipe has none; two compressed files laid end to end are one.
    assert len(records(write(tmp_path / f"a.{format_}", packed))) == 2
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(packed)))
    assert len(records("-", format=format_)) == 2
    if format_ in ("txt", "jsonl"):
        assert len(records(write(tmp_path / f"a.{format_}", packed * 2))) == 4


@pytest.mark.parametrize("suffix", PACK)
def test_damaged_compression_is_an_input_error(tmp_path, suffix):
    packed = PACK[suffix](b"".join(b"%d\n" % (i * i) for i in range(5000)))
    with pytest.raises(InputError, match="cannot be read after line"):
        records(write(tmp_path / f"a.txt{suffix}", packed[:-9]))
    with pytest.raises(InputError, match="this is not a file that"):
        records(write(tmp_path / f"b.txt{suffix}", b"plain\n"))
    assert records(write(tmp_path / f"c.txt{suffix}", b"")) == []


def test_a_text_that_begins_like_a_compressed_file(tmp_path):
    texts = ["BZh9 is no archive", "(", "PK", "ORC"]
    for text in texts:
        assert [record.text for record in records(write(tmp_path / "a.txt", text))] == [text]
