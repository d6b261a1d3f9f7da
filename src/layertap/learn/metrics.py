"""How good predicted classes and entities are, those found by seqeval; how far two numbers agree."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from layertap.learn.libraries import require_libraries

Classes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Scores = dict[str, Any]

TINY = 1e-12
"""A spread below which numbers are the same but for rounding."""


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
    found: Floats = _ratio(2 * right, both).sum(axis=1) / (both > 0).sum(axis=1)
    return found


def mcc(tally: Tally) -> Floats:
    """Matthews correlation, for any number of classes (Gorodkin 2004); 0 where one class has everything."""
    total = tally.counts.sum(axis=1)
    true, predicted = tally.of_classes(tally.true), tally.of_classes(tally.predicted)
    above = tally.counts @ tally.right * total - (true * predicted).sum(axis=1)
    below = np.sqrt((total**2 - (true**2).sum(axis=1)) * (total**2 - (predicted**2).sum(axis=1)))
    return _ratio(above, below)


METRICS: Mapping[str, Callable[[Tally], Floats]] = {"accuracy": accuracy, "macro_f1": macro_f1, "mcc": mcc}


def class_scores(gold: Sequence[str], predicted: Sequence[str]) -> Scores:
    """All of `METRICS`, and precision, recall, F1 and support of each class that occurs in either."""
    classes, places = np.unique([*gold, *predicted], return_inverse=True)
    tally = Tally.of(places[: len(gold)], places[len(gold) :], len(classes))
    right = tally.of_classes(tally.true, tally.right)[0]
    true, found = tally.of_classes(tally.true)[0], tally.of_classes(tally.predicted)[0]
    parts = [_ratio(right, found), _ratio(right, true), _ratio(2 * right, true + found), true]
    return {name: float(measure(tally)[0]) for name, measure in METRICS.items()} | {
        "classes": _by_name(classes.tolist(), parts)
    }


def entity_scores(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> Scores:
    """Precision, recall and F1 over entities that agree in bounds and type (micro), and of each type.

    Tags are BIO or IO; an entity is what conlleval takes for one.
    """
    require_libraries("measuring entities", "sklearn", "seqeval")
    from seqeval.metrics.sequence_labeling import precision_recall_fscore_support

    truth, found = list(map(list, gold)), list(map(list, predicted))
    kinds = sorted({tag[2:] for tags in (*truth, *found) for tag in tags if tag != "O"})
    if not kinds:
        return {"precision": 0.0, "recall": 0.0, "f1": 0.0, "types": {}}
    precision, recall, f1, _ = precision_recall_fscore_support(truth, found, average="micro", zero_division=0)
    parts = precision_recall_fscore_support(truth, found, average=None, zero_division=0)
    return {
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
        "types": _by_name(kinds, parts),
    }


def entity_counts(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> Floats:
    """float64 [S, 3]: entities of each sentence that are right, predicted, and true, as seqeval finds them."""
    require_libraries("measuring entities", "seqeval")
    from seqeval.metrics.sequence_labeling import get_entities

    rows = []
    for truth, found in zip(gold, predicted, strict=True):
        one, other = set(get_entities(list(truth))), set(get_entities(list(found)))
        rows.append((len(one & other), len(other), len(one)))
    return np.array(rows, dtype=np.float64).reshape(-1, 3)


def entity_f1(counts: Floats) -> Floats:
    """float64 [R]: F1 of right, predicted and true entities [R, 3]; 0 where there are none."""
    return _ratio(2 * counts[:, 0], counts[:, 1] + counts[:, 2])


def correlation(metric: str, one: Floats, other: Floats, counts: Floats) -> Floats:
    """float64 [R]: how far numbers [N] agree, each taken as often as `counts` [R, N] says.

    0 where one of them is the same everywhere.

    Args:
        metric: a name of `CORRELATIONS`.
        one, other, counts: as above.
    """
    one, other = (CORRELATIONS[metric](values, counts) for values in (one, other))
    total = counts.sum(axis=1, keepdims=True)
    one = one - (counts * one).sum(axis=1, keepdims=True) / total
    other = other - (counts * other).sum(axis=1, keepdims=True) / total
    below = np.sqrt((counts * one**2).sum(axis=1) * (counts * other**2).sum(axis=1))
    return _ratio((counts * one * other).sum(axis=1), np.where(below > TINY, below, 0.0))


def ranks(values: Floats, counts: Floats) -> Floats:
    """float64 [R, N]: ranks of numbers [N] that are there `counts` [R, N] times; equal ones share the middle."""
    _, place = np.unique(values, return_inverse=True)
    order = np.argsort(place, kind="stable")
    begins = np.flatnonzero(np.diff(place[order], prepend=-1))
    held = np.add.reduceat(counts[:, order], begins, axis=1)
    found: Floats = (held.cumsum(axis=1) - (held - 1) / 2)[:, place]
    return found


CORRELATIONS: Mapping[str, Callable[[Floats, Floats], Floats]] = {
    "spearman": ranks,
    "pearson": lambda values, _: values,
}
"""What stands for numbers in a correlation."""


def _ratio(part: Floats, whole: Floats) -> Floats:
    """Where there is nothing, 0."""
    found: Floats = np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
    return found


def _by_name(names: Sequence[str], parts: Sequence[Any]) -> dict[str, dict[str, float | int]]:
    rows = zip(names, *parts, strict=True)
    return {
        name: {"precision": float(precision), "recall": float(recall), "f1": float(f1), "support": int(support)}
        for name, precision, recall, f1, support in rows
    }
