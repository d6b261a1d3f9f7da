"""Texts of a page: read from an input, sampled where there are too many, with their columns as colours."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from layertap.data.input import Input
from layertap.errors import InputError, UsageError
from layertap.learn.arrays import Int64Array
from layertap.learn.exploring.units import UnitKind, Units, finder_of, item, unit_chars, units_of
from layertap.page.content import PageArray
from layertap.records import Record
from layertap.words import counted

MOST_CLASSES = 20
"""Distinct values up to which a column other than the labels is coloured as classes."""

MOST_COLUMNS = 8
NONE = "(none)"

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """Texts of a page, and its N points: the texts themselves, or words, spans or tokens of them.

    Attributes:
        name: name of the input, without its folder.
        records: the texts, numbered from 0; their columns are those of the input.
        rows: number of each text in its input.
        total: number of points that the input has.
        label: name of the column of labels, or None.
        units: the points where they are not the texts themselves.
        has_texts: whether the texts are known; if not, those of the records mean nothing.
    """

    name: str
    records: tuple[Record, ...]
    rows: tuple[int, ...]
    total: int
    label: str | None = None
    units: Units | None = None
    has_texts: bool = True

    def __len__(self) -> int:
        return len(self.records) if self.units is None else len(self.units)

    @property
    def texts(self) -> list[str]:
        """The texts of the records."""
        return [record.text for record in self.records]

    @property
    def unit(self) -> str:
        """Name of what a point is: `text`, `word`, `span` or `token`."""
        return "text" if self.units is None else self.units.kind

    @property
    def is_sampled(self) -> bool:
        """Whether some points of the input were left out."""
        return len(self) < self.total

    @property
    def point_rows(self) -> list[int]:
        """For each point, the number of its text in the input."""
        return list(self.rows) if self.units is None else [self.rows[i] for i in self.units.owners.tolist()]

    @property
    def column_names(self) -> list[str]:
        """Names of the columns, the labels first."""
        names = list(dict.fromkeys(name for record in self.records for name in record.columns))
        return sorted(names, key=lambda name: name != self.label)

    def column(self, name: str) -> list[Any]:
        """Return the value of a column for each point, None where there is none.

        Where a text has a list with one value for each of its units, these are the values of the units.
        """
        values = [_plain(record.columns.get(name)) for record in self.records]
        units = self.units
        if units is None:
            return values
        counts, places = units.counts.tolist(), zip(units.owners.tolist(), units.numbers.tolist(), strict=True)
        return [item(values[owner], number, counts[owner]) for owner, number in places]

    def draw(self, most: int, seed: int, kept: Collection[int] = ()) -> list[int]:
        """Draw the numbers of at most `most` points, in order; points of texts of the rows `kept` come first."""
        if len(self) <= most:
            return list(range(len(self)))
        rows = self.point_rows
        order = np.random.default_rng(seed).permutation(len(self)).tolist()
        return sorted(sorted(order, key=lambda i: rows[i] not in kept)[:most])

    def drawn(self, most: int, seed: int, kept: Collection[int] = ()) -> Corpus:
        """Return the corpus of a random sample of at most `most` points, see `draw`."""
        return self if len(self) <= most else self.at(self.draw(most, seed, kept))

    def at(self, numbers: Sequence[int]) -> Corpus:
        """Return the corpus of some of its points, given in order, and of their texts."""
        if self.units is None:
            used, units = list(numbers), None
        else:
            used, units = self.units.at(numbers)
        records = tuple(replace(self.records[i], row=row) for row, i in enumerate(used))
        return replace(self, records=records, rows=tuple(self.rows[i] for i in used), units=units)


def read_corpus(
    source: Input, label: str | None, *, most: int, seed: int, kept: Collection[int] = (), unit: str = "text"
) -> Corpus:
    """Read the texts of an input, and keep a random sample of at most `most` points in memory.

    Args:
        source: the input.
        label: column of labels, or None.
        most: number of points to keep.
        seed: seed of the sample.
        kept: numbers of rows that are kept in any case.
        unit: what a point is: "text", "word" or "span".

    Raises:
        InputError: no texts, or rows that cannot be read.
        UsageError: a column of labels, or a row to keep, that the input does not have.
    """
    with source.open() as reader:
        name = Path(source.name).name
        if unit == "text":
            return sampled(reader, name, label, most=most, seed=seed, kept=kept)
        kind: UnitKind = "span" if unit == "span" else "word"
        return sampled_units(reader, name, label, kind=kind, most=most, seed=seed, kept=kept)


def sampled(
    records: Iterable[Record], name: str, label: str | None, *, most: int, seed: int, kept: Collection[int] = ()
) -> Corpus:
    """Draw a random sample of records in one pass (reservoir sampling), in their order."""
    pool = _Pool[Record](most, seed)
    for record in labelled(records, name, label):
        pool.add(record, always=record.row in kept)
    check_kept(kept, {record.row for record in pool.always}, name, pool.total)
    records_kept = sorted(pool.drawn(), key=lambda record: record.row)
    if not records_kept:
        raise InputError(f"{name}: there are no texts to show")
    return Corpus(
        name=name,
        records=tuple(replace(record, row=row) for row, record in enumerate(records_kept)),
        rows=tuple(record.row for record in records_kept),
        total=pool.total,
        label=label,
    )


def sampled_units(
    records: Iterable[Record],
    name: str,
    label: str | None,
    *,
    kind: UnitKind,
    most: int,
    seed: int,
    kept: Collection[int] = (),
) -> Corpus:
    """Draw a random sample of the words or spans of records in one pass, in their order.

    Raises:
        InputError: no words or spans, or a list of labels of another length than their number.
    """
    pool, finder, seen, num_texts = _Pool[tuple[Record, int]](most, seed), finder_of(kind), set[int](), 0
    for record in labelled(records, name, label):
        num_texts += 1
        number = len(unit_chars(record, finder, name))
        value = None if label is None else _plain(record.columns.get(label))
        if isinstance(value, list) and len(value) != number:
            raise InputError(
                f"{name}, row {record.row}: column {label!r} has {counted(len(value), 'label')}, and the text has "
                f"{counted(number, kind)}; give one label per {kind}"
            )
        if record.row in kept:
            seen.add(record.row)
        for i in range(number):
            pool.add((record, i), always=record.row in kept)
    check_kept(kept, seen, name, num_texts)
    chosen = sorted(pool.drawn(), key=lambda unit: (unit[0].row, unit[1]))
    if not chosen:
        raise InputError(f"{name}: there are no {kind}s to show")
    texts = {record.row: record for record, _ in chosen}
    chars = [unit_chars(record, finder, name) for record in texts.values()]
    place_of = {row: place for place, row in enumerate(texts)}
    return Corpus(
        name=name,
        records=tuple(replace(record, row=row) for row, record in enumerate(texts.values())),
        rows=tuple(texts),
        total=pool.total,
        label=label,
        units=units_of(
            kind,
            owners=[place_of[record.row] for record, _ in chosen],
            numbers=[number for _, number in chosen],
            chars=chars,
            texts=[record.text for record in texts.values()],
        ),
    )


def labelled(records: Iterable[Record], name: str, label: str | None) -> Iterator[Record]:
    """Yield records, the first of which must have the column of labels.

    Raises:
        UsageError: it does not.
    """
    for number, record in enumerate(records):
        if label is not None and number == 0:
            check_label(label, record.columns, name)
        yield record


def check_label(label: str, columns: Iterable[str], name: str) -> None:
    """Refuse a column of labels that is not there.

    Raises:
        UsageError: the message lists the columns that are.
    """
    columns = list(columns)
    if label not in columns:
        there = ", ".join(map(repr, columns)) or "no others"
        raise UsageError(f"{name}: no column {label!r} for labels; beside the texts there are {there} (--label)")


def check_kept(kept: Iterable[int], seen: Collection[int], name: str, total: int) -> None:
    """Refuse rows to keep that are not there.

    Raises:
        UsageError: the message names the first of them.
    """
    missing = sorted(set(kept) - set(seen))
    if missing:
        raise UsageError(f"{name}: there is no row {missing[0]}; it has {total:,} rows, numbered from 0")


class _Pool(Generic[T]):
    """Random sample of items that are seen once each (reservoir sampling), beside some that are always in it."""

    def __init__(self, most: int, seed: int) -> None:
        self.total = 0
        self.always: list[T] = []
        self._most = most
        self._random = random.Random(seed)
        self._pool: list[T] = []

    def add(self, value: T, *, always: bool) -> None:
        self.total += 1
        if always:
            self.always.append(value)
        elif len(self._pool) < self._most:
            self._pool.append(value)
        elif (place := self._random.randrange(self.total)) < self._most:
            self._pool[place] = value

    def drawn(self) -> list[T]:
        room = max(0, self._most - len(self.always))
        others = self._pool if len(self._pool) <= room else self._random.sample(self._pool, room)
        return [*self.always, *others]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Colours:
    """A column by which texts are coloured.

    Attributes:
        name: name of the column.
        names: names of classes, or None for numbers.
        values: uint16 [N], class of each text; float32 [N] for numbers.
        is_carried: whether the column came with the input.
    """

    name: str
    names: tuple[str, ...] | None
    values: PageArray
    is_carried: bool = True

    def as_facts(self) -> dict[str, Any]:
        """Return what a page states of the column, as JSON values."""
        if self.names is not None:
            return {"name": self.name, "kind": "classes", "names": list(self.names), "carried": self.is_carried}
        low, high = (float(self.values.min()), float(self.values.max())) if len(self.values) else (0.0, 0.0)
        return {"name": self.name, "kind": "numbers", "low": low, "high": high, "carried": self.is_carried}


def colours_of(corpus: Corpus, lengths: Sequence[int] | None) -> list[Colours]:
    """Return the columns by which texts can be coloured: labels first, then others that are few classes or numbers."""
    made: list[Colours] = []
    for name in corpus.column_names:
        column = coloured(name, corpus.column(name), is_label=name == corpus.label)
        if column is not None and len(made) < MOST_COLUMNS:
            made.append(column)
    if lengths is not None:
        values = np.array(lengths, dtype=np.float32)
        made.append(Colours(name="length in tokens", names=None, values=values, is_carried=False))
    return made


def coloured(name: str, values: Sequence[Any], *, is_label: bool) -> Colours | None:
    """Return a column as colours, or None where it is neither few classes nor numbers.

    Numbers with more than 20 distinct values are measurements, others classes.
    """
    numbers = [_number(value) for value in values]
    are_numbers = all(number is not None for number in numbers)
    if are_numbers and len(set(numbers)) > MOST_CLASSES:
        return Colours(name=name, names=None, values=np.array(numbers, dtype=np.float32))
    texts = [NONE if value is None or value == "" else str(value) for value in values]
    names = sorted(set(texts), key=_sort_key)
    if len(names) > (np.iinfo(np.uint16).max if is_label else MOST_CLASSES):
        return None
    number_of = {text: number for number, text in enumerate(names)}
    classes = np.array([number_of[text] for text in texts], dtype=np.uint16)
    return Colours(name=name, names=tuple(names), values=classes)


def labelled_points(corpus: Corpus, most: int, seed: int) -> Int64Array:
    """Draw at most `most` points that have a label: int64 [n], in order."""
    assert corpus.label is not None
    rows = np.flatnonzero([value is not None and value != "" for value in corpus.column(corpus.label)])
    if len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


def _sort_key(name: str) -> tuple[bool, float, str]:
    number = _number(name)
    return (number is None, number or 0.0, name)


def _number(value: Any) -> float | None:
    """Return a value as a finite number, or None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if np.isfinite(number) and abs(number) < np.finfo(np.float32).max else None


def _plain(value: Any) -> Any:
    """Return a value without numpy's and Arrow's types."""
    for name in ("as_py", "tolist"):
        convert = getattr(value, name, None)
        if callable(convert):
            value = convert()
    return value
