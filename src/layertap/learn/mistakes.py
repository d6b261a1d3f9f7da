"""Examples that were predicted wrongly, for tables, pages and JSON."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from layertap.learn.arrays import Float64Array, Int64Array
from layertap.records import Record

MOST = 100
"""Maximum number of examples that are kept."""

CHARACTERS = 240
"""Maximum length of a text as it is shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """Example that was predicted wrongly, or a pair whose score was missed widely.

    Attributes:
        row: 0-based number of the record in its file.
        text: text of the record, shortened.
        pair: second text of the record, shortened, or None.
        word: the word, or None if texts are labelled.
        true: given label, or the given score as text.
        predicted: predicted label, or the predicted score as text; None for no prediction.
        confidence: probability of the predicted label; None for scores.
    """

    row: int
    text: str
    pair: str | None = None
    word: str | None = None
    true: str
    predicted: str | None
    confidence: float | None = None

    def values(self) -> dict[str, Any]:
        """Return the mistake as JSON values, without what does not apply."""
        stated = {
            "row": self.row,
            "text": self.text,
            "pair": self.pair,
            "word": self.word,
            "true": self.true,
            "predicted": self.predicted,
            "confidence": None if self.confidence is None else round(self.confidence, 4),
        }
        return {name: value for name, value in stated.items() if value is not None or name == "predicted"}


@dataclass(slots=True, kw_only=True)
class MistakeList:
    """The most confident mistakes of a stream of predictions, of which only `most` are kept.

    Attributes:
        most: maximum number of mistakes that are kept.
        total: number of all mistakes.
    """

    most: int = MOST
    total: int = 0
    _kept: list[tuple[float, int, Mistake]] = field(default_factory=list)

    def add(self, mistake: Mistake) -> None:
        """Count a mistake, and keep it if it is among the most confident ones; of equal ones, the first."""
        entry = (mistake.confidence or 0.0, -self.total, mistake)
        self.total += 1
        if len(self._kept) < self.most:
            heapq.heappush(self._kept, entry)
        else:
            heapq.heappushpop(self._kept, entry)

    @property
    def listed(self) -> tuple[Mistake, ...]:
        """The kept mistakes, the most confident first."""
        return tuple(mistake for *_, mistake in sorted(self._kept, key=lambda entry: entry[:2], reverse=True))


def shortened_text(text: str) -> str:
    """Return a text on one line, without what is past the limit."""
    line = " ".join(text.split())
    return line if len(line) <= CHARACTERS else line[: CHARACTERS - 3] + "..."


def furthest(
    texts: Sequence[tuple[str, str | None]], gold: Float64Array, given: Float64Array, rows: Iterable[int]
) -> tuple[Mistake, ...]:
    """Return the texts whose ranks by two sets of N scores differ most, as far as `MOST` goes."""
    apart = np.abs(_ranks(gold) - _ranks(given))
    order = np.argsort(-apart, kind="stable")[:MOST].tolist()
    numbers = list(rows)
    return tuple(
        Mistake(
            row=numbers[i],
            text=shortened_text(texts[i][0]),
            pair=None if texts[i][1] is None else shortened_text(str(texts[i][1])),
            true=f"{gold[i]:.4g}",
            predicted=f"{given[i]:.4g}",
        )
        for i in order
        if apart[i] > 0
    )


def mistake_of(record: Record, word: str | None, true: str, predicted: str | None, confidence: float) -> Mistake:
    """Build the mistake of a record, or of one of its words."""
    return Mistake(
        row=record.row,
        text=shortened_text(record.text),
        pair=None if record.pair is None else shortened_text(record.pair),
        word=word,
        true=true,
        predicted=predicted,
        confidence=confidence,
    )


def confused(confusion: Int64Array, names: Sequence[str], most: int) -> list[tuple[str, str, int]]:
    """Return the most frequent confusions as (true class, predicted class, count); the diagonal is left out."""
    off = confusion[:, : len(names)].copy()
    np.fill_diagonal(off, 0)
    order = np.argsort(-off.ravel(), kind="stable")[:most].tolist()
    return [(names[i // len(names)], names[i % len(names)], int(off.flat[i])) for i in order if off.flat[i]]


def _ranks(values: Float64Array) -> Float64Array:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Float64Array = (counts.cumsum() - (counts - 1) / 2)[place]
    return ranks
