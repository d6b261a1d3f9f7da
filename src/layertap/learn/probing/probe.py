"""Fit a linear probe on each of several features."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from layertap.engine.extractor import Extractor
from layertap.engine.progress import status_on
from layertap.features.expr import Expr
from layertap.learn.arrays import Float32Array, Float64Array, Int64Array
from layertap.learn.blas import blas_threads
from layertap.learn.bootstrap import ENTITY_F1, Gold, Score
from layertap.learn.mistakes import MistakeList, mistake_of
from layertap.learn.probing.findings import ClassDetails, Findings, Row, best_of, comparable, place_of, sample_of
from layertap.learn.probing.geometry import projection, similarity
from layertap.learn.probing.logistic import ProbeResult, probe_control, probe_split
from layertap.learn.probing.splits import ProbeData
from layertap.learn.probing.steps import Steps
from layertap.learn.vectors.sweep import sweep, sweep_words

F = TypeVar("F", bound=Expr | str)


def probe(
    extractor: Extractor,
    data: ProbeData,
    features: Sequence[Expr],
    *,
    metrics: Sequence[str] = ("accuracy",),
    seed: int = 0,
    cache: Path | None = None,
    projected: Expr | None = None,
    plane_how: str = "pca",
    progress: bool = False,
) -> Findings:
    """Extract all features in one pass, and fit a probe on each.

    Args:
        extractor: the model.
        data: texts, classes and splits.
        features: features with one vector per text, or per word if words are labelled.
        metrics: metric by which C and the best feature are chosen, then other metrics to report: names of `METRICS`, or
            `entity_f1`.
        seed: seed of the random labels, the bootstrap and the sample.
        cache: folder of a cache, as in `TextFeatures`, or None; vectors of words are not cached.
        projected: feature to project to a plane; None stands for the best one.
        plane_how: "pca" or "tsne".
        progress: show progress on standard error.

    Raises:
        FeatureError: a feature without one vector per text or word.
    """
    notes: list[str] = []
    wanted = list(dict.fromkeys([*features, *([projected] if projected is not None else [])]))
    if data.owners is not None:
        vectors = sweep_words(extractor, data.records, wanted, progress=progress, notes=notes)
    else:
        vectors = sweep(extractor, data.texts, wanted, cache, progress=progress, notes=notes)
    return probe_vectors(
        vectors,
        data,
        features,
        provenance=extractor.provenance(wanted),
        metrics=metrics,
        seed=seed,
        projected=projected,
        plane_how=plane_how,
        progress=progress,
        notes=notes,
    )


@blas_threads(1)
def probe_vectors(
    vectors: Mapping[F, Float32Array],
    data: ProbeData,
    features: Sequence[F],
    *,
    provenance: Mapping[str, Any],
    metrics: Sequence[str] = ("accuracy",),
    seed: int = 0,
    projected: F | None = None,
    plane_how: str = "pca",
    progress: bool = False,
    notes: Sequence[str] = (),
) -> Findings:
    """Fit a probe on each of several features whose vectors are there.

    Args:
        vectors: float32 [N, H] of each feature, and of `projected`.
        data: texts, classes and splits.
        features: features to probe, or their names where no expression gives the vectors.
        provenance: what the vectors depend on.
        metrics, seed, projected, plane_how, progress: as in `probe`.
        notes: remarks on the vectors.
    """
    control = _control(data, seed)
    rows, predictions, confidences = [], {}, {}
    with status_on(sys.stderr, shown=progress) as say:
        steps = Steps(say=say, total=len(features))
        for feature in features:
            steps.begin(str(feature))
            row, results = _probed(feature, vectors[feature], data, control, metrics=metrics, seed=seed, at=steps.at)
            predictions[row.feature] = np.concatenate([result.predicted for result in results])
            confidences[row.feature] = np.concatenate([result.confidence for result in results])
            rows.append(row)
    sample = sample_of(len(data.texts), seed)
    compared = comparable(features, rows)
    best = best_of(rows)
    shown = projected if projected is not None else features[rows.index(best)]
    mistakes = _mistakes(data, predictions[best.feature], confidences[best.feature])
    baseline, chance = (_baseline(data, metric, seed) for metric in (_control_metric(metrics), metrics[0]))
    return Findings(
        metric=metrics[0],
        rows=tuple(rows),
        details=ClassDetails(
            names=data.names,
            control_metric=_control_metric(metrics),
            baseline=baseline,
            chance=chance,
            confusion=_confusion(data, predictions[best.feature]),
            plane=projection(vectors[shown][sample], how=plane_how, seed=seed),
            plane_classes=data.classes[sample],
            plane_feature=str(shown),
            plane_how=plane_how,
        ),
        apart=not data.crossed,
        alike=similarity([vectors[feature][sample] for feature in compared]),
        alike_features=tuple(map(str, compared)),
        mistakes=mistakes.listed,
        num_mistakes=mistakes.total,
        settings={
            "metric": metrics[0],
            "seed": seed,
            "texts": len(data.texts),
            "tested": len(data.tested),
            "trained": data.num_trained,
            "classes": len(data.names),
            "folds": len(data.splits) if data.crossed else None,
            "unit": "text" if data.owners is None else "word",
            "sentences": 0 if data.owners is None else len(data.records),
        },
        provenance=provenance,
        notes=(*data.notes, *notes),
    )


def _probed(
    feature: Expr | str,
    vectors: Float32Array,
    data: ProbeData,
    control: Gold,
    *,
    metrics: Sequence[str],
    seed: int,
    at: Callable[[str], None],
) -> tuple[Row, list[ProbeResult]]:
    """Probe one feature, and return its row and the result of each split."""
    gold, tested = data.gold, data.tested
    results, controls = [], []
    for number, split in enumerate(data.splits, start=1):
        at(f"fold {number} of {len(data.splits)}" if data.crossed else "")
        result = probe_split(vectors, gold.classes, split, lambda rows, guess: gold.value(metrics[0], rows, guess))
        at(f"fold {number} of {len(data.splits)}, random labels" if data.crossed else "random labels")
        controls.append(probe_control(vectors, control.classes, split, result.strength))
        results.append(result)
    predicted = np.concatenate([result.predicted for result in results])
    control_predicted = np.concatenate(controls)
    scores = {name: gold.scored(name, tested, predicted, seed=seed) for name in metrics}
    score, control_metric = scores.pop(metrics[0]), _control_metric(metrics)
    control_score = control.value(control_metric, tested, control_predicted)
    layer, pooling = place_of(feature)
    selection = score
    if not data.crossed:
        selection = gold.scored(metrics[0], data.splits[0].validate, results[0].validated, seed=seed)
    row = Row(
        feature=str(feature),
        layer=layer,
        pooling=pooling,
        score=score,
        control=control_score,
        selectivity=scores.get(control_metric, score).value - control_score,
        selection=selection,
        strengths=tuple(result.strength for result in results),
        beside=scores,
    )
    return row, results


def _control_metric(metrics: Sequence[str]) -> str:
    return "accuracy" if metrics[0] == ENTITY_F1 else metrics[0]


def _control(data: ProbeData, seed: int) -> Gold:
    """Draw a random class for each distinct text or word form, with the frequencies of the training rows."""
    random = np.random.default_rng(seed)
    pool = data.classes[data.splits[0].train] if not data.crossed else data.classes
    texts = dict.fromkeys(data.texts)
    drawn = dict(zip(texts, random.choice(pool, size=len(texts)), strict=True))
    classes = np.array([drawn[text] for text in data.texts], dtype=np.int64)
    return Gold(classes=classes, names=data.names, owners=data.owners, groups=data.groups)


def _baseline(data: ProbeData, metric: str, seed: int) -> Score:
    """Return the score of predicting the most frequent class of the test rows everywhere."""
    true = data.classes[data.tested]
    common = int(np.bincount(true).argmax())
    return data.gold.scored(metric, data.tested, np.full_like(true, common), seed=seed)


def _mistakes(data: ProbeData, predicted: Int64Array, confidence: Float64Array) -> MistakeList:
    """Return the test rows that were predicted wrongly."""
    mistakes, tested, names = MistakeList(), data.tested, data.names
    for place in np.flatnonzero(data.classes[tested] != predicted).tolist():
        row = int(tested[place])
        number = row if data.owners is None else int(data.owners[row])
        record = replace(data.records[number], row=data.rows[number])
        word = None if data.owners is None else data.texts[row]
        label, sure = names[predicted[place]], float(confidence[place])
        mistakes.add(mistake_of(record, word, names[data.classes[row]], label, sure))
    return mistakes


def _confusion(data: ProbeData, predicted: Int64Array) -> Int64Array:
    confusion = np.zeros((len(data.names), len(data.names)), dtype=np.int64)
    np.add.at(confusion, (data.classes[data.tested], predicted), 1)
    return confusion
