"""Pairs of texts with a score each: how far the cosine of their vectors agrees with it, by feature."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from layertap.engine.extractor import Extractor
from layertap.errors import InputError
from layertap.features.expr import Expr
from layertap.learn.arrays import Float32Array
from layertap.learn.labels import numbers_of
from layertap.learn.metrics import Classes, Floats
from layertap.learn.probing.bootstrap import correlated, shuffled
from layertap.learn.probing.findings import Findings, PairDetails, Row, best_of, comparable, place_of, sample_of
from layertap.learn.probing.geometry import similarity
from layertap.learn.vectors.sweep import sweep
from layertap.records import Record

LEAST = 3
"""Pairs that a correlation needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Pairs of one file.

    Attributes:
        source: the file's name.
        texts: N pairs.
        gold: N scores.
        notes: what was left out, in words.
    """

    source: str
    texts: tuple[tuple[str, str], ...]
    gold: tuple[float, ...]
    notes: tuple[str, ...] = ()


def read_pairs(records: Iterable[Record], label: str, source: str) -> Pairs:
    """Reads pairs and their scores.

    Args:
        records: with a second text each.
        label: the column with the scores.
        source: the file's name, for messages.

    Raises:
        InputError: scores that are missing, no numbers or all the same, fewer than three pairs.
    """
    held = tuple(records)
    gold = numbers_of(held, label, source=source)
    return _checked(Pairs(source=source, texts=tuple((record.text, str(record.pair)) for record in held), gold=gold))


def apart(test: Pairs, data: Pairs) -> Pairs:
    """The pairs of `test` that do not stand in `data`, with a note.

    Raises:
        InputError: too few are left.
    """
    known = {frozenset(pair) for pair in data.texts}
    kept = [place for place, pair in enumerate(test.texts) if frozenset(pair) not in known]
    left_out = len(test.texts) - len(kept)
    if not left_out:
        return test
    if not kept:
        raise InputError(f"{test.source}: every pair of it stands in {data.source}, too; there is nothing to score on")
    note = f"{left_out:,} pairs of {test.source} stand in {data.source}, too, and were left out"
    texts, gold = tuple(test.texts[place] for place in kept), tuple(test.gold[place] for place in kept)
    return _checked(replace(test, texts=texts, gold=gold, notes=(note,)))


def _checked(pairs: Pairs) -> Pairs:
    if len(pairs.gold) < LEAST:
        raise InputError(f"{pairs.source}: {len(pairs.gold)} pairs; a correlation needs {LEAST} or more")
    if len(set(pairs.gold)) == 1:
        raise InputError(f"{pairs.source}: every score is {pairs.gold[0]:g}; there is nothing to agree with")
    return pairs


def probe_pairs(
    extractor: Extractor,
    data: Pairs,
    test: Pairs | None,
    features: Sequence[Expr],
    *,
    metrics: Sequence[str] = ("spearman", "pearson"),
    seed: int = 0,
    cache: Path | None = None,
    shown: Expr | None = None,
    progress: bool = False,
    on_feature: Callable[[int, str], None] = lambda *_: None,
) -> Findings:
    """Extracts all features of all texts in one pass, and compares cosines with scores. Nothing is learned.

    Args:
        extractor: the model.
        data: what the best is chosen on, and scored where there is no test part.
        test: what is scored, from `apart`; None: `data`.
        features: with one vector a text each.
        metrics: what the best is chosen by, and others to have beside it: names of `CORRELATIONS`.
        seed: of shuffles, bootstrap and sample.
        cache: a folder of `TextFeatures`, or None.
        shown: the feature whose cosines are drawn; None: the best.
        progress: draw a progress bar on standard error while extracting.
        on_feature: called with place and name before each feature.

    Raises:
        FeatureError: a feature without one vector a text.
    """
    tested = test or data
    texts = list(dict.fromkeys(text for part in (data, tested) for pair in part.texts for text in pair))
    place = {text: row for row, text in enumerate(texts)}
    wanted = list(dict.fromkeys([*features, *([shown] if shown is not None else [])]))
    vectors = sweep(extractor, texts, wanted, cache, progress=progress)

    def cosines_of(part: Pairs, feature: Expr) -> Floats:
        return _cosines(vectors[feature], np.array([[place[one], place[other]] for one, other in part.texts]))

    rows = []
    for number, feature in enumerate(features):
        on_feature(number, str(feature))
        row = _row(feature, cosines_of(tested, feature), tested, metrics, seed)
        if test is not None:
            chosen = correlated(metrics[0], cosines_of(data, feature), np.array(data.gold), seed=seed).value
            row = replace(row, selection=chosen)
        rows.append(row)
    drawn = shown if shown is not None else features[rows.index(best_of(rows))]
    compared, sample = comparable(features, rows), sample_of(len(texts), seed)
    return Findings(
        metric=metrics[0],
        rows=tuple(rows),
        details=PairDetails(gold=np.array(tested.gold), cosines=cosines_of(tested, drawn), shown=str(drawn)),
        apart=test is not None,
        alike=similarity([vectors[feature][sample] for feature in compared]),
        alike_features=tuple(map(str, compared)),
        settings={
            "metric": metrics[0],
            "seed": seed,
            "unit": "pair",
            "pairs": len(data.gold) + (0 if test is None else len(test.gold)),
            "tested": len(tested.gold),
            "texts": len(texts),
        },
        provenance=extractor.provenance(wanted),
        notes=(*data.notes, *(() if test is None else test.notes)),
    )


def _row(feature: Expr, cosines: Floats, pairs: Pairs, metrics: Sequence[str], seed: int) -> Row:
    gold = np.array(pairs.gold)
    score, *beside = (correlated(metric, cosines, gold, seed=seed) for metric in metrics)
    layer, pooling = place_of(feature)
    chance = shuffled(metrics[0], cosines, gold, seed=seed)
    return Row(
        feature=str(feature),
        layer=layer,
        pooling=pooling,
        score=score,
        control=chance,
        selectivity=score.value - chance,
        selection=score.value,
        beside=dict(zip(metrics[1:], beside, strict=True)),
    )


def _cosines(vectors: Float32Array, places: Classes) -> Floats:
    """float64 [N] of vectors [T, H] at places [N, 2]; 0 where one is all zeros."""
    one, other = (vectors[places[:, side]].astype(np.float64) for side in (0, 1))
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    found: Floats = np.divide((one * other).sum(axis=1), norms, out=np.zeros(len(one)), where=norms > 0)
    return found
