"""The base of all readers: an iterator of records, with one policy for rows that cannot be read."""

from __future__ import annotations

import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from layertap.data.readers.compression import COMPRESSION_ERRORS
from layertap.data.readers.options import ReadOptions
from layertap.data.readers.source import FileState, Source, check_same
from layertap.errors import InputError, OptionError
from layertap.records import Record

if TYPE_CHECKING:
    import pyarrow as pa


def too_long(what: str, limit: int) -> str:
    """Return the reason for refusing a record of more bytes than the limit; `what` is what has them."""
    return f"{what} is longer than {limit:,} bytes, the limit for a record; raise it with --max-record-size"


@dataclass(frozen=True, slots=True, kw_only=True)
class RowError:
    """A row that was skipped.

    Attributes:
        row: its 0-based number, as in `Record.row`.
        where: where a person finds it, counted from 1 (`line 7`, `row 7`).
        reason: why it cannot be read.
    """

    row: int
    where: str
    reason: str


def refuse_roles(options: ReadOptions, roles: Mapping[str, Any], *, file: str, why: str) -> None:
    """Refuse columns that were named for a format which has no such columns.

    Args:
        options: what the user asked for.
        roles: names of `ReadOptions` -> what to call each in the message.
        file: the input's name.
        why: the format, and why it has none; then what to do.
    """
    for attribute, role in roles.items():
        asked = getattr(options, attribute)
        if asked:
            names = (asked,) if isinstance(asked, str) else tuple(asked)
            what = f"the {role}{'s' if len(names) > 1 else ''} {', '.join(map(repr, names))}"
            raise OptionError(f"{file} is read as {why.format(role=what)}")


class BadRowError(Exception):
    """A row that cannot be read; `Reader` turns it into an InputError or a RowError.

    Attributes:
        number: number of the line that is to blame, counted from 1; None stands for that of the row.
    """

    def __init__(self, reason: str, *, number: int | None = None) -> None:
        super().__init__(reason)
        self.number = number


READING_ERRORS = COMPRESSION_ERRORS
"""Errors of the system and of damaged compressed files while bytes are read."""


def in_words(error: Exception) -> str:
    """Return the reason that a reading error states, without its number."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


class Reader(ABC):
    """Iterator over the records of one input, in order; the input is read once and closed at the end.

    Threads may share a reader: each record goes to one of them.

    Attributes:
        errors: rows skipped so far.
    """

    #: whether opening at a row costs no reading of the rows before it
    opens_anywhere = False

    #: what `where` counts in messages
    unit = "line"

    def __init__(self, source: Source, options: ReadOptions) -> None:
        self.errors: list[RowError] = []
        self._source = source
        self._options = options
        self._range: range | None = None
        self._number = 0
        self._rows_seen = 0
        self._ended = False
        self._records = self._read()
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """Name of the input for messages."""
        return self._source.name

    @property
    def bytes_total(self) -> int | None:
        """Size of the input as stored, or None if it is not known (standard input, a pipe)."""
        return self._source.bytes_total

    @property
    def bytes_read(self) -> int:
        """How much of `bytes_total` has been read."""
        return self._source.bytes_read

    @property
    def can_be_reread(self) -> bool:
        """Whether `again` can open the input a second time: true of regular files, not of pipes and devices."""
        return self._source.can_be_reread

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks on how the input was taken, and on what is unusual in it; complete when all records are read."""
        empty = self._range is None and self._ended and not self._rows_seen
        said = "the file is empty (0 bytes)" if self.bytes_total == 0 else "there is no record in it"
        return (
            *(f"{self.name}: {note}" for note in (*self._source.notes, *self._remarks())),
            *([f"{self.name}: {said}"] if empty else []),
        )

    @property
    def column_types(self) -> Mapping[str, pa.DataType | None]:
        """Arrow types of what the records carry, in column order.

        The key `id` stands for `Record.id`. None stands for values of no single Arrow type, which Parquet
        holds as JSON text. A reader that has to look at the rows for it (JSONL) does so here.
        """
        return {}

    def initial_kinds(self) -> dict[str, str] | None:
        """Return the kinds of the carried columns before any row is looked at, for formats whose rows decide them.

        None says that `column_types` are known without reading the rows. See `add_kinds`.
        """
        return None

    def add_kinds(self, kinds: dict[str, str], record: Record) -> None:
        """Add the kinds of a record's carried values to those of the records before it."""
        raise NotImplementedError(f"{type(self).__name__} states its column types")

    @property
    def state(self) -> FileState | None:
        """State of the file when it was opened; None of a pipe, a device or standard input."""
        return self._source.state

    def check_same(self, state: FileState) -> None:
        """Refuse an input that is not the file, or not in the state, that an earlier reading of it saw.

        Raises:
            InputError: it is another file, or has changed.
        """
        check_same(self.name, state, self.state)

    def again(self) -> Self:
        """Open the same input a second time, from its beginning.

        Raises:
            InputError: the input can be read once only (see `can_be_reread`), or has changed since it was opened.
        """
        if self._source.path is None or not self.can_be_reread:
            raise InputError(f"{self.name}: a pipe can be read once only; write it to a file first, and name that")
        source = Source(self._source.where, encoding=self._options.encoding)
        try:
            check_same(self.name, self.state, source.state)
            reader = type(self)(source, self._options)
        except BaseException:
            source.close()
            raise
        reader.restrict(self._range)
        return reader

    def restrict(self, rows: range | None) -> None:
        """Limit the records to those with these row numbers, before any is taken; None stands for all.

        Raises:
            OptionError: the range has a step, or a negative bound.
        """
        if rows is not None and (rows.step != 1 or rows.start < 0 or rows.stop < rows.start):
            raise OptionError(f"rows is {rows}; expected range(first, last + 1) of row numbers counted from 0")
        self._range = rows

    def skip_to(self, row: int) -> None:
        """Skip the records before a row that has not been reached; what is skipped is read and not parsed."""
        self._range = range(row, sys.maxsize if self._range is None else max(row, self._range.stop))

    def __iter__(self) -> Iterator[Record]:
        return self

    def __next__(self) -> Record:
        with self._lock:
            return next(self._records)

    def located(self) -> Iterator[tuple[str, Record]]:
        """Yield each record with its place in the input as messages state it, for example `line 7`."""
        for record in self:
            yield f"{self.unit} {self._number}", record

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the input; no record can be taken afterwards."""
        self._source.close()

    @abstractmethod
    def _rows(self) -> Iterator[tuple[int, Any]]:
        """Yield rows as (number counted from 1, argument of `_parse` or a `BadRowError`), bad rows included."""

    @abstractmethod
    def _parse(self, row: int, raw: Any) -> Record:
        """Make the record of a row; raises BadRowError."""

    def _remarks(self) -> Iterator[str]:
        """Yield remarks on the rows that have been read."""
        yield from ()

    def _rows_from(self, first: int) -> tuple[int, Iterator[tuple[int, Any]]]:  # noqa: ARG002 - for formats that can
        """Return rows, and the 0-based number of the first of them: at most `first`.

        A format that finds a row without reading those before it overrides this.
        """
        return 0, self._rows()

    def _read(self) -> Iterator[Record]:
        number = 0
        try:
            begin, rows = self._rows_from(0 if self._range is None else self._range.start)
            for row, (number, raw) in enumerate(rows, start=begin):
                self._rows_seen += 1
                wanted = self._range  # it may move on while records are taken
                if wanted is not None and row not in wanted:
                    if row >= wanted.stop:
                        break
                    continue
                try:
                    if isinstance(raw, BadRowError):
                        raise raw
                    record = self._parse(row, raw)
                except BadRowError as bad:
                    self._refuse(row, f"{self.unit} {bad.number or number}", str(bad))
                    continue
                self._number = number
                yield record
            self._ended = True
            self._source.check_unchanged()
        except READING_ERRORS as error:
            raise self._fail(f"cannot be read after {self.unit} {number}: {in_words(error)}") from None
        finally:
            self.close()

    def _fail(self, message: str) -> InputError:
        return InputError(f"{self._source.name}: {message}")

    def _refuse(self, row: int, where: str, reason: str) -> None:
        if self._options.on_error == "raise":
            raise self._fail(f"{where}: {reason}")
        self.errors.append(RowError(row=row, where=where, reason=reason))
        if self._options.max_errors is not None and len(self.errors) > self._options.max_errors:
            raise self._fail(
                f"more rows than the {self._options.max_errors} allowed cannot be read; the last, {where}: {reason}"
            )
