"""Scores with percentile intervals from a bootstrap (Efron 1979)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from layertap.learn.arrays import Float64Array, Int64Array
from layertap.learn.metrics import (
    CORRELATIONS,
    METRICS,
    ConfusionCounts,
    correlation,
    entity_counts,
    entity_f1,
)
from layertap.learn.tags import OUTSIDE

ENTITY_F1 = "entity_f1"
RESAMPLES = 1000
LEVEL = 0.95
BLOCK_VALUES = 1 << 21
"""Values of one block of resamples, which is held in memory at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Score with its bootstrap interval.

    Attributes:
        value: score on the rows as they are.
        low: lower bound of the middle 95 % of the resampled scores.
        high: upper bound of the middle 95 % of the resampled scores.
        error: standard deviation of the resampled scores.
    """

    value: float
    low: float
    high: float
    error: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Gold:
    """True classes, which predictions of some rows are compared with.

    Attributes:
        classes: int64 [N].
        names: names of the K classes; tags if the metric is `entity_f1`.
        owners: int64 [N], sentence of each word; None if texts are labelled.
        groups: int64 [N], group of each row: rows of one group are resampled together, as the words of a sentence and
            the copies of a text are; None resamples each row by itself.
    """

    classes: Int64Array
    names: Sequence[str]
    owners: Int64Array | None = None
    groups: Int64Array | None = None

    def value(self, metric: str, rows: Int64Array, predicted: Int64Array) -> float:
        """Return a metric of predicted classes of some rows."""
        if metric == ENTITY_F1:
            return float(entity_f1(self._entities(rows, predicted).sum(axis=0, keepdims=True))[0])
        return float(METRICS[metric](self._confusion(rows, predicted))[0])

    def scored(self, metric: str, rows: Int64Array, predicted: Int64Array, *, seed: int) -> Score:
        """Return a metric of predicted classes of some rows, with its bootstrap interval."""
        random, value = np.random.default_rng(seed), self.value(metric, rows, predicted)
        if metric == ENTITY_F1:
            return summarised(value, entity_f1(_resampled(self._entities(rows, predicted), random)))
        confusion = self._confusion(rows, predicted)
        groups = self.owners if self.groups is None else self.groups
        if groups is None or len(np.unique(groups[rows])) == len(rows):
            # Rows with the same pair of classes are interchangeable, so that it suffices to draw their counts.
            (counts,) = confusion.counts
            drawn = random.multinomial(len(rows), counts / len(rows), size=RESAMPLES).astype(np.float64)
        else:
            _, owner = np.unique(groups[rows], return_inverse=True)
            pairs, pair = np.unique(self.classes[rows] * (len(self.names) + 1) + predicted, return_inverse=True)
            held = np.zeros((int(owner.max()) + 1, len(pairs)))
            np.add.at(held, (owner, pair), 1)
            drawn = _resampled(held, random)
        return summarised(value, METRICS[metric](replace(confusion, counts=drawn)))

    def _confusion(self, rows: Int64Array, predicted: Int64Array) -> ConfusionCounts:
        return ConfusionCounts.of(self.classes[rows], predicted, len(self.names))

    def _entities(self, rows: Int64Array, predicted: Int64Array) -> Float64Array:
        assert self.owners is not None
        owners = self.owners[rows]
        order = np.argsort(owners, kind="stable")  # rows of a cross-validation are in the order of the folds
        cuts = np.flatnonzero(np.diff(owners[order])) + 1
        true, given = (np.split(classes[order], cuts) for classes in (self.classes[rows], predicted))
        names = (*self.names, OUTSIDE)  # the last one for a word without a prediction
        counts = entity_counts(*([[names[i] for i in part] for part in parts] for parts in (true, given)))
        if self.groups is None:
            return counts
        return _grouped(counts, self.groups[rows][order][np.concatenate([[0], cuts])])


def scored_entities(counts: Float64Array, groups: Int64Array, *, seed: int) -> Score:
    """Return entity F1 with its bootstrap interval.

    Args:
        counts: float64 [S, 3], correct, predicted and true entities of each sentence, from `entity_counts`.
        groups: int64 [S], group of each sentence; those of one group are resampled together.
        seed: seed of the resamples.
    """
    value = float(entity_f1(counts.sum(axis=0, keepdims=True))[0])
    return summarised(value, entity_f1(_resampled(_grouped(counts, groups), np.random.default_rng(seed))))


def _grouped(counts: Float64Array, groups: Int64Array) -> Float64Array:
    """Add up the counts [S, P] of each group: float64 [G, P]."""
    _, group = np.unique(groups, return_inverse=True)
    whole = np.zeros((int(group.max()) + 1, counts.shape[1]))
    np.add.at(whole, group, counts)
    return whole


def correlated(metric: str, one: Float64Array, other: Float64Array, *, seed: int) -> Score:
    """Return the correlation of two sets of N numbers, with its bootstrap interval."""
    random, number = np.random.default_rng(seed), len(one)
    size = max(1, BLOCK_VALUES // number)
    drawn = [
        correlation(metric, one, other, _draws(number, min(size, RESAMPLES - begin), random))
        for begin in range(0, RESAMPLES, size)
    ]
    return summarised(float(correlation(metric, one, other, np.ones((1, number)))[0]), np.concatenate(drawn))


def shuffled(metric: str, one: Float64Array, other: Float64Array, *, seed: int) -> float:
    """Return the absolute correlation that 95 of 100 shuffles of one of two sets of N numbers stay below."""
    random, once = np.random.default_rng(seed), np.ones((1, len(one)))
    one, other = (np.broadcast_to(CORRELATIONS[metric](values, once), once.shape)[0] for values in (one, other))
    shuffles = [abs(float(correlation("pearson", one, random.permutation(other), once)[0])) for _ in range(RESAMPLES)]
    return float(np.quantile(shuffles, LEVEL))


def summarised(value: float, drawn: Float64Array) -> Score:
    """Build a score from its value and R resampled values."""
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Score(value=value, low=float(low), high=float(high), error=float(drawn.std(ddof=1)))


def _resampled(held: Float64Array, random: np.random.Generator) -> Float64Array:
    """Draw G groups with replacement R times, and add up their counts [G, P]: float64 [R, P]."""
    size = max(1, BLOCK_VALUES // len(held))
    drawn = [_draws(len(held), min(size, RESAMPLES - begin), random) @ held for begin in range(0, RESAMPLES, size)]
    totals: Float64Array = np.concatenate(drawn)
    return totals


def _draws(number: int, resamples: int, random: np.random.Generator) -> Float64Array:
    """Return how often each of N items is drawn in R resamples, float64 [R, N]."""
    return random.multinomial(number, np.full(number, 1 / number), size=resamples).astype(np.float64)
