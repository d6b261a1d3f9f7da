"""Records in, features out: one small file a format, and one table of them (`formats`)."""

from __future__ import annotations

from layertap.data.formats import (
    READ_FORMATS,
    WRITE_FORMATS,
    ReadFormat,
    WriteFormat,
    check_output,
    open_writer,
)
from layertap.data.input import Input, open_reader
from layertap.data.readers.base import Reader, RowError
from layertap.data.writers.base import Writer

__all__ = [
    "READ_FORMATS",
    "WRITE_FORMATS",
    "Input",
    "ReadFormat",
    "Reader",
    "RowError",
    "WriteFormat",
    "Writer",
    "check_output",
    "open_reader",
    "open_writer",
]
