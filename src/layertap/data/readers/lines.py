"""Lines of UTF-8 text: only a line feed, or a carriage return and a line feed, ends one."""

from __future__ import annotations

from collections.abc import Iterator

from layertap.data.readers.base import BadRowError, too_long
from layertap.data.readers.encoding import EXAMPLES, UNDECODABLE
from layertap.data.readers.source import Source
from layertap.errors import InputError

LINE_END = b"\r\n"
SKIPPED_AT_ONCE = 1 << 20


def numbered_lines(source: Source, limit: int) -> Iterator[tuple[int, bytes | BadRowError]]:
    """Yield lines with their numbers, counted from 1, without their ends.

    A last line without an end counts. U+2028 and its like end nothing: they are part of the text.

    Args:
        source: an open input.
        limit: the most bytes that a line may have. A longer one is never held in memory: a `BadRowError` stands in
            its place, and reading goes on behind it.

    Raises:
        InputError: a line of a pipe or device is too long; there it may have no end.
    """
    stream = source.stream
    number = 0
    while line := stream.readline(limit + len(LINE_END)):
        number += 1
        text = without_end(line)
        if len(text) <= limit:
            yield number, text
            continue
        yield number, skipped_line(source, line, number, limit)


def skipped_line(source: Source, begin: bytes, number: int, limit: int) -> BadRowError:
    """Skip what is left of a line that is too long, and return the reason for its refusal.

    Args:
        source: an open input.
        begin: the part of the line that has been read.
        number: the line's number.
        limit: the most bytes that it may have.

    Raises:
        InputError: the input is a pipe or a device, where a line may have no end.
    """
    reason = too_long("the line", limit)
    if not source.can_be_reread:
        raise InputError(f"{source.name}: line {number}: {reason}")
    part = begin
    while part and not part.endswith(b"\n"):
        part = source.stream.readline(SKIPPED_AT_ONCE)
    return BadRowError(reason)


def without_end(line: bytes) -> bytes:
    """Return a line without its line feed and the carriage return before it."""
    return line[:-1].removesuffix(b"\r") if line.endswith(b"\n") else line


def decode(line: bytes, unit: str = "line") -> str:
    """Return the text of a line, or of another unit of a file.

    Raises:
        BadRowError: bytes that are not UTF-8, or a NUL, which no text holds.
    """
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRowError(_undecodable(line, error.start, unit)) from None
    if "\0" in text:
        raise BadRowError(
            f"a NUL at byte {line.index(0) + 1} of the {unit}; if this is UTF-16, name the encoding "
            "(--encoding utf-16), else it is no text file"
        )
    return text


def _undecodable(line: bytes, position: int, unit: str) -> str:
    """Return the reason for refusing a line that does not decode at a 0-based position."""
    if line.startswith(UNDECODABLE, position):
        return f"bytes that are not in the encoding, at byte {position + 1} of the {unit} as UTF-8; name another"
    return (
        f"not UTF-8: byte 0x{line[position]:02x} at byte {position + 1} of the {unit}; name the encoding "
        f"(--encoding, for example {EXAMPLES})"
    )
