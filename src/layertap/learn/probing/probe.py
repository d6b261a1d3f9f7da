"""A linear probe on every feature asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from layertap.engine.extractor import Extractor
from layertap.features.expr import Expr, Pool, Units
from layertap.features.sources import HiddenLayers
from layertap.learn.metrics import METRICS, Classes, Floats, Tally
from layertap.learn.probing.examples import Examples
from layertap.learn.probing.geometry import projection, similarity
from layertap.learn.probing.linear import probe_control, probe_split
from layertap.learn.probing.scores import Score, scored
from layertap.learn.vector_cache import FloatArray
from layertap.learn.vectors import sweep, sweep_words

SAMPLE = 2000
"""Texts that similarities and the projection are worked out on, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What a probe found in one feature.

    Attributes:
        feature: its canonical text.
        layer, pooling: of `hidden_states[layer].pooling`; None for other features.
        score: of the predictions of test rows (in cross-validation: of all folds' together).
        control: the same measure for labels that were dealt out at random, learned and predicted in the same way.
        selection: what the best is chosen by: the score in cross-validation, the metric on the rows that C was chosen
            on where a test part was given.
        strengths: the C chosen, one a split.
    """

    feature: str
    layer: int | None
    pooling: str | None
    score: Score
    control: float
    selection: float
    strengths: tuple[float, ...]

    @property
    def selectivity(self) -> float:
        """How much more the probe finds than in random labels (Hewitt and Liang 2019)."""
        return self.score.value - self.control


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Findings:
    """Everything a probe found.

    Attributes:
        metric: a name of `METRICS`.
        rows: one a feature, in the order asked for.
        best: place of the one with the highest selection score, the first of equals.
        baseline: the metric of predicting the most frequent class everywhere.
        names: the K classes.
        confusion: int64 [K, K] of the best, true classes down.
        plane: float64 [n, 2], a sample of texts in the projected feature; `plane_classes` [n] theirs.
        plane_feature, plane_how: which feature, and how it was projected.
        alike: float64 [F, F], linear CKA of the features `alike_features`.
        settings: what was asked for, and sizes; JSON values.
        provenance: of the features.
        notes: what to know of the data.
    """

    metric: str
    rows: tuple[Row, ...]
    best: int
    baseline: float
    names: tuple[str, ...]
    confusion: Classes
    plane: Floats
    plane_classes: Classes
    plane_feature: str
    plane_how: str
    alike: Floats
    alike_features: tuple[str, ...]
    settings: Mapping[str, Any]
    provenance: Mapping[str, Any]
    notes: tuple[str, ...]

    @property
    def crossed(self) -> bool:
        """Whether scores come from cross-validation."""
        return self.settings["folds"] is not None

    @property
    def winner(self) -> Row:
        """The row of the best."""
        return self.rows[self.best]

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


def probe(
    extractor: Extractor,
    examples: Examples,
    features: Sequence[Expr],
    *,
    metric: str = "accuracy",
    seed: int = 0,
    cache: Path | None = None,
    projected: Expr | None = None,
    plane_how: str = "pca",
    progress: bool = False,
    on_feature: Callable[[int, str], None] = lambda *_: None,
) -> Findings:
    """Extracts all features in one pass, and fits a probe on each.

    Args:
        extractor: the model.
        examples: texts, classes and splits.
        features: with one vector a text each, or a word where words are labelled.
        metric: a name of `METRICS`.
        seed: of the control's labels, the bootstrap and the sample.
        cache: a folder of `TextFeatures`, or None; words are not cached.
        projected: the feature to show on a plane; None: the best.
        plane_how: `pca` or `tsne`.
        progress: draw a progress bar on standard error while extracting.
        on_feature: called with place and name before each feature's probe.

    Raises:
        FeatureError: a feature without one vector a text, or a word.
    """
    wanted = list(dict.fromkeys([*features, *([projected] if projected is not None else [])]))
    if examples.owners is not None:
        vectors = sweep_words(extractor, examples.records, wanted, progress=progress)
    else:
        vectors = sweep(extractor, examples.texts, wanted, cache, progress=progress)
    control = _control_classes(examples, seed)
    rows, predictions = [], []
    for place, feature in enumerate(features):
        on_feature(place, str(feature))
        row, predicted = _probed(feature, vectors[feature], examples, control, metric=metric, seed=seed)
        rows.append(row)
        predictions.append(predicted)
    best = max(range(len(rows)), key=lambda place: (rows[place].selection, -place))
    true, num_classes = examples.classes[examples.tested], len(examples.names)
    confusion = np.zeros((num_classes, num_classes), dtype=np.int64)
    np.add.at(confusion, (true, predictions[best]), 1)
    sample = _sample(len(examples.texts), seed)
    shown = projected if projected is not None else features[best]
    compared = _comparable(features, rows, best)
    common = int(np.bincount(true, minlength=num_classes).argmax())
    return Findings(
        metric=metric,
        rows=tuple(rows),
        best=best,
        baseline=float(METRICS[metric](Tally.of(true, np.full_like(true, common), num_classes))[0]),
        names=examples.names,
        confusion=confusion,
        plane=projection(vectors[shown][sample], how=plane_how, seed=seed),
        plane_classes=examples.classes[sample],
        plane_feature=str(shown),
        plane_how=plane_how,
        alike=similarity([vectors[feature][sample] for feature in compared]),
        alike_features=tuple(map(str, compared)),
        settings={
            "metric": metric,
            "seed": seed,
            "texts": len(examples.texts),
            "tested": len(true),
            "trained": examples.trained,
            "classes": len(examples.names),
            "folds": len(examples.splits) if examples.crossed else None,
            "unit": "text" if examples.owners is None else "word",
            "sentences": 0 if examples.owners is None else len(examples.records),
        },
        provenance=extractor.provenance(list(wanted)),
        notes=examples.notes,
    )


def _probed(
    feature: Expr, vectors: FloatArray, examples: Examples, control: Classes, *, metric: str, seed: int
) -> tuple[Row, Classes]:
    """A feature's row, and the predictions of the tested rows."""
    fitted = [probe_split(vectors, examples.classes, split, metric=metric) for split in examples.splits]
    predicted = np.concatenate([each.predicted for each in fitted])
    dealt = np.concatenate(
        [
            probe_control(vectors, control, split, each.strength)
            for split, each in zip(examples.splits, fitted, strict=True)
        ]
    )
    tested, num_classes = examples.tested, len(examples.names)
    owners = examples.owners
    score = scored(
        metric,
        examples.classes[tested],
        predicted,
        num_classes,
        seed=seed,
        groups=None if owners is None else owners[tested],
    )
    layer, pooling = _place(feature)
    row = Row(
        feature=str(feature),
        layer=layer,
        pooling=pooling,
        score=score,
        control=float(METRICS[metric](Tally.of(control[tested], dealt, num_classes))[0]),
        selection=score.value if examples.crossed else fitted[0].validation,
        strengths=tuple(each.strength for each in fitted),
    )
    return row, predicted


def _control_classes(examples: Examples, seed: int) -> Classes:
    """The classes dealt out anew, as often as each occurs in the training rows; one to each text or word form."""
    random = np.random.default_rng(seed)
    pool = examples.classes[examples.splits[0].train] if not examples.crossed else examples.classes
    texts = dict.fromkeys(examples.texts)
    dealt = dict(zip(texts, random.choice(pool, size=len(texts)), strict=True))
    return np.array([dealt[text] for text in examples.texts], dtype=np.int64)


def _place(feature: Expr) -> tuple[int | None, str | None]:
    if (
        isinstance(feature, Pool | Units)
        and isinstance(feature.of, HiddenLayers)
        and isinstance(feature.of.selection, int)
    ):
        return feature.of.selection, str(feature).removeprefix(f"{feature.of}.")
    return None, None


def _comparable(features: Sequence[Expr], rows: Sequence[Row], best: int) -> list[Expr]:
    """Layers with the best's pooling, or all features where there are no two of them."""
    same = [
        feature
        for feature, row in zip(features, rows, strict=True)
        if row.layer is not None and row.pooling == rows[best].pooling
    ]
    return same if len(same) > 1 else list(features)


def _sample(number: int, seed: int) -> Any:
    if number <= SAMPLE:
        return np.arange(number)
    return np.sort(np.random.default_rng(seed).choice(number, SAMPLE, replace=False))
