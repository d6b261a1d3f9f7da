"""Words, spans and tokens of texts as the points of a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from layertap.errors import InputError
from layertap.learn.arrays import Int64Array
from layertap.records import Record
from layertap.text.units import UnitFinder

UnitKind: TypeAlias = Literal["word", "span", "token"]
"""Kinds of points of a page that are parts of a text."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Units:
    """N words, spans or tokens of R texts.

    Attributes:
        kind: what they are.
        owners: int64 [N], number of the text of each, ascending.
        numbers: int64 [N], number of each among all units of its text.
        counts: int64 [R], number of all units of each text.
        names: N strings, the characters of each.
        chars: int64 [N, 2], the range [begin, end) of these in the text.
    """

    kind: UnitKind
    owners: Int64Array
    numbers: Int64Array
    counts: Int64Array
    names: tuple[str, ...]
    chars: Int64Array

    def __len__(self) -> int:
        return len(self.names)

    def at(self, chosen: Sequence[int]) -> tuple[list[int], Units]:
        """Return some of the units, given in order, and the numbers of the texts that they are of."""
        places = np.asarray(chosen, dtype=np.int64)
        used, owners = np.unique(self.owners[places], return_inverse=True)
        units = Units(
            kind=self.kind,
            owners=owners.astype(np.int64),
            numbers=self.numbers[places],
            counts=self.counts[used],
            names=tuple(self.names[i] for i in chosen),
            chars=self.chars[places],
        )
        return used.tolist(), units


def units_of(
    kind: UnitKind,
    *,
    owners: Sequence[int],
    numbers: Sequence[int],
    chars: Sequence[npt.NDArray[np.integer[Any]]],
    texts: Sequence[str],
) -> Units:
    """Return chosen units of texts.

    Args:
        kind: what they are.
        owners: number of the text of each unit, ascending.
        numbers: number of each unit in its text.
        chars: for each text, [n, 2], the characters of all its units.
        texts: the texts.
    """
    places = list(zip(owners, numbers, strict=True))
    ranges = np.array([chars[owner][number] for owner, number in places], dtype=np.int64).reshape(-1, 2)
    bounds = zip(owners, ranges.tolist(), strict=True)
    return Units(
        kind=kind,
        owners=np.asarray(owners, dtype=np.int64),
        numbers=np.asarray(numbers, dtype=np.int64),
        counts=np.array([len(own) for own in chars], dtype=np.int64),
        names=tuple(texts[owner][begin:end] for owner, (begin, end) in bounds),
        chars=ranges,
    )


def finder_of(kind: UnitKind) -> UnitFinder:
    """Return the finder of the words or spans of records."""
    return UnitFinder(words=kind == "word", spans=kind == "span")


def unit_chars(record: Record, finder: UnitFinder, name: str) -> npt.NDArray[np.integer[Any]]:
    """Return the characters of the words or spans of a record, [n, 2].

    Raises:
        InputError: the record has none that can be had, for example no column of spans.
    """
    try:
        finder.check(record)
    except InputError as error:
        raise InputError(f"{name}, row {record.row}: {error}") from None
    if finder.words:
        return finder.word_chars(record)
    return np.array(record.spans, dtype=np.int64).reshape(-1, 2)


def item(value: Any, number: int, count: int) -> Any:
    """Return the value of a unit: an item of a list with one for each unit, or else the value of the whole text."""
    if isinstance(value, list):
        return value[number] if len(value) == count else None
    return value
