"""CSV and TSV: a header, then one record per row; quoted fields may hold line breaks."""

from __future__ import annotations

import csv
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar

from layertap.data.readers.base import BadRowError, Reader, ReadOptions, refuse_roles, repeated, too_long
from layertap.data.readers.lines import LINE_END, UTF8_BOM, decode, skipped_line, without_end
from layertap.data.readers.roles import record_of
from layertap.data.readers.selection import ID_COLUMN, listed, select
from layertap.data.readers.source import Source
from layertap.records import Record

if TYPE_CHECKING:
    import pyarrow as pa

MAX_COLUMNS = 1 << 20
"""Most columns that a header may name."""


class DelimitedReader(Reader):
    """Reader of fields split at a delimiter, quoted as in RFC 4180; blank lines are no rows, and fields are strings."""

    @property
    @abstractmethod
    def delimiter(self) -> str:
        """Character that separates two fields."""

    def __init__(self, source: Source, options: ReadOptions) -> None:
        super().__init__(source, options)
        refuse_roles(
            options,
            {"words_column": "words column", "spans_column": "spans column"},
            file=source.name,
            why="fields with text in them, and {role} asked for holds lists; write the input as jsonl or parquet",
        )
        # The csv module has one limit for the whole process, 128 KiB; it is raised, never lowered. Rows have their own.
        csv.field_size_limit(max(options.max_record_bytes, csv.field_size_limit()))
        self._lines = _Lines(source, options.max_record_bytes)
        self._fields = csv.reader(self._lines, delimiter=self.delimiter, strict=True)
        self._header = self._read_header()
        self._place = {name: i for i, name in enumerate(self._header)}
        self._selection = select(
            options,
            file=source.name,
            available=self._header,
            texts=self._header,
            ids=self._header,
            origin="its first line names the columns",
        )

    @property
    def column_types(self) -> Mapping[str, pa.DataType | None]:
        """Arrow types of the carried columns, which are all strings."""
        import pyarrow as pa

        chosen = self._selection
        names = (*([ID_COLUMN] if chosen.id is not None else []), *chosen.columns)
        return dict.fromkeys(names, pa.string())

    def _rows(self) -> Iterator[tuple[int, list[str] | BadRowError]]:
        while True:
            first = self._lines.begin_row()
            try:
                fields = next(self._fields, None)
            except _TooLongError as error:
                if self._lines.number > first:
                    # Rows without number may be inside: no skipping over that.
                    raise self._fail(f"line {first}: a quote opened here is not closed so soon; {error}") from None
                yield first, BadRowError(str(error))
                continue
            except csv.Error as error:
                if self._lines.ended:
                    raise self._fail(f"line {first}: a quote opened here is never closed") from None
                yield first, BadRowError(f"broken quoting: {error}{self._up_to(first)}")
                continue
            if fields is None:
                return
            if self._lines.bad is not None:
                bad, self._lines.bad = self._lines.bad, None
                yield first, bad
            elif fields:
                yield first, fields

    def _parse(self, row: int, raw: list[str]) -> Record:
        if len(raw) != len(self._header):
            raise BadRowError(f"{len(raw)} fields under a header of {len(self._header)}")
        chosen, place = self._selection, self._place
        values = {name: raw[place[name]] for name in chosen.wanted}
        return record_of(row, chosen, values, {name: values[name] for name in chosen.columns})

    def _read_header(self) -> list[str]:
        for number, fields in self._rows():
            if isinstance(fields, BadRowError):
                raise self._fail(f"line {number}, the header: {fields}")
            if len(fields) > MAX_COLUMNS:
                raise self._fail(f"line {number}: the header has {len(fields):,} columns; at most {MAX_COLUMNS:,} work")
            twice = repeated(fields)
            if twice:
                raise self._fail(f"line {number}: the header names {listed(twice)} twice; does it name the columns?")
            return fields
        raise self._fail("the file is empty; its first line must name the columns")

    def _up_to(self, first: int) -> str:
        last = self._lines.number
        return f" (in lines {first} to {last}, taken as one row)" if last > first else ""


class CsvReader(DelimitedReader):
    """Reader of fields split at commas."""

    delimiter: ClassVar[str] = ","


class TsvReader(DelimitedReader):
    """Reader of fields split at tabs."""

    delimiter: ClassVar[str] = "\t"


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
        if self._left < 0:
            if not line.endswith(b"\n"):
                skipped_line(self._source, line, self.number, self._limit)
            raise _TooLongError(too_long("the row", self._limit))
        if self.number == 1:
            line = line.removeprefix(UTF8_BOM)
        try:
            return decode(line)
        except BadRowError as bad:
            self.bad = self.bad or BadRowError(f"{bad} (line {self.number})")
            return line.decode("utf-8", "replace")
