"""CSV and TSV: a header, then one record per row, in the dialect that the file shows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, ClassVar

from layertap.data.readers.base import BadRowError, Reader, refuse_roles
from layertap.data.readers.dialect import HEAD_BYTES, Dialect, dialect_of
from layertap.data.readers.options import ReadOptions, repeated
from layertap.data.readers.roles import record_of
from layertap.data.readers.rows import Row, plain_rows, quoted_rows
from layertap.data.readers.selection import ID_COLUMN, listed, select
from layertap.data.readers.source import Source
from layertap.records import Record

if TYPE_CHECKING:
    import pyarrow as pa

MAX_COLUMNS = 1 << 20
"""Most columns that a header may name."""

LONG_NAME = 40
"""Characters from which on a name in the first row is more likely a text."""


class DelimitedReader(Reader):
    """Reader of fields split at a delimiter; empty lines are no rows, and fields are strings.

    Delimiter, quotation marks and header are as asked for, or as the first part of the file shows them (`Dialect`).
    Names of columns are taken without white space around them; a column without a name is called after its place
    (`col0`, `col1`, ...), as all are where there is no header.
    """

    @property
    @abstractmethod
    def expected_delimiter(self) -> str:
        """Delimiter that the format's name says."""

    def __init__(self, source: Source, options: ReadOptions) -> None:
        super().__init__(source, options)
        refuse_roles(
            options,
            {"words_column": "words column", "spans_column": "spans column"},
            file=source.name,
            why="fields with text in them, and {role} asked for holds lists; write the input as jsonl or parquet",
        )
        self._dialect = self._decided()
        split = quoted_rows if self._dialect.quoting == "minimal" else plain_rows
        self._rows_left = split(source, self._dialect.delimiter, options.max_record_bytes, spaced=self._dialect.spaced)
        self._first: list[Row] = []
        self._header = self._read_header()
        self._place = {name: i for i, name in enumerate(self._header)}
        self._selection = select(
            options,
            file=source.name,
            available=self._header,
            texts=self._header,
            ids=self._header,
            origin="its first line names the columns" if options.header else "without a header its columns are",
            advice=self._advice(),
        )
        #: what a field has that another dialect would read differently
        self._told_mark = "\n" if self._dialect.quoting == "minimal" else '"'
        self._broken_fields = 0
        self._first_broken = 0
        self._enclosed_fields = 0

    @property
    def dialect(self) -> Dialect:
        """Delimiter, quotation marks and header as the file is read."""
        return self._dialect

    @property
    def column_types(self) -> Mapping[str, pa.DataType | None]:
        """Arrow types of the carried columns, which are all strings."""
        import pyarrow as pa

        chosen = self._selection
        names = (*([ID_COLUMN] if chosen.id is not None else []), *chosen.columns)
        return dict.fromkeys(names, pa.string())

    def _rows(self) -> Iterator[Row]:
        return chain(self._first, self._rows_left)

    def _parse(self, row: int, raw: list[str]) -> Record:
        while len(raw) > len(self._header) and not raw[-1]:
            raw.pop()  # delimiters at the end of a row
        if len(raw) != len(self._header):
            raise BadRowError(self._wrong_width(len(raw)))
        chosen, place = self._selection, self._place
        values = {name: raw[place[name]] for name in chosen.wanted}
        if self._told_mark in "".join(raw):
            self._count(row, values)
        return record_of(row, chosen, values, {name: values[name] for name in chosen.columns})

    def _count(self, row: int, values: Mapping[str, str]) -> None:
        """Count the fields that another dialect would read differently."""
        if self._dialect.quoting == "minimal":
            broken = sum("\n" in value and self._dialect.delimiter in value for value in values.values())
            if broken:
                self._first_broken = self._first_broken or row + 1
                self._broken_fields += broken
        elif self._options.quoting is None:
            self._enclosed_fields += sum(len(value) > 1 and value[0] == value[-1] == '"' for value in values.values())

    def _remarks(self) -> Iterator[str]:
        yield from self._dialect.notes
        if self._broken_fields:
            fields = (
                "1 field in quotation marks holds"
                if self._broken_fields == 1
                else (f"{self._broken_fields:,} fields in quotation marks hold")
            )
            yield (
                f"{fields} both a line break and {self._dialect.shown_delimiter}, first in record "
                f"{self._first_broken:,}; if the marks belong to the text, pass --quoting none"
            )
        if self._enclosed_fields:
            fields = (
                "1 field begins and ends"
                if self._enclosed_fields == 1
                else (f"{self._enclosed_fields:,} fields begin and end")
            )
            yield f"{fields} with a quotation mark, and keep both; --quoting minimal takes them off"

    def _decided(self) -> Dialect:
        options = self._options
        head = self._source.head(HEAD_BYTES)
        if b"\n" not in head and head.count(b"\r") > 1:
            raise self._fail("its lines end with carriage returns alone; convert it first: tr '\\r' '\\n' < FILE > NEW")
        return dialect_of(head, options, expected=self.expected_delimiter, file=self._source.name)

    def _read_header(self) -> list[str]:
        for number, fields in self._rows_left:
            if isinstance(fields, BadRowError):
                if not self._dialect.header and self._options.on_error == "skip":
                    self._first.append((number, fields))
                    continue
                header = ", the header" if self._dialect.header else ""
                raise self._fail(f"line {number}{header}: {fields}")
            if self._dialect.preamble and number == 1:
                continue
            if len(fields) > MAX_COLUMNS:
                raise self._fail(f"line {number}: the header has {len(fields):,} columns; at most {MAX_COLUMNS:,} work")
            if not self._dialect.header:
                self._first.append((number, fields))
                return [f"col{place}" for place in range(len(fields))]
            names = [name.strip() or f"col{place}" for place, name in enumerate(fields)]
            twice = repeated(names)
            if twice:
                raise self._fail(
                    f"line {number}: the header names {listed(twice)} twice; rename one, or pass --no-header if the "
                    "first line is a row like the others"
                )
            return names
        if not self._dialect.header:
            raise self._fail("the file is empty")
        raise self._fail("the file is empty; its first line must name the columns")

    def _advice(self) -> str:
        """Return what else to say where a column is not there."""
        if not self._dialect.header:
            return ""
        if len(self._header) == 1 and self._header[0].startswith("#"):
            return (
                f"; if that line is a comment, read on from the next: tail -n +2 {self.name} | layertap extract - ..."
            )
        if len(self._header) == 1 and "  " in self._header[0]:
            return (
                "; if several spaces separate columns, let a tab do so: sed -E 's/ {2,}/\\t/g' "
                f"{self.name} | layertap extract - --input-format tsv ..."
            )
        if any(map(_is_no_name, self._header)):
            return "; if that line is a row like the others, pass --no-header, and name the columns col0, col1, ..."
        return ""

    def _wrong_width(self, width: int) -> str:
        fields = "1 field" if width == 1 else f"{width} fields"
        under = "under a header of" if self._dialect.header else "and in the first row"
        mark = self._dialect.shown_delimiter
        if width < len(self._header):
            why = f"split at {mark}"
        else:
            why = f"{mark} within a field " + (
                "need quotation marks" if self._dialect.quoting == "minimal" else "cannot be told from others"
            )
        return f"{fields} {under} {len(self._header)} ({why})"


class CsvReader(DelimitedReader):
    """Reader of fields that commas separate, unless the file shows something else."""

    expected_delimiter: ClassVar[str] = ","


class TsvReader(DelimitedReader):
    """Reader of fields that tabs separate, unless the file shows something else."""

    expected_delimiter: ClassVar[str] = "\t"


def _is_no_name(name: str) -> bool:
    """Return whether a name in the first row looks like a value."""
    return len(name) > LONG_NAME or name.replace(".", "", 1).replace("-", "", 1).isdigit() or len(name.split()) > 4
