"""Fit a linear probe on each of several features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from layertap.engine.extractor import Extractor
from layertap.features.expr import Expr
from layertap.learn.arrays import Float32Array, Int64Array
from layertap.learn.bootstrap import ENTITY_F1, Gold
from layertap.learn.probing.findings import ClassDetails, Findings, Row, best_of, comparable, place_of, sample_of
from layertap.learn.probing.geometry import projection, similarity
from layertap.learn.probing.logistic import probe_control, probe_split
from layertap.learn.probing.splits import ProbeData
from layertap.learn.vectors.sweep import sweep, sweep_words


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
    on_feature: Callable[[int, str], None] = lambda *_: None,
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
        progress: draw a progress bar on standard error while extracting.
        on_feature: called with the number and the name of each feature before it is probed.

    Raises:
        FeatureError: a feature without one vector per text or word.
    """
    wanted = list(dict.fromkeys([*features, *([projected] if projected is not None else [])]))
    if data.owners is not None:
        vectors = sweep_words(extractor, data.records, wanted, progress=progress)
    else:
        vectors = sweep(extractor, data.texts, wanted, cache, progress=progress)
    control = _control(data, seed)
    rows, predictions = [], {}
    for number, feature in enumerate(features):
        on_feature(number, str(feature))
        row, predictions[str(feature)] = _probed(feature, vectors[feature], data, control, metrics=metrics, seed=seed)
        rows.append(row)
    sample = sample_of(len(data.texts), seed)
    compared = comparable(features, rows)
    shown = projected if projected is not None else features[rows.index(best_of(rows))]
    return Findings(
        metric=metrics[0],
        rows=tuple(rows),
        details=ClassDetails(
            names=data.names,
            control_metric=_control_metric(metrics),
            baseline=_baseline(data, _control_metric(metrics)),
            confusion=_confusion(data, predictions[best_of(rows).feature]),
            plane=projection(vectors[shown][sample], how=plane_how, seed=seed),
            plane_classes=data.classes[sample],
            plane_feature=str(shown),
            plane_how=plane_how,
        ),
        apart=not data.crossed,
        alike=similarity([vectors[feature][sample] for feature in compared]),
        alike_features=tuple(map(str, compared)),
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
        provenance=extractor.provenance(wanted),
        notes=data.notes,
    )


def _probed(
    feature: Expr, vectors: Float32Array, data: ProbeData, control: Gold, *, metrics: Sequence[str], seed: int
) -> tuple[Row, Int64Array]:
    """Probe one feature, and return its row and the predictions of the test rows."""
    gold, tested = data.gold, data.tested
    results = [
        probe_split(vectors, gold.classes, split, lambda rows, guess: gold.value(metrics[0], rows, guess))
        for split in data.splits
    ]
    predicted = np.concatenate([result.predicted for result in results])
    control_predicted = np.concatenate(
        [
            probe_control(vectors, control.classes, split, result.strength)
            for split, result in zip(data.splits, results, strict=True)
        ]
    )
    scores = {name: gold.scored(name, tested, predicted, seed=seed) for name in metrics}
    score, control_metric = scores.pop(metrics[0]), _control_metric(metrics)
    control_score = control.value(control_metric, tested, control_predicted)
    layer, pooling = place_of(feature)
    row = Row(
        feature=str(feature),
        layer=layer,
        pooling=pooling,
        score=score,
        control=control_score,
        selectivity=scores.get(control_metric, score).value - control_score,
        selection=score.value if data.crossed else results[0].validation,
        strengths=tuple(result.strength for result in results),
        beside=scores,
    )
    return row, predicted


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


def _baseline(data: ProbeData, metric: str) -> float:
    true = data.classes[data.tested]
    common = int(np.bincount(true).argmax())
    return data.gold.value(metric, data.tested, np.full_like(true, common))


def _confusion(data: ProbeData, predicted: Int64Array) -> Int64Array:
    confusion = np.zeros((len(data.names), len(data.names)), dtype=np.int64)
    np.add.at(confusion, (data.classes[data.tested], predicted), 1)
    return confusion
