"""Files that are no text, recognised by their first bytes, and what to do with them."""

from __future__ import annotations

from pathlib import Path

from layertap.data.readers.encoding import BOMS
from layertap.errors import InputError

ZIP = b"PK\x03\x04"

_ARCHIVE = "unpack it, and name the files in it"
_WORKBOOK = "save the sheet as CSV"

NO_TEXTS: dict[bytes, tuple[str, str]] = {
    ZIP: (
        "a zip archive",
        (
            "unpack it and name a file in it, or the folder (with -o FOLDER/); for one file in it: "
            "unzip -p {name} FILE | layertap extract - --input-format FORMAT"
        ),
    ),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", _ARCHIVE),
    b"Rar!\x1a\x07": ("a RAR archive", _ARCHIVE),
    b"PAR1\x15": ("a Parquet file", "pass --input-format parquet, or let its name end in .parquet"),
    b"ARROW1\0\0": ("an Arrow or Feather file", "write it as Parquet (pyarrow.feather, pandas.DataFrame.to_parquet)"),
    b"Obj\x01": ("an Avro file", "write it as JSON Lines or Parquet"),
    b"\x89HDF\r\n\x1a\n": ("an HDF5 file", "write its texts as JSON Lines or Parquet"),
    b"\x93NUMPY": ("a numpy file", "write its texts as JSON Lines or Parquet"),
    b"SQLite format 3\0": ("an SQLite database", "write the table as CSV: sqlite3 -header -csv FILE 'SELECT ...'"),
    b"%PDF-": ("a PDF", "extract its text first, for example with pdftotext"),
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": ("an old Office document", f"{_WORKBOOK}, or the document as plain text"),
    b"version https://git-lfs": ("a pointer of Git LFS", "fetch the file that it stands for: git lfs pull"),
    b"\x80\x04\x95": ("a pickle", "write its texts as JSON Lines or Parquet; pickles are never loaded"),
    b"\x80\x03": ("a pickle", "write its texts as JSON Lines or Parquet; pickles are never loaded"),
}
"""First bytes -> what such a file is, and what to do."""

ZIPPED = {
    ".xlsx": ("an Excel workbook", _WORKBOOK),
    ".ods": ("a spreadsheet", _WORKBOOK),
    ".docx": ("a Word document", "save it as plain text"),
    ".odt": ("a text document", "save it as plain text"),
    ".epub": ("an e-book", "convert it to plain text, for example with pandoc"),
    ".npz": ("a numpy archive", "write its texts as JSON Lines or Parquet"),
}
"""Zip archives of other names."""

_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")
_BEGINNINGS = (*NO_TEXTS, *BOMS, *_COMPRESSED)
_TARS = (".tar", ".tgz", ".tbz", ".tbz2", ".txz")


def may_be_other(begin: bytes) -> bool:
    """Return whether first bytes may be those of something other than plain UTF-8."""
    return any(known.startswith(begin) or begin.startswith(known) for known in _BEGINNINGS)


def check_is_no_tar(path: Path, *, name: str) -> None:
    """Refuse a file whose name is that of a tar archive, compressed or not.

    Raises:
        InputError: the name ends in .tar, .tgz, .tar.gz or the like.
    """
    if any(suffix.lower() in _TARS for suffix in path.suffixes[-2:]):
        raise InputError(f"{name} is a tar archive; {_ARCHIVE}: tar -xf {name}")


def check_is_text(begin: bytes, *, name: str, path: Path | None) -> None:
    """Refuse a file that is no text.

    Args:
        begin: its first bytes, uncompressed.
        name: its name for messages.
        path: its path, or None for standard input.

    Raises:
        InputError: it is an archive, a document or a binary format; the message says what to do.
    """
    suffixes = [] if path is None else [suffix.lower() for suffix in path.suffixes[-1:]]
    kind = next((NO_TEXTS[mark] for mark in NO_TEXTS if begin.startswith(mark)), None)
    if begin.startswith(ZIP) and suffixes:
        kind = ZIPPED.get(suffixes[-1], kind)
    if kind is not None:
        what, remedy = kind
        raise InputError(f"{name} is {what}, not a text file; {remedy.format(name=name)}")
