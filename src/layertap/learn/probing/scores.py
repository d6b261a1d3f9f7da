"""Scores of predicted classes, and how far they may be trusted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Classes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tally:
    """How often each pair of a true and a predicted class occurs; a row of `counts` each for R resamples.

    Attributes:
        true, predicted: of the P pairs that occur.
        counts: float64 [R, P].
        num_classes: K.
    """

    true: Classes
    predicted: Classes
    counts: Floats
    num_classes: int

    @classmethod
    def of(cls, true: Classes, predicted: Classes, num_classes: int) -> Tally:
        """Counts N rows."""
        pairs, counts = np.unique(true * num_classes + predicted, return_counts=True)
        return cls(
            true=pairs // num_classes,
            predicted=pairs % num_classes,
            counts=counts[None].astype(np.float64),
            num_classes=num_classes,
        )

    def resampled(self, times: int, random: np.random.Generator) -> Tally:
        """Draws as many rows again, with replacement; rows of a pair are alike, so their numbers are drawn."""
        (counts,) = self.counts
        total = int(counts.sum())
        drawn = random.multinomial(total, counts / total, size=times).astype(np.float64)
        return Tally(true=self.true, predicted=self.predicted, counts=drawn, num_classes=self.num_classes)

    def of_classes(self, classes: Classes, weights: Floats | None = None) -> Floats:
        """float64 [R, K]: counts added up by a class of each pair."""
        chosen = self.counts if weights is None else self.counts * weights
        found: Floats = np.zeros((len(chosen), self.num_classes))
        np.add.at(found.T, classes, chosen.T)
        return found

    @property
    def right(self) -> Floats:
        """float64 [P]: 1 where prediction and truth agree."""
        same: Floats = (self.true == self.predicted).astype(np.float64)
        return same


def accuracy(tally: Tally) -> Floats:
    """The share of right predictions."""
    found: Floats = tally.counts @ tally.right / tally.counts.sum(axis=1)
    return found


def macro_f1(tally: Tally) -> Floats:
    """The mean of the classes' F1; a class that neither occurs nor is predicted does not count."""
    right = tally.of_classes(tally.true, tally.right)
    both = tally.of_classes(tally.true) + tally.of_classes(tally.predicted)
    f1 = np.divide(2 * right, both, out=np.zeros_like(right), where=both > 0)
    found: Floats = f1.sum(axis=1) / (both > 0).sum(axis=1)
    return found


def mcc(tally: Tally) -> Floats:
    """Matthews correlation, for any number of classes (Gorodkin 2004); 0 where one class has everything."""
    total = tally.counts.sum(axis=1)
    true, predicted = tally.of_classes(tally.true), tally.of_classes(tally.predicted)
    above = tally.counts @ tally.right * total - (true * predicted).sum(axis=1)
    below = np.sqrt((total**2 - (true**2).sum(axis=1)) * (total**2 - (predicted**2).sum(axis=1)))
    found: Floats = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
    return found


METRICS: Mapping[str, Callable[[Tally], Floats]] = {"accuracy": accuracy, "macro-f1": macro_f1, "mcc": mcc}


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
    resampled = tally.resampled(RESAMPLES, random)
    if groups is not None:
        resampled = replace(tally, counts=_drawn_groups(tally, true * num_classes + predicted, groups, random))
    return summed_up(float(measure(tally)[0]), measure(resampled))


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
