"""Scores of probes at each layer of a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from layertap.errors import InputError, OptionError
from layertap.learn.exploring.corpus import Corpus, labelled_points
from layertap.learn.exploring.layers import Layer
from layertap.learn.labelled import LabelledDataset, text_key
from layertap.learn.labels import listed
from layertap.learn.probing.findings import ClassDetails, Findings
from layertap.learn.probing.probe import probe_vectors
from layertap.learn.probing.splits import cross_validation
from layertap.records import Record
from layertap.text.units import UnitFinder
from layertap.words import counted

FOLDS = 5
PROBED = 3000
"""Labelled points that probes learn from and predict."""


def probed(
    layers: Sequence[Layer], corpus: Corpus, seed: int, *, progress: bool = False
) -> tuple[Findings | None, str]:
    """Fit a probe on each layer, and say which classes were left out; or return the reason why there is none."""
    if corpus.label is None:
        return None, "With a column of labels (--label), this shows what a linear probe scores at each layer."
    rows = labelled_points(corpus, PROBED, seed).tolist()
    rows, rare = frequent(corpus, rows)
    finder = UnitFinder(words=corpus.units is not None)
    try:
        dataset = dataset_of(corpus, rows, finder)
        data = cross_validation(dataset, finder=finder, folds=FOLDS, seed=seed)
    except (InputError, OptionError) as error:
        return None, f"No probe was fitted: {error}."
    vectors = {layer.feature: layer.vectors[rows] for layer in layers}
    features = [layer.feature for layer in layers]
    left_out = f" Left out, as they have fewer than {FOLDS} texts: {listed(rare)}."
    findings = probe_vectors(vectors, data, features, provenance={}, seed=seed, progress=progress)
    return findings, left_out if rare else ""


def frequent(corpus: Corpus, points: Sequence[int]) -> tuple[list[int], list[str]]:
    """Return the points whose class has enough distinct texts for each fold to hold one, and the other classes."""
    assert corpus.label is not None
    column = corpus.column(corpus.label)
    owners = range(len(corpus)) if corpus.units is None else corpus.units.owners.tolist()
    texts: dict[str, set[str]] = {}
    for i in points:
        text = corpus.records[owners[i]].text if corpus.has_texts else str(i)
        texts.setdefault(str(column[i]), set()).add(text)
    rare = sorted(name for name, own in texts.items() if len(own) < FOLDS)
    if len(texts) - len(rare) < 2:  # the reason why no probe can be fitted names the classes
        return list(points), []
    return [i for i in points if str(column[i]) not in rare], rare


def dataset_of(corpus: Corpus, points: Sequence[int], finder: UnitFinder) -> LabelledDataset:
    """Return some points of a corpus with their labels; of units, each text has only those that are among the points.

    Raises:
        InputError: labels that cannot be used.
    """
    assert corpus.label is not None
    column, units = corpus.column(corpus.label), corpus.units
    labels = [column[i] for i in points]
    if units is None:
        texts: list[Any] = [corpus.texts[i] if corpus.has_texts else str(i) for i in points]
        return LabelledDataset.of_texts(texts, labels, finder, source=corpus.name)
    owners = units.owners[list(points)]
    begins = np.flatnonzero(np.r_[True, owners[1:] != owners[:-1]]).tolist()
    bounds = list(pairwise([*begins, len(points)]))
    words = [tuple(units.names[i] for i in points[begin:end]) for begin, end in bounds]
    keys = [text_key(corpus.records[owners[begin]]) for begin, _ in bounds]
    dataset = LabelledDataset.of_texts(
        [Record.of_words(row, own) for row, own in enumerate(words)],
        [labels[begin:end] for begin, end in bounds],
        finder,
        source=corpus.name,
    )
    return replace(dataset, text_keys=tuple(keys))


def probe_facts(findings: Findings, unit: str, left_out: str) -> dict[str, Any]:
    """Return the scores of all layers as JSON values, with a sentence that says what they are."""
    details = findings.details
    assert isinstance(details, ClassDetails)
    low, high = findings.axis
    best, frugal = findings.winner, findings.frugal
    points = counted(findings.settings["texts"], unit)
    near = "" if frugal is None else f" Layer {frugal.layer} is within one standard error of it, with fewer blocks."
    named = best.feature if best.layer is None else f"Layer {best.layer}"
    best_says = f"{named} is best.{near}"
    if findings.at_chance:
        best_says = "No layer is better than the most frequent class."
    sentence = (
        f"5-fold cross-validation on {points}. Bars start at the most frequent class ({details.chance.value:.3f}); "
        "dark lines are 95 % intervals, grey marks what the same probe reaches on random labels. "
        f"{best_says}{left_out} A probe says what can be read off a layer, not what the model uses."
    )
    return {
        "metric": findings.metric,
        "axis": [min(low, details.chance.value), high],
        "chance": details.chance.value,
        "sentence": sentence,
        "rows": [
            {
                "value": row.score.value,
                "low": row.score.low,
                "high": row.score.high,
                "control": row.control,
                "selectivity": row.selectivity,
            }
            for row in findings.rows
        ],
    }


def best_layer(findings: Findings | None, num_layers: int) -> int:
    """Return the number of the best layer of a probe, or of the last layer where there is none."""
    return num_layers - 1 if findings is None else findings.rows.index(findings.winner)
