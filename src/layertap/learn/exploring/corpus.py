"""Texts of a page: read from an input, sampled where there are too many, with their columns as colours."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from layertap.data.input import Input
from layertap.errors import InputError, UsageError
from layertap.learn.arrays import Int64Array
from layertap.page.content import PageArray
from layertap.records import Record

MOST_CLASSES = 20
"""Distinct values up to which a column other than the labels is coloured as classes."""

MOST_COLUMNS = 8
NONE = "(none)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """Texts of a page.

    Attributes:
        name: name of the input, without its folder.
        records: N records, numbered from 0; their columns are those of the input.
        rows: number of each record in its input.
        total: number of texts that the input has.
        label: name of the column of labels, or None.
    """

    name: str
    records: tuple[Record, ...]
    rows: tuple[int, ...]
    total: int
    label: str | None = None

    def __len__(self) -> int:
        return len(self.records)

    @property
    def texts(self) -> list[str]:
        """Texts of the N records."""
        return [record.text for record in self.records]

    @property
    def is_sampled(self) -> bool:
        """Whether some texts of the input were left out."""
        return len(self.records) < self.total

    @property
    def column_names(self) -> list[str]:
        """Names of the columns, the labels first."""
        names = list(dict.fromkeys(name for record in self.records for name in record.columns))
        return sorted(names, key=lambda name: name != self.label)

    def column(self, name: str) -> list[Any]:
        """Return the values of a column, None where a record has none."""
        return [_plain(record.columns.get(name)) for record in self.records]

    def drawn(self, most: int, seed: int, kept: Collection[int] = ()) -> Corpus:
        """Return a random sample of at most `most` texts; those of the rows `kept` are in it."""
        if len(self) <= most:
            return self
        order = np.random.default_rng(seed).permutation(len(self)).tolist()
        first = sorted(order, key=lambda i: self.rows[i] not in kept)[:most]
        return self.at(sorted(first))

    def at(self, numbers: Sequence[int]) -> Corpus:
        """Return the corpus of some of its texts."""
        records = tuple(replace(self.records[i], row=row) for row, i in enumerate(numbers))
        return replace(self, records=records, rows=tuple(self.rows[i] for i in numbers))


def read_corpus(source: Input, label: str | None, *, most: int, seed: int, kept: Collection[int] = ()) -> Corpus:
    """Read the texts of an input, and keep a random sample of at most `most` in memory.

    Args:
        source: the input.
        label: column of labels, or None.
        most: number of texts to keep.
        seed: seed of the sample.
        kept: numbers of rows that are kept in any case.

    Raises:
        InputError: no texts, or rows that cannot be read.
        UsageError: a column of labels, or a row to keep, that the input does not have.
    """
    with source.open() as reader:
        return sampled(reader, Path(source.name).name, label, most=most, seed=seed, kept=kept)


def sampled(
    records: Iterable[Record], name: str, label: str | None, *, most: int, seed: int, kept: Collection[int] = ()
) -> Corpus:
    """Draw a random sample of records in one pass (reservoir sampling), in their order."""
    draw, pool, always, total = random.Random(seed), list[Record](), dict[int, Record](), 0
    for record in records:
        if label is not None and total == 0 and label not in record.columns:
            there = ", ".join(map(repr, record.columns)) or "no others"
            raise UsageError(f"{name}: no column {label!r} for labels; beside the texts there are {there} (--label)")
        total += 1
        if record.row in kept:
            always[record.row] = record
        elif len(pool) < most:
            pool.append(record)
        elif (place := draw.randrange(total)) < most:
            pool[place] = record
    missing = sorted(set(kept) - set(always))
    if missing:
        raise UsageError(f"{name}: there is no row {missing[0]}; it has {total:,} rows, numbered from 0")
    room = max(0, most - len(always))
    if len(pool) > room:
        pool = draw.sample(pool, room)
    records_kept = sorted([*pool, *always.values()], key=lambda record: record.row)
    if not records_kept:
        raise InputError(f"{name}: there are no texts to show")
    return Corpus(
        name=name,
        records=tuple(replace(record, row=row) for row, record in enumerate(records_kept)),
        rows=tuple(record.row for record in records_kept),
        total=total,
        label=label,
    )


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


def labelled_rows(corpus: Corpus, most: int, seed: int) -> Int64Array:
    """Draw at most `most` texts that have a label: int64 [n], in order."""
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
