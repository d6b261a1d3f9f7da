"""What every reader is: an iterator of records with one policy for rows that cannot be read."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from layertap.data.readers.source import Source
from layertap.errors import InputError, OptionError
from layertap.records import Record

if TYPE_CHECKING:
    import pyarrow as pa

OnError = Literal["raise", "skip"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """What to take from an input, and what to do with rows that cannot be read.

    Attributes:
        text_column: the column with the texts; None: `text`.
        words_column: the column with lists of words, which are the text then; None: there are no given words.
        pair_column: the column with second texts; None: there are none.
        spans_column: the column with character ranges of the text; None: there are none.
        id_column: the column with the ids; None: `id` where there is one.
        columns: other columns to carry along; None: all but the texts.
        on_error: `raise` stops at the first bad row, `skip` lists it and goes on.
        max_errors: bad rows that `skip` bears; None: any number.
    """

    text_column: str | None = None
    words_column: str | None = None
    pair_column: str | None = None
    spans_column: str | None = None
    id_column: str | None = None
    columns: tuple[str, ...] | None = None
    on_error: OnError = "raise"
    max_errors: int | None = None

    def __post_init__(self) -> None:
        if self.on_error not in ("raise", "skip"):
            raise OptionError(f"on_error is {self.on_error!r}; it can be 'raise' or 'skip'")
        if self.text_column is not None and self.words_column is not None:
            raise OptionError(
                f"text column {self.text_column!r} and words column {self.words_column!r} are both named, and the text "
                "of given words is them with a space between; name one of the two"
            )
        if self.pair_column is not None and self.words_column is not None:
            raise OptionError(
                f"words column {self.words_column!r} and pair column {self.pair_column!r} are both named, and pairs "
                "are of texts, not of given words; name one of the two"
            )
        if self.max_errors is not None and self.on_error == "raise":
            raise OptionError("max_errors is given and on_error is 'raise'; it goes with on_error 'skip'")
        if self.max_errors is not None and self.max_errors < 0:
            raise OptionError(f"max_errors is {self.max_errors}; it can be 0 or more")
        twice = sorted({name for name in self.columns or () if (self.columns or ()).count(name) > 1})
        if twice:
            raise OptionError(f"columns name {', '.join(map(repr, twice))} twice; name each once")


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
    """Refuses columns that were named for a format which has no such columns.

    Args:
        options: what the user asked for.
        roles: names of `ReadOptions` -> what to call each in the message.
        file: the input's name.
        why: the format, and why it has none; then what to do.
    """
    for attribute, role in roles.items():
        asked = getattr(options, attribute)
        if asked:
            raise OptionError(f"{file} is read as {why.format(role=f'the {role} {asked!r}')}")


class BadRowError(Exception):
    """Raised while a row is parsed; `Reader` turns it into an InputError or a RowError."""


class Reader(ABC):
    """The records of one input, in order; read once, closed at the end.

    Attributes:
        errors: rows skipped so far.
    """

    #: what `where` counts in messages
    unit: ClassVar[str] = "line"

    def __init__(self, source: Source, options: ReadOptions) -> None:
        self.errors: list[RowError] = []
        self._source = source
        self._options = options
        self._records = self._read()

    @property
    def bytes_total(self) -> int | None:
        """Size of the input as stored, or None where it is not known (standard input)."""
        return self._source.bytes_total

    @property
    def bytes_read(self) -> int:
        """How much of `bytes_total` has been read."""
        return self._source.bytes_read

    @property
    def column_types(self) -> Mapping[str, pa.DataType | None]:
        """Arrow types of what the records carry, in column order.

        The key `id` stands for `Record.id`. None stands for values of no single Arrow type, which Parquet
        holds as JSON text. A reader that has to look at the rows for it (JSONL) does so here.
        """
        return {}

    def __iter__(self) -> Iterator[Record]:
        return self._records

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the input."""
        self._source.close()

    @abstractmethod
    def _rows(self) -> Iterator[tuple[int, Any]]:
        """Rows as (number counted from 1, what `_parse` wants), bad rows included."""

    @abstractmethod
    def _parse(self, row: int, raw: Any) -> Record:
        """The record of a row; raises BadRowError."""

    def _read(self) -> Iterator[Record]:
        number = 0
        try:
            for row, (number, raw) in enumerate(self._rows()):
                try:
                    record = self._parse(row, raw)
                except BadRowError as bad:
                    self._refuse(row, f"{self.unit} {number}", str(bad))
                    continue
                yield record
        except (OSError, EOFError, zlib.error) as error:
            raise self._fail(f"cannot be read after {self.unit} {number}: {error}") from None
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
