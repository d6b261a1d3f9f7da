"""Scores, and how far they may be trusted: percentile intervals of a bootstrap (Efron 1979)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from layertap.learn.metrics import (
    CORRELATIONS,
    METRICS,
    Classes,
    Floats,
    Tally,
    correlation,
    entity_counts,
    entity_f1,
)

Rows = npt.NDArray[np.int64]

ENTITY_F1 = "entity_f1"
RESAMPLES = 1000
LEVEL = 0.95
BLOCK_VALUES = 1 << 21
"""Numbers of a block of resamples of pairs: what is held at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A score and its bootstrap.

    Attributes:
        value: on the rows as they are.
        low, high: the middle 95 % of the resampled scores.
        error: their standard deviation.
    """

    value: float
    low: float
    high: float
    error: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Gold:
    """True classes, which predictions of some rows are held against.

    Attributes:
        classes: int64 [N].
        names: of the K classes; tags where the metric is `entity_f1`.
        owners: int64 [N], rows that are drawn together, as words of a sentence are; None: each by itself.
    """

    classes: Classes
    names: Sequence[str]
    owners: Classes | None = None

    def value(self, metric: str, rows: Rows, predicted: Classes) -> float:
        """A metric of predictions of some rows."""
        if metric == ENTITY_F1:
            return float(entity_f1(self._entities(rows, predicted).sum(axis=0, keepdims=True))[0])
        return float(METRICS[metric](self._tally(rows, predicted))[0])

    def scored(self, metric: str, rows: Rows, predicted: Classes, *, seed: int) -> Score:
        """A metric of predictions of some rows, with its bootstrap."""
        random, value = np.random.default_rng(seed), self.value(metric, rows, predicted)
        if metric == ENTITY_F1:
            return summed_up(value, entity_f1(_drawn(self._entities(rows, predicted), random)))
        tally = self._tally(rows, predicted)
        if self.owners is None:
            # Rows of a pair of classes are alike, so their numbers are drawn.
            (counts,) = tally.counts
            drawn = random.multinomial(len(rows), counts / len(rows), size=RESAMPLES).astype(np.float64)
        else:
            _, owner = np.unique(self.owners[rows], return_inverse=True)
            pairs, place = np.unique(self.classes[rows] * len(self.names) + predicted, return_inverse=True)
            held = np.zeros((int(owner.max()) + 1, len(pairs)))
            np.add.at(held, (owner, place), 1)
            drawn = _drawn(held, random)
        return summed_up(value, METRICS[metric](replace(tally, counts=drawn)))

    def _tally(self, rows: Rows, predicted: Classes) -> Tally:
        return Tally.of(self.classes[rows], predicted, len(self.names))

    def _entities(self, rows: Rows, predicted: Classes) -> Floats:
        assert self.owners is not None
        owners = self.owners[rows]
        order = np.argsort(owners, kind="stable")  # of a cross-validation folds come one after the other
        cuts = np.flatnonzero(np.diff(owners[order])) + 1
        true, found = (np.split(classes[order], cuts) for classes in (self.classes[rows], predicted))
        return entity_counts(*([[self.names[i] for i in part] for part in parts] for parts in (true, found)))


def correlated(metric: str, one: Floats, other: Floats, *, seed: int) -> Score:
    """A correlation of numbers [N], with its bootstrap over the N."""
    random, number = np.random.default_rng(seed), len(one)
    size = max(1, BLOCK_VALUES // number)
    drawn = [
        correlation(metric, one, other, _times(number, min(size, RESAMPLES - begin), random))
        for begin in range(0, RESAMPLES, size)
    ]
    return summed_up(float(correlation(metric, one, other, np.ones((1, number)))[0]), np.concatenate(drawn))


def shuffled(metric: str, one: Floats, other: Floats, *, seed: int) -> float:
    """What a correlation of numbers [N] stays below in 95 of 100 shuffles of one of the two, its sign left aside."""
    random, once = np.random.default_rng(seed), np.ones((1, len(one)))
    one, other = (np.broadcast_to(CORRELATIONS[metric](values, once), once.shape)[0] for values in (one, other))
    found = [abs(float(correlation("pearson", one, random.permutation(other), once)[0])) for _ in range(RESAMPLES)]
    return float(np.quantile(found, LEVEL))


def summed_up(value: float, drawn: Floats) -> Score:
    """A score from its value and its resampled values [R]."""
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Score(value=value, low=float(low), high=float(high), error=float(drawn.std(ddof=1)))


def _drawn(held: Floats, random: np.random.Generator) -> Floats:
    """float64 [R, P]: as many of the groups again, with replacement, and what they hold [G, P] in all."""
    found: Floats = _times(len(held), RESAMPLES, random) @ held
    return found


def _times(number: int, resamples: int, random: np.random.Generator) -> Floats:
    """float64 [R, N]: how often each of N is drawn."""
    return random.multinomial(number, np.full(number, 1 / number), size=resamples).astype(np.float64)
