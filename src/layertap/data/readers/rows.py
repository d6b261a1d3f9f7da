"""Rows of a table as lists of fields, with quotation marks as of RFC 4180 or without."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import TypeAlias

from layertap.data.readers.base import BadRowError, too_long
from layertap.data.readers.lines import LINE_END, decode, numbered_lines, skipped_line, without_end
from layertap.data.readers.source import Source
from layertap.errors import InputError

Row: TypeAlias = tuple[int, list[str] | BadRowError]
"""Number of a row's first line, counted from 1, and its fields, or the reason why they cannot be read."""

UNQUOTED = "if quotation marks are characters like others here, pass --quoting none"

ESCAPED = 'in CSV, a quotation mark within a field is written "", and not \\": write the file again so'


def plain_rows(source: Source, delimiter: str, limit: int, *, spaced: bool = False) -> Iterator[Row]:
    """Yield the rows of a table in which a line is a row, and quotation marks are characters like others.

    Empty lines are no rows.
    """
    for number, line in numbered_lines(source, limit):
        if isinstance(line, BadRowError):
            yield number, line
            continue
        if not line:
            continue
        try:
            fields = decode(line).split(delimiter)
            yield number, [field.removeprefix(" ") for field in fields] if spaced else fields
        except BadRowError as bad:
            yield number, bad


def quoted_rows(source: Source, delimiter: str, limit: int, *, spaced: bool = False) -> Iterator[Row]:
    """Yield the rows of a table in which a field may stand in quotation marks, and then hold line breaks.

    Empty lines are no rows.

    Raises:
        InputError: a quotation mark that is never closed.
    """
    # The csv module has one limit for the whole process, 128 KiB; it is raised, never lowered. Rows have their own.
    csv.field_size_limit(max(limit, csv.field_size_limit()))
    lines = _Lines(source, limit)
    rows = csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=spaced)
    while True:
        first = lines.begin_row()
        try:
            fields = next(rows, None)
        except _TooLongError as error:
            if lines.number > first:
                # Rows without number may be inside: no skipping over that.
                raise InputError(
                    f"{source.name}: line {first}: a quote opened here is not closed so soon; {error}; {UNQUOTED}"
                ) from None
            yield first, BadRowError(str(error))
            continue
        except csv.Error as error:
            if lines.ended:
                raise InputError(
                    f"{source.name}: line {first}: a quote opened here is never closed; {UNQUOTED}"
                ) from None
            last = lines.number
            over = f" (in lines {first} to {last}, taken as one row)" if last > first else ""
            yield first, BadRowError(f"{_reason(error, delimiter)}{over}; {ESCAPED if lines.has_escape else UNQUOTED}")
            continue
        if fields is None:
            return
        if lines.bad is not None:
            bad, lines.bad = lines.bad, None
            yield first, bad
        elif fields:
            yield first, fields


def _reason(error: csv.Error, delimiter: str) -> str:
    if "new-line character" in str(error):
        return "a carriage return within a row that is not quoted"
    if "expected after" in str(error):
        return f"broken quoting: a quotation mark ends a field, and no {delimiter!r} follows it"
    return f"broken quoting: {error}"


class _TooLongError(Exception):
    """A row of more bytes than the limit; the csv module begins a new row after it."""


class _Lines:
    """Decoded lines with their ends, for the csv module.

    A line that does not decode is passed on all the same, so that rows stay whole; `bad` says why. (An
    exception instead would end the row in the middle of its quotes.)
    """

    def __init__(self, source: Source, limit: int) -> None:
        self._source = source
        self._limit = limit
        self._left = limit
        self.number = 0
        self.ended = False
        self.has_escape = False
        self.bad: BadRowError | None = None

    def begin_row(self) -> int:
        """Return the number of the next line, with which a row begins that may have as many bytes as the limit."""
        self._left = self._limit
        return self.number + 1

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._source.stream.readline(self._limit + len(LINE_END))
        if not line:
            self.ended = True
            raise StopIteration
        self.number += 1
        self._left -= len(without_end(line))
        self.has_escape = b'\\"' in line
        if self._left < 0:
            if not line.endswith(b"\n"):
                skipped_line(self._source, line, self.number, self._limit)
            raise _TooLongError(too_long("the row", self._limit))
        try:
            return decode(line)
        except BadRowError as bad:
            self.bad = self.bad or BadRowError(str(bad), number=self.number)
            return line.decode("utf-8", "replace")
