"""A linear probe on every feature asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from layertap.engine.extractor import Extractor
from layertap.features.expr import Expr
from layertap.learn.arrays import Float32Array
from layertap.learn.metrics import Classes
from layertap.learn.probing.bootstrap import ENTITY_F1, Gold
from layertap.learn.probing.findings import ClassDetails, Findings, Row, best_of, comparable, place_of, sample_of
from layertap.learn.probing.geometry import projection, similarity
from layertap.learn.probing.logistic import probe_control, probe_split
from layertap.learn.probing.splits import Examples
from layertap.learn.vectors.sweep import sweep, sweep_words


def probe(
    extractor: Extractor,
    examples: Examples,
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
    """Extracts all features in one pass, and fits a probe on each.

    Args:
        extractor: the model.
        examples: texts, classes and splits.
        features: with one vector a text each, or a word where words are labelled.
        metrics: what C and the best are chosen by, and others to have beside it: names of `METRICS`, or `entity_f1`.
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
    control = _control(examples, seed)
    rows, predictions = [], {}
    for place, feature in enumerate(features):
        on_feature(place, str(feature))
        row, predictions[str(feature)] = _probed(
            feature, vectors[feature], examples, control, metrics=metrics, seed=seed
        )
        rows.append(row)
    sample = sample_of(len(examples.texts), seed)
    compared = comparable(features, rows)
    shown = projected if projected is not None else features[rows.index(best_of(rows))]
    return Findings(
        metric=metrics[0],
        rows=tuple(rows),
        details=ClassDetails(
            names=examples.names,
            control_metric=_control_metric(metrics),
            baseline=_baseline(examples, _control_metric(metrics)),
            confusion=_confusion(examples, predictions[best_of(rows).feature]),
            plane=projection(vectors[shown][sample], how=plane_how, seed=seed),
            plane_classes=examples.classes[sample],
            plane_feature=str(shown),
            plane_how=plane_how,
        ),
        apart=not examples.crossed,
        alike=similarity([vectors[feature][sample] for feature in compared]),
        alike_features=tuple(map(str, compared)),
        settings={
            "metric": metrics[0],
            "seed": seed,
            "texts": len(examples.texts),
            "tested": len(examples.tested),
            "trained": examples.trained,
            "classes": len(examples.names),
            "folds": len(examples.splits) if examples.crossed else None,
            "unit": "text" if examples.owners is None else "word",
            "sentences": 0 if examples.owners is None else len(examples.records),
        },
        provenance=extractor.provenance(wanted),
        notes=examples.notes,
    )


def _probed(
    feature: Expr, vectors: Float32Array, examples: Examples, control: Gold, *, metrics: Sequence[str], seed: int
) -> tuple[Row, Classes]:
    """A feature's row, and the predictions of the tested rows."""
    gold, tested = examples.gold, examples.tested
    fitted = [
        probe_split(vectors, gold.classes, split, lambda rows, guess: gold.value(metrics[0], rows, guess))
        for split in examples.splits
    ]
    predicted = np.concatenate([each.predicted for each in fitted])
    dealt = np.concatenate(
        [
            probe_control(vectors, control.classes, split, each.strength)
            for split, each in zip(examples.splits, fitted, strict=True)
        ]
    )
    scores = {name: gold.scored(name, tested, predicted, seed=seed) for name in metrics}
    score, known_by = scores.pop(metrics[0]), _control_metric(metrics)
    compared = control.value(known_by, tested, dealt)
    layer, pooling = place_of(feature)
    row = Row(
        feature=str(feature),
        layer=layer,
        pooling=pooling,
        score=score,
        control=compared,
        selectivity=scores.get(known_by, score).value - compared,
        selection=score.value if examples.crossed else fitted[0].validation,
        strengths=tuple(each.strength for each in fitted),
        beside=scores,
    )
    return row, predicted


def _control_metric(metrics: Sequence[str]) -> str:
    return "accuracy" if metrics[0] == ENTITY_F1 else metrics[0]


def _control(examples: Examples, seed: int) -> Gold:
    """The classes dealt out anew, as often as each occurs in the training rows; one to each text or word form."""
    random = np.random.default_rng(seed)
    pool = examples.classes[examples.splits[0].train] if not examples.crossed else examples.classes
    texts = dict.fromkeys(examples.texts)
    dealt = dict(zip(texts, random.choice(pool, size=len(texts)), strict=True))
    classes = np.array([dealt[text] for text in examples.texts], dtype=np.int64)
    return Gold(classes=classes, names=examples.names, owners=examples.owners)


def _baseline(examples: Examples, metric: str) -> float:
    true = examples.classes[examples.tested]
    common = int(np.bincount(true).argmax())
    return examples.gold.value(metric, examples.tested, np.full_like(true, common))


def _confusion(examples: Examples, predicted: Classes) -> Classes:
    confusion = np.zeros((len(examples.names), len(examples.names)), dtype=np.int64)
    np.add.at(confusion, (examples.classes[examples.tested], predicted), 1)
    return confusion
