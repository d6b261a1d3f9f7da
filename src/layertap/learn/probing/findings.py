"""What a probe found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from layertap.features.expr import Expr, Pool, Units
from layertap.features.sources import HiddenLayers
from layertap.learn.metrics import Classes, Floats
from layertap.learn.probing.bootstrap import Rows, Score

SAMPLE = 2000
"""Texts that similarities and the projection are worked out on, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What a probe found in one feature.

    Attributes:
        feature: its canonical text.
        layer, pooling: of `hidden_states[layer].pooling`; None for other features.
        score: of what was tested (in cross-validation: of all folds' predictions together).
        control: of classes the control's metric for labels that were dealt out at random, learned and predicted in the
            same way; of pairs what shuffled scores stay below.
        selectivity: how much more there is by the same metric (Hewitt and Liang 2019).
        selection: what the best is chosen by: the score, or, where a test part was given, the metric on what C was
            chosen on; of pairs on the data that are no test part.
        strengths: the C chosen, one a split; none of pairs.
        beside: other metrics of the same.
    """

    feature: str
    layer: int | None
    pooling: str | None
    score: Score
    control: float
    selectivity: float
    selection: float
    strengths: tuple[float, ...] = ()
    beside: Mapping[str, Score] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClassDetails:
    """Of labels.

    Attributes:
        names: the K classes.
        control_metric: of random labels and of the baseline: the metric, but for entity F1, of which tags dealt out at
            random to frequent words make a great deal, accuracy.
        baseline: of predicting the most frequent class everywhere.
        confusion: int64 [K, K] of the best, true classes down.
        plane: float64 [n, 2], a sample of texts in the projected feature; `plane_classes` [n] theirs.
        plane_feature, plane_how: which feature, and how it was projected.
    """

    names: tuple[str, ...]
    control_metric: str
    baseline: float
    confusion: Classes
    plane: Floats
    plane_classes: Classes
    plane_feature: str
    plane_how: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PairDetails:
    """Of pairs.

    Attributes:
        gold: float64 [N], scores of the tested pairs.
        cosines: float64 [N], of their vectors in the feature shown.
        shown: that feature.
    """

    gold: Floats
    cosines: Floats
    shown: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Findings:
    """Everything a probe found.

    Attributes:
        metric: of the scores.
        rows: one a feature, in the order asked for.
        details: of labels or of pairs.
        apart: whether the best was chosen on other examples than it was scored on.
        alike: float64 [F, F], linear CKA of the features `alike_features`.
        settings: what was asked for, and sizes; JSON values.
        provenance: of the features.
        notes: what to know of the data.
    """

    metric: str
    rows: tuple[Row, ...]
    details: ClassDetails | PairDetails
    apart: bool
    alike: Floats
    alike_features: tuple[str, ...]
    settings: Mapping[str, Any]
    provenance: Mapping[str, Any]
    notes: tuple[str, ...]

    @property
    def winner(self) -> Row:
        """The row of the best: that with the highest selection score, the first of equals."""
        return best_of(self.rows)

    @property
    def frugal(self) -> Row | None:
        """The feature of the lowest layer within one standard error of the best by what that was chosen by."""
        best = self.winner
        if best.layer is None:
            return None
        near = [
            row
            for row in self.rows
            if row.layer is not None and row.layer < best.layer and row.selection >= best.selection - best.score.error
        ]
        return min(near, key=lambda row: (row.layer, -row.selection), default=None)


def best_of(rows: Sequence[Row]) -> Row:
    """The row with the highest selection score, the first of equals."""
    return max(rows, key=lambda row: row.selection)


def place_of(feature: Expr) -> tuple[int | None, str | None]:
    """Layer and pooling of `hidden_states[layer].pooling`."""
    if (
        isinstance(feature, Pool | Units)
        and isinstance(feature.of, HiddenLayers)
        and isinstance(feature.of.selection, int)
    ):
        return feature.of.selection, str(feature).removeprefix(f"{feature.of}.")
    return None, None


def comparable(features: Sequence[Expr], rows: Sequence[Row]) -> list[Expr]:
    """Layers with the best's pooling, or all features where there are no two of them."""
    pooling = best_of(rows).pooling
    same = [
        feature for feature, row in zip(features, rows, strict=True) if row.layer is not None and row.pooling == pooling
    ]
    return same if len(same) > 1 else list(features)


def sample_of(number: int, seed: int) -> Rows:
    """int64 [n]: places of a sample, in order."""
    if number <= SAMPLE:
        return np.arange(number)
    return np.sort(np.random.default_rng(seed).choice(number, SAMPLE, replace=False))
