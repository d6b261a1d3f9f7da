"""Scores of predicted classes, and how far they may be trusted."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from layertap.learn.metrics import METRICS, Classes, Floats, Tally

RESAMPLES = 1000
LEVEL = 0.95


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


def scored(
    metric: str, true: Classes, predicted: Classes, num_classes: int, *, seed: int, groups: Classes | None = None
) -> Score:
    """A metric of N predictions, with its bootstrap (percentile intervals, Efron 1979).

    Args:
        metric: a name of `METRICS`.
        true, predicted: int64 [N].
        num_classes: K.
        seed: of the resamples.
        groups: int64 [N]; rows of a group are drawn together, as words of a sentence are. None: each by itself.
    """
    tally, measure, random = Tally.of(true, predicted, num_classes), METRICS[metric], np.random.default_rng(seed)
    if groups is None:
        # Rows of a pair are alike, so their numbers are drawn.
        (counts,) = tally.counts
        drawn = random.multinomial(len(true), counts / len(true), size=RESAMPLES).astype(np.float64)
    else:
        drawn = _drawn_groups(tally, true * num_classes + predicted, groups, random)
    return summed_up(float(measure(tally)[0]), measure(replace(tally, counts=drawn)))


def _drawn_groups(tally: Tally, pairs: Classes, groups: Classes, random: np.random.Generator) -> Floats:
    """float64 [R, P]: as many groups again, with replacement, and what they hold."""
    _, owner = np.unique(groups, return_inverse=True)
    number = int(owner.max()) + 1
    place = np.searchsorted(tally.true * tally.num_classes + tally.predicted, pairs)
    held: Floats = np.zeros((number, len(tally.true)))
    np.add.at(held, (owner, place), 1)
    times = random.multinomial(number, np.full(number, 1 / number), size=RESAMPLES)
    found: Floats = times @ held
    return found


def summed_up(value: float, drawn: Floats) -> Score:
    """A score from its value and its resampled values [R]."""
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Score(value=value, low=float(low), high=float(high), error=float(drawn.std(ddof=1)))
