"""Probe features with scored pairs of texts, by the correlation of scores and cosines."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from layertap.data.input import Input
from layertap.data.readers.base import RowError
from layertap.engine.extractor import Extractor
from layertap.engine.progress import status_on
from layertap.errors import InputError
from layertap.features.expr import Expr
from layertap.learn.arrays import Float32Array, Float64Array, Int64Array
from layertap.learn.bootstrap import correlated, shuffled
from layertap.learn.labelled import advice_on_label, refuse_many
from layertap.learn.labels import numbers_of
from layertap.learn.mistakes import furthest
from layertap.learn.probing.findings import Findings, PairDetails, Row, best_of, comparable, place_of, sample_of
from layertap.learn.probing.geometry import similarity
from layertap.learn.probing.steps import Steps
from layertap.learn.vectors.sweep import sweep
from layertap.words import counted

MIN_PAIRS = 3
"""Minimum number of distinct pairs for a correlation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredPairs:
    """Pairs of texts with a score each.

    Attributes:
        source: name of the file, for messages.
        texts: N pairs of texts.
        gold: N scores.
        rows: N numbers of the records in their file.
        notes: remarks on the file, and on pairs that were left out.
        skipped: rows that were left out because they, or their scores, cannot be used.
    """

    source: str
    texts: tuple[tuple[str, str], ...]
    gold: tuple[float, ...]
    rows: tuple[int, ...]
    notes: tuple[str, ...] = ()
    skipped: tuple[RowError, ...] = ()


def read_pairs(source: Input, column: str) -> ScoredPairs:
    """Read pairs and their scores.

    Args:
        source: input with a column of second texts; with `on_error="skip"`, rows without a score are left out too.
        column: name of the column of scores.

    Raises:
        InputError: scores that are missing, not numbers or all equal, or fewer than three distinct pairs.
    """
    with advice_on_label(column), source.open() as reader:
        located = list(reader.located())
        notes = reader.notes
        errors = list(reader.errors)
    bad: list[RowError] | None = [] if source.options.on_error == "skip" else None
    gold = numbers_of(located, column, source=source.name, skipped=bad)
    skipped = sorted([*errors, *(bad or ())], key=lambda error: error.row)
    refuse_many(skipped, source)
    left_out = {error.row for error in bad or ()}
    located = [(place, record) for place, record in located if record.row not in left_out]
    texts = tuple((record.text, str(record.pair)) for _, record in located)
    rows = tuple(record.row for _, record in located)
    return _checked(
        ScoredPairs(source=source.name, texts=texts, gold=gold, rows=rows, notes=notes, skipped=tuple(skipped))
    )


def without_known(test: ScoredPairs, data: ScoredPairs) -> ScoredPairs:
    """Return the pairs of `test` that do not occur in `data`, with a note on the others.

    Raises:
        InputError: too few pairs are left.
    """
    known = {frozenset(pair) for pair in data.texts}
    kept = [row for row, pair in enumerate(test.texts) if frozenset(pair) not in known]
    left_out = len(test.texts) - len(kept)
    if not left_out:
        return test
    if not kept:
        raise InputError(
            f"{test.source}: every pair also occurs in {data.source}, so that none is left to score; give other pairs"
        )
    occur = f"also occurs in {data.source} and was" if left_out == 1 else f"also occur in {data.source} and were"
    note = f"{counted(left_out, 'pair')} of {test.source} {occur} left out"
    texts, gold = tuple(test.texts[row] for row in kept), tuple(test.gold[row] for row in kept)
    rows = tuple(test.rows[row] for row in kept)
    return _checked(replace(test, texts=texts, gold=gold, rows=rows, notes=(*test.notes, note)))


def _checked(pairs: ScoredPairs) -> ScoredPairs:
    distinct = len({frozenset(pair) for pair in pairs.texts})
    if distinct < MIN_PAIRS:
        raise InputError(
            f"{pairs.source}: {distinct} distinct pair{'' if distinct == 1 else 's'}; a correlation needs at least "
            f"{MIN_PAIRS}"
        )
    if len(set(pairs.gold)) == 1:
        raise InputError(f"{pairs.source}: every score is {pairs.gold[0]:g}; a correlation needs different scores")
    return pairs


def probe_pairs(
    extractor: Extractor,
    data: ScoredPairs,
    test: ScoredPairs | None,
    features: Sequence[Expr],
    *,
    metrics: Sequence[str] = ("spearman", "pearson"),
    seed: int = 0,
    cache: Path | None = None,
    shown: Expr | None = None,
    progress: bool = False,
) -> Findings:
    """Extract all features of all texts in one pass, and correlate cosines with scores. Nothing is learned.

    Args:
        extractor: the model.
        data: pairs on which the best feature is chosen, and which are scored if there is no test dataset.
        test: pairs that are scored, from `without_known`; None scores `data`.
        features: features with one vector per text.
        metrics: correlation by which the best feature is chosen, then others to report: names of `CORRELATIONS`.
        seed: seed of the shuffles, the bootstrap and the sample.
        cache: folder of a cache, as in `TextFeatures`, or None.
        shown: feature whose cosines are drawn; None stands for the best one.
        progress: show progress on standard error.

    Raises:
        FeatureError: a feature without one vector per text.
    """
    tested = test or data
    texts = list(dict.fromkeys(text for part in (data, tested) for pair in part.texts for text in pair))
    row_of = {text: row for row, text in enumerate(texts)}
    wanted = list(dict.fromkeys([*features, *([shown] if shown is not None else [])]))
    notes: list[str] = []
    vectors = sweep(extractor, texts, wanted, cache, progress=progress, notes=notes)

    def cosines_of(part: ScoredPairs, feature: Expr) -> Float64Array:
        return _cosines(vectors[feature], np.array([[row_of[one], row_of[other]] for one, other in part.texts]))

    rows = []
    with status_on(sys.stderr, shown=progress) as say:
        steps = Steps(say=say, total=len(features))
        for feature in features:
            steps.begin(str(feature))
            row = _row(feature, cosines_of(tested, feature), tested, metrics, seed)
            if test is not None:
                chosen = correlated(metrics[0], cosines_of(data, feature), np.array(data.gold), seed=seed)
                row = replace(row, selection=chosen)
            rows.append(row)
    drawn = shown if shown is not None else features[rows.index(best_of(rows))]
    compared, sample = comparable(features, rows), sample_of(len(texts), seed)
    gold, cosines = np.array(tested.gold), cosines_of(tested, drawn)
    mistakes = furthest(tested.texts, gold, cosines, tested.rows)
    return Findings(
        metric=metrics[0],
        rows=tuple(rows),
        details=PairDetails(gold=gold, cosines=cosines, shown=str(drawn)),
        apart=test is not None,
        alike=similarity([vectors[feature][sample] for feature in compared]),
        alike_features=tuple(map(str, compared)),
        mistakes=mistakes,
        num_mistakes=len(mistakes),
        settings={
            "metric": metrics[0],
            "seed": seed,
            "unit": "pair",
            "pairs": len(data.gold) + (0 if test is None else len(test.gold)),
            "tested": len(tested.gold),
            "texts": len(texts),
        },
        provenance=extractor.provenance(wanted),
        notes=(*data.notes, *(() if test is None else test.notes), *notes),
    )


def _row(feature: Expr, cosines: Float64Array, pairs: ScoredPairs, metrics: Sequence[str], seed: int) -> Row:
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
        selection=score,
        beside=dict(zip(metrics[1:], beside, strict=True)),
    )


def _cosines(vectors: Float32Array, rows: Int64Array) -> Float64Array:
    """Return the cosines of vectors [T, H] at pairs of rows [N, 2], float64 [N]; 0 for a vector of zeros."""
    one, other = (vectors[rows[:, side]].astype(np.float64) for side in (0, 1))
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    cosines: Float64Array = np.divide((one * other).sum(axis=1), norms, out=np.zeros(len(one)), where=norms > 0)
    return cosines
