"""`Findings`: the results of probing all features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from layertap.features.expr import Expr, Pool, Units
from layertap.features.sources import HiddenLayers
from layertap.learn.arrays import Float64Array, Int64Array
from layertap.learn.bootstrap import Score
from layertap.learn.mistakes import Mistake

F = TypeVar("F", bound=Expr | str)

SAMPLE = 2000
"""Maximum number of texts for the similarities and the projection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Result of probing one feature.

    Attributes:
        feature: canonical text of the feature.
        layer: layer of `hidden_states[layer].pooling`; None for other features.
        pooling: pooling of `hidden_states[layer].pooling`; None for other features.
        score: score of the test rows; in a cross-validation, of the predictions of all folds together.
        control: for classes, the control metric of random labels that were learned and predicted in the same way; for
            pairs, the correlation that 95 of 100 shuffles of the scores stay below.
        selectivity: difference between the score and `control`, in the same metric (Hewitt and Liang 2019).
        selection: score by which the best feature is chosen, with its interval: `score`, or, if there is a test
            dataset, the metric on the rows that C was chosen on; for pairs, the correlation on the data other than the
            test dataset.
        strengths: chosen C of each split; empty for pairs.
        beside: other metrics of the feature.
    """

    feature: str
    layer: int | None
    pooling: str | None
    score: Score
    control: float
    selectivity: float
    selection: Score
    strengths: tuple[float, ...] = ()
    beside: Mapping[str, Score] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClassDetails:
    """Results for labels of texts or words.

    Attributes:
        names: names of the K classes.
        control_metric: metric of random labels and of the baseline. This is the metric itself, except that accuracy
            replaces entity F1: random tags of frequent words make entities that are learned by heart.
        baseline: `control_metric` of predicting the most frequent class everywhere.
        chance: the metric of the scores of predicting the most frequent class everywhere.
        confusion: int64 [K, K] of the best feature, with true classes as rows.
        plane: float64 [n, 2], projection of a sample of texts.
        plane_classes: int64 [n], classes of the sample.
        plane_feature: feature that was projected.
        plane_how: method of the projection, "pca" or "tsne".
    """

    names: tuple[str, ...]
    control_metric: str
    baseline: Score
    chance: Score
    confusion: Int64Array
    plane: Float64Array
    plane_classes: Int64Array
    plane_feature: str
    plane_how: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PairDetails:
    """Results for pairs of texts with a score.

    Attributes:
        gold: float64 [N], given scores of the test pairs.
        cosines: float64 [N], cosines of the vectors of the test pairs in the feature `shown`.
        shown: feature whose cosines these are.
    """

    gold: Float64Array
    cosines: Float64Array
    shown: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Findings:
    """Results of probing all features.

    Attributes:
        metric: name of the metric of the scores.
        rows: one row per feature, in the requested order.
        details: results that only labels, or only pairs, have.
        apart: whether the best feature was chosen on other examples than it was scored on.
        alike: float64 [F, F], linear CKA of the features `alike_features`.
        alike_features: canonical texts of the compared features.
        mistakes: the most confident mistakes of the best feature; for pairs, those whose cosines in the feature
            `PairDetails.shown` differ most from their scores, by their ranks.
        num_mistakes: number of all mistakes.
        settings: options and sizes, as JSON values.
        provenance: provenance of the features.
        notes: remarks on the data.
    """

    metric: str
    rows: tuple[Row, ...]
    details: ClassDetails | PairDetails
    apart: bool
    alike: Float64Array
    alike_features: tuple[str, ...]
    mistakes: tuple[Mistake, ...]
    num_mistakes: int
    settings: Mapping[str, Any]
    provenance: Mapping[str, Any]
    notes: tuple[str, ...]

    @property
    def winner(self) -> Row:
        """Row of the best feature: the first with the highest selection score."""
        return best_of(self.rows)

    @property
    def frugal(self) -> Row | None:
        """Row of the lowest layer that is within one standard error of the best, or None.

        This holds for the score by which the best feature is chosen, and for the score itself, so that it is true of
        all numbers that are shown.
        """
        best = self.winner
        if best.layer is None:
            return None
        near = [
            row
            for row in self.rows
            if row.layer is not None
            and row.layer < best.layer
            and _is_near(row.selection, best.selection)
            and _is_near(row.score, best.score)
        ]
        return min(near, key=lambda row: (row.layer, -row.selection.value), default=None)

    @property
    def at_chance(self) -> bool:
        """Whether no feature is better than the most frequent class alone, or, for pairs, than shuffled scores."""
        details = self.details
        return all(
            row.score.value <= (details.chance.value if isinstance(details, ClassDetails) else row.control)
            for row in self.rows
        )

    @property
    def axis(self) -> tuple[float, float]:
        """Bounds of a chart of the scores: from chance (no correlation for pairs) to the highest interval."""
        chance = self.details.chance.low if isinstance(self.details, ClassDetails) else 0.0
        return min(chance, *(row.score.low for row in self.rows)), max(row.score.high for row in self.rows)


def _is_near(score: Score, best: Score) -> bool:
    return score.value >= best.value - best.error


def best_of(rows: Sequence[Row]) -> Row:
    """Return the first row with the highest selection score."""
    return max(rows, key=lambda row: row.selection.value)


def place_of(feature: Expr | str) -> tuple[int | None, str | None]:
    """Return layer and pooling of `hidden_states[layer].pooling`, or None for other features."""
    if (
        isinstance(feature, Pool | Units)
        and isinstance(feature.of, HiddenLayers)
        and isinstance(feature.of.selection, int)
    ):
        return feature.of.selection, str(feature).removeprefix(f"{feature.of}.")
    return None, None


def comparable(features: Sequence[F], rows: Sequence[Row]) -> list[F]:
    """Return the layers with the pooling of the best feature, or all features if there are fewer than two of them."""
    pooling = best_of(rows).pooling
    same = [
        feature for feature, row in zip(features, rows, strict=True) if row.layer is not None and row.pooling == pooling
    ]
    return same if len(same) > 1 else list(features)


def sample_of(number: int, seed: int) -> Int64Array:
    """Draw the row numbers of a sample, in order: int64 [n]."""
    if number <= SAMPLE:
        return np.arange(number)
    return np.sort(np.random.default_rng(seed).choice(number, SAMPLE, replace=False))
