"""Files that are no text are named, with what to do about them."""

from __future__ import annotations

import io
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from layertap.errors import InputError
from tests.data.readers.reading import records
from tests.writing import write


def zipped() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.txt", "one\n")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("a.zip", {}, r"a\.zip is a zip archive, .*-o FOLDER/.*unzip -p .*a\.zip FILE \| layertap extract - "),
        ("a.txt", {}, r"a\.txt is a zip archive"),
        ("a.csv", {"format": "tsv"}, r"a\.csv is a zip archive"),
        ("a.xlsx", {}, r"a\.xlsx is an Excel workbook, not a text file; save the sheet as CSV"),
        ("a.docx", {"format": "txt"}, "is a Word document, .*save it as plain text"),
    ],
)
def test_archives_and_documents(tmp_path, name, options, message):
    with pytest.raises(InputError, match=message):
        records(write(tmp_path / name, zipped()), **options)


def test_binary_formats(tmp_path, monkeypatch):
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "a.parquet")
    content = (tmp_path / "a.parquet").read_bytes()
    with pytest.raises(InputError, match=r"is a Parquet file, .*--input-format parquet"):
        records(write(tmp_path / "a.txt", content))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    with pytest.raises(InputError, match=r"standard input is a Parquet file"):
        records("-", format="jsonl")
    for begin, name in ((b"%PDF-1.7\n", "a PDF"), (b"\x80\x04\x95abc", "a pickle"), (b"SQLite format 3\0", "SQLite")):
        with pytest.raises(InputError, match=name):
            records(write(tmp_path / "a.txt", begin))
    with pytest.raises(InputError, match="is a tar archive"):
        records(write(tmp_path / "a.tar.gz", b"\x1f\x8b"))
