"""JSON values that are not one a line: the items of an array, and objects over several lines."""

from __future__ import annotations

import re
from collections.abc import Iterator

from layertap.data.readers.base import BadRowError, too_long
from layertap.data.readers.source import Source
from layertap.errors import InputError

READ_BYTES = 1 << 18

TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|["{}\[\],]', re.DOTALL)
"""A whole string, or a character that begins, ends or separates something; a lone quotation mark begins a string that
the bytes at hand do not end."""

STRING_REST = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
BACKSLASHES = re.compile(rb"\\*\Z")


def items_of_array(source: Source, limit: int) -> Iterator[tuple[int, bytes | BadRowError]]:
    """Yield the items of a JSON array with their numbers, counted from 1, as bytes that are not parsed yet.

    Arrays that follow one another, as in files laid end to end, are taken as one.

    Args:
        source: an open input, whose first character other than white space is a bracket.
        limit: the most bytes that an item may have. A longer one is never held in memory: a `BadRowError` stands in
            its place.

    Raises:
        InputError: the input ends within the array, or has something else behind it; an item of a pipe is too long.
    """
    yield from enumerate(_Scanner(source, limit, is_array=True).values(), start=1)


def objects_over_lines(source: Source, limit: int) -> Iterator[tuple[int, bytes | BadRowError]]:
    """Yield JSON objects that may have several lines, one behind the other, as `items_of_array` does."""
    yield from enumerate(_Scanner(source, limit, is_array=False).values(), start=1)


class _Scanner:
    """Search for the ends of values by brackets and commas outside strings; broken values are left to the parser."""

    def __init__(self, source: Source, limit: int, *, is_array: bool) -> None:
        self._source = source
        self._limit = limit
        self._is_array = is_array
        self._buffer = b""
        #: where the search goes on, and where the value at hand begins
        self._position = 0
        self._begin = 0
        self._depth = 0
        self._count = 0
        self._is_inside = not is_array
        self._in_string = False
        self._is_lost = False

    def values(self) -> Iterator[bytes | BadRowError]:
        """Yield each value as bytes, without white space around it."""
        while self._read_more():
            yield from self._scan()
        rest = self._buffer[self._begin :].strip()
        if self._is_array and self._is_inside:
            raise InputError(
                f"{self._source.name}: the file ends within its array, after item {self._count:,}; is it whole?"
            )
        if rest or self._is_lost:
            yield self._value(len(self._buffer))

    def _read_more(self) -> bool:
        """Drop what is done, and append more bytes; as many as there are, so that long strings are not slow."""
        self._buffer = self._buffer[self._begin :]
        self._position -= self._begin
        self._begin = 0
        self._drop_long()
        more = self._source.stream.read(max(READ_BYTES, len(self._buffer)))
        self._buffer += more
        return bool(more)

    def _drop_long(self) -> None:
        """Let go of a value over the limit, while the search for its end goes on."""
        if len(self._buffer) <= self._limit and not self._is_lost:
            return
        if not self._source.can_be_reread:
            raise InputError(f"{self._source.name}: item {self._count + 1}: {too_long('the item', self._limit)}")
        self._is_lost = True
        self._buffer = self._buffer[self._position :]
        if not self._in_string and self._buffer.startswith(b'"'):
            self._in_string = True
            self._buffer = self._buffer[1:]
        if self._in_string:
            # An escape may be cut in two: only the backslashes before its character count.
            backslashes = BACKSLASHES.search(self._buffer)
            assert backslashes is not None
            self._buffer = b"\\" * (len(backslashes[0]) % 2)
        self._position = 0

    def _scan(self) -> Iterator[bytes | BadRowError]:
        if self._in_string:
            rest = STRING_REST.match(self._buffer)
            if rest is None:
                self._position = len(self._buffer)
                return
            self._in_string = False
            self._position = rest.end()
        if not self._is_inside and not self._enter():
            return
        while (match := TOKEN.search(self._buffer, self._position)) is not None:
            token = match[0]
            if token == b'"':
                self._position = match.start()
                return
            self._position = match.end()
            if token in b"{[":
                self._depth += 1
            elif token in b"}]":
                self._depth -= 1
                if self._depth < 0 or (self._depth == 0 and not self._is_array):
                    yield from self._end_of(match)
                    if not self._is_inside and not self._enter():
                        return
            elif token == b"," and self._depth == 0 and self._is_array:
                yield self._value(match.start())
                self._begin = match.end()
        self._position = len(self._buffer)

    def _end_of(self, match: re.Match[bytes]) -> Iterator[bytes | BadRowError]:
        """Finish the last item of the array, or the object."""
        self._depth = 0
        if not self._is_array:
            yield self._value(match.end())
        else:
            if self._is_lost or self._buffer[self._begin : match.start()].strip():
                yield self._value(match.start())
            self._is_inside = False
        self._begin = match.end()

    def _enter(self) -> bool:
        """Go into the array that begins, and return whether there is one; only white space may stand before it."""
        rest = self._buffer[self._position :].lstrip()
        if not rest:
            self._position = self._begin = len(self._buffer)
            return False
        if not rest.startswith(b"["):
            raise InputError(
                f"{self._source.name}: something stands behind the end of its array, after item {self._count:,}; a "
                "file of JSON is one array, or an object on each line"
            )
        self._position = self._begin = len(self._buffer) - len(rest) + 1
        self._is_inside = True
        return True

    def _value(self, end: int) -> bytes | BadRowError:
        self._count += 1
        if self._is_lost:
            self._is_lost = False
            return BadRowError(too_long("the item", self._limit))
        value = self._buffer[self._begin : end].strip()
        return value if len(value) <= self._limit else BadRowError(too_long("the item", self._limit))
