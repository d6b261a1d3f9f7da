"""Lines of UTF-8 text: only a line feed, or a carriage return and a line feed, ends one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from layertap.data.readers.base import BadRowError

UTF8_BOM = b"\xef\xbb\xbf"
UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")


def numbered_lines(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Lines counted from 1, without their ends and without a byte order mark.

    A last line without an end counts. U+2028 and its like end nothing: they are part of the text.
    """
    for number, line in enumerate(stream, start=1):
        yield number, without_end(line.removeprefix(UTF8_BOM) if number == 1 else line)


def without_end(line: bytes) -> bytes:
    """A line without its line feed and the carriage return before it."""
    return line[:-1].removesuffix(b"\r") if line.endswith(b"\n") else line


def decode(line: bytes) -> str:
    """The text of a line.

    Raises:
        BadRowError: bytes that are not UTF-8, or a NUL, which no text holds.
    """
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRowError(not_utf8(line, error.start)) from None
    if "\0" in text:
        raise BadRowError(f"a NUL at byte {line.index(0) + 1} of the line; is this a text file?")
    return text


def not_utf8(line: bytes, position: int) -> str:
    """The reason for a line that does not decode at a 0-based position."""
    if line.startswith(UTF16_BOMS):
        return "not UTF-8 but UTF-16, it seems; convert it with: iconv -f UTF-16 -t UTF-8"
    return f"not UTF-8: byte 0x{line[position]:02x} at byte {position + 1} of the line"
