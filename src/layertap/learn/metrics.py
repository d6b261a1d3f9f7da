"""Metrics of predicted classes, of entities (by seqeval), and of the agreement of two sets of numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from layertap.learn.arrays import Float64Array, Int64Array
from layertap.learn.libraries import require_libraries
from layertap.learn.tags import OUTSIDE, Scheme, in_scheme

Scores = dict[str, Any]

MIN_SPREAD = 1e-12
"""Spread below which numbers are equal up to rounding."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ConfusionCounts:
    """Number of occurrences of each pair of a true and a predicted class, in R resamples.

    Attributes:
        true: int64 [P], true class of each pair that occurs.
        predicted: int64 [P], predicted class of each pair; `num_classes` stands for no prediction, an error.
        counts: float64 [R, P].
        num_classes: K, number of classes.
    """

    true: Int64Array
    predicted: Int64Array
    counts: Float64Array
    num_classes: int

    @classmethod
    def of(cls, true: Int64Array, predicted: Int64Array, num_classes: int) -> ConfusionCounts:
        """Count the pairs of N rows."""
        pairs, counts = np.unique(true * (num_classes + 1) + predicted, return_counts=True)
        return cls(
            true=pairs // (num_classes + 1),
            predicted=pairs % (num_classes + 1),
            counts=counts[None].astype(np.float64),
            num_classes=num_classes,
        )

    def per_class(self, classes: Int64Array, weights: Float64Array | None = None) -> Float64Array:
        """Add up counts by one of the classes of each pair: float64 [R, K]."""
        chosen = self.counts if weights is None else self.counts * weights
        sums = np.zeros((len(chosen), self.num_classes + 1))
        np.add.at(sums.T, classes, chosen.T)
        of_classes: Float64Array = sums[:, : self.num_classes]
        return of_classes

    @property
    def correct(self) -> Float64Array:
        """Whether prediction and truth agree, float64 [P]: 1 or 0."""
        same: Float64Array = (self.true == self.predicted).astype(np.float64)
        return same


def accuracy(confusion: ConfusionCounts) -> Float64Array:
    """Return the share of correct predictions."""
    shares: Float64Array = confusion.counts @ confusion.correct / confusion.counts.sum(axis=1)
    return shares


def macro_f1(confusion: ConfusionCounts) -> Float64Array:
    """Return the mean F1 of all classes that occur or are predicted."""
    correct = confusion.per_class(confusion.true, confusion.correct)
    both = confusion.per_class(confusion.true) + confusion.per_class(confusion.predicted)
    means: Float64Array = _ratio(2 * correct, both).sum(axis=1) / (both > 0).sum(axis=1)
    return means


def mcc(confusion: ConfusionCounts) -> Float64Array:
    """Return the Matthews correlation for any number of classes (Gorodkin 2004); 0 if one class has all rows."""
    total = confusion.counts.sum(axis=1)
    true, predicted = confusion.per_class(confusion.true), confusion.per_class(confusion.predicted)
    above = confusion.counts @ confusion.correct * total - (true * predicted).sum(axis=1)
    missing = total - predicted.sum(axis=1)
    spread = total**2 - (predicted**2).sum(axis=1) - missing**2
    below = np.sqrt((total**2 - (true**2).sum(axis=1)) * spread)
    return _ratio(above, below)


METRICS: Mapping[str, Callable[[ConfusionCounts], Float64Array]] = {
    "accuracy": accuracy,
    "macro_f1": macro_f1,
    "mcc": mcc,
}
"""Metrics of predicted classes, by name."""


def class_scores(gold: Sequence[str], predicted: Sequence[str | None]) -> Scores:
    """Return all of `METRICS`, and precision, recall, F1 and support of each class that occurs or is predicted.

    None stands for no prediction, which counts as an error.
    """
    classes = sorted({*gold, *(label for label in predicted if label is not None)})
    index: dict[str | None, int] = {label: i for i, label in enumerate(classes)} | {None: len(classes)}
    true, given = (np.array([index[label] for label in labels], dtype=np.int64) for labels in (gold, predicted))
    confusion = ConfusionCounts.of(true, given, len(classes))
    return confusion_scores(confusion, classes)


def confusion_scores(confusion: ConfusionCounts, classes: Sequence[str]) -> Scores:
    """Return all of `METRICS`, and precision, recall, F1 and support of each class that occurs or is predicted."""
    correct = confusion.per_class(confusion.true, confusion.correct)[0]
    true, given = confusion.per_class(confusion.true)[0], confusion.per_class(confusion.predicted)[0]
    parts = [_ratio(correct, given), _ratio(correct, true), _ratio(2 * correct, true + given), true]
    there = np.flatnonzero(true + given)
    return {name: float(measure(confusion)[0]) for name, measure in METRICS.items()} | {
        "classes": _by_name([classes[i] for i in there.tolist()], [part[there] for part in parts])
    }


def entity_scores(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> Scores:
    """Return precision, recall and F1 of entities (micro), and of each type; a match has the same bounds and type.

    Tags are BIO or IO; entities are those that conlleval counts.
    """
    require_libraries("measuring entities", "sklearn", "seqeval")
    from seqeval.metrics.sequence_labeling import precision_recall_fscore_support

    truth, given = list(map(list, gold)), list(map(list, predicted))
    kinds = sorted({tag[2:] for tags in (*truth, *given) for tag in tags if tag != "O"})
    if not kinds:
        return {"precision": 0.0, "recall": 0.0, "f1": 0.0, "types": {}}
    precision, recall, f1, _ = precision_recall_fscore_support(truth, given, average="micro", zero_division=0)
    parts = precision_recall_fscore_support(truth, given, average=None, zero_division=0)
    return {
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
        "types": _by_name(kinds, parts),
    }


def entity_counts(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> Float64Array:
    """Count correct, predicted and true entities of S sentences, as seqeval does: float64 [S, 3]."""
    require_libraries("measuring entities", "seqeval")
    from seqeval.metrics.sequence_labeling import get_entities

    rows = []
    for truth, given in zip(gold, predicted, strict=True):
        one, other = set(get_entities(list(truth))), set(get_entities(list(given)))
        rows.append((len(one & other), len(other), len(one)))
    return np.array(rows, dtype=np.float64).reshape(-1, 3)


def head_scores(scheme: Scheme | None, gold: Sequence[tuple[str, ...]], predicted: Sequence[str | None]) -> Scores:
    """Return the metrics of a head: those of classes, and those of entities under `entities` if the tags mark them.

    Args:
        scheme: tagging scheme of the head, or None if it classifies texts.
        gold: true labels of N records; one each if the head classifies texts.
        predicted: predicted labels of all records, end to end; None for a word that the model did not see.
    """
    learned = [label if scheme is None else in_scheme(label, scheme) for labels in gold for label in labels]
    scores = class_scores(learned, predicted)
    if scheme in ("bio", "io"):
        rest = iter(predicted)
        scores["entities"] = entity_scores(gold, [[next(rest) or OUTSIDE for _ in labels] for labels in gold])
    return scores


def entity_f1(counts: Float64Array) -> Float64Array:
    """Return the F1 of correct, predicted and true entities [R, 3], float64 [R]; 0 if there are no entities."""
    return _ratio(2 * counts[:, 0], counts[:, 1] + counts[:, 2])


def correlation(metric: str, one: Float64Array, other: Float64Array, counts: Float64Array) -> Float64Array:
    """Return the correlation of two sets of N numbers in R resamples, float64 [R].

    The correlation is 0 if one set is constant.

    Args:
        metric: name of a correlation in `CORRELATIONS`.
        one: float64 [N].
        other: float64 [N].
        counts: float64 [R, N], number of times that each pair occurs in each resample.
    """
    one, other = (CORRELATIONS[metric](values, counts) for values in (one, other))
    total = counts.sum(axis=1, keepdims=True)
    one = one - (counts * one).sum(axis=1, keepdims=True) / total
    other = other - (counts * other).sum(axis=1, keepdims=True) / total
    below = np.sqrt((counts * one**2).sum(axis=1) * (counts * other**2).sum(axis=1))
    return _ratio((counts * one * other).sum(axis=1), np.where(below > MIN_SPREAD, below, 0.0))


def ranks(values: Float64Array, counts: Float64Array) -> Float64Array:
    """Return the ranks of numbers [N] that occur `counts` [R, N] times, float64 [R, N]; ties share their mean rank."""
    _, place = np.unique(values, return_inverse=True)
    order = np.argsort(place, kind="stable")
    begins = np.flatnonzero(np.diff(place[order], prepend=-1))
    held = np.add.reduceat(counts[:, order], begins, axis=1)
    in_order: Float64Array = (held.cumsum(axis=1) - (held - 1) / 2)[:, place]
    return in_order


CORRELATIONS: Mapping[str, Callable[[Float64Array, Float64Array], Float64Array]] = {
    "spearman": ranks,
    "pearson": lambda values, _: values,
}
"""Transformation of the numbers before Pearson's correlation, by the name of the metric."""


def _ratio(part: Float64Array, whole: Float64Array) -> Float64Array:
    """Divide two arrays, with 0 for a division by zero."""
    ratios: Float64Array = np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
    return ratios


def _by_name(names: Sequence[str], parts: Sequence[Any]) -> dict[str, dict[str, float | int]]:
    rows = zip(names, *parts, strict=True)
    return {
        name: {"precision": float(precision), "recall": float(recall), "f1": float(f1), "support": int(support)}
        for name, precision, recall, f1, support in rows
    }
