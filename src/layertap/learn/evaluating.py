"""Evaluate a classifier on labelled data: metrics with bootstrap intervals, per class, confusions and mistakes."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from layertap.data.input import Input, read_options
from layertap.data.readers.base import RowError
from layertap.data.readers.options import OnError, Quoting, Records
from layertap.engine.extractor import Extractor
from layertap.engine.progress import progress_on
from layertap.errors import InputError, OptionError, UnsupportedModelError
from layertap.learn.arrays import Int64Array
from layertap.learn.bootstrap import LEVEL, RESAMPLES, Gold, Score, correlated, scored_entities
from layertap.learn.heads.base import PredictionHead, marks_entities
from layertap.learn.heads.classifier import Classifier
from layertap.learn.heads.files import JSON_FILE
from layertap.learn.heads.head import Head
from layertap.learn.heads.predictor import Predictor
from layertap.learn.labelled import (
    LABEL,
    LabelledDataset,
    LabelledTexts,
    advice_on_label,
    group_numbers,
    refuse_many,
    text_key,
)
from layertap.learn.labels import check_known, label_text, numbers_of
from layertap.learn.metrics import (
    CORRELATIONS,
    METRICS,
    ConfusionCounts,
    confusion_scores,
    entity_counts,
    entity_scores,
)
from layertap.learn.mistakes import Mistake, MistakeList, furthest, mistake_of
from layertap.learn.tags import OUTSIDE, in_scheme
from layertap.text.units import UnitFinder
from layertap.words import counted

MIN_SCORES = 3
"""Minimum number of scores for a correlation."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeadEvaluation:
    """Result of evaluating a classifier.

    Attributes:
        head: name of the head.
        feature: canonical text of the feature that the head stands on.
        source: name of the data.
        unit: what has a label: "text" or "word".
        records: number of records.
        units: number of labelled texts or words.
        metrics: mapping from metric to its score with interval: `accuracy`, `macro_f1`, `mcc`, and `entity_f1` first
            if the tags mark entities; `spearman` and `pearson` for a head that gives a number.
        classes: mapping from class to its precision, recall, f1 and support; empty for a head that gives a number.
        entities: precision, recall, f1 of entities and `types` with those of each type; None if there are none.
        labels: K labels of the head.
        confusion: int64 [K, K + 1], true classes as rows; the last column counts words without a prediction. None for
            a head that gives a number.
        mistakes: the most confident mistakes, or the texts whose scores were missed most.
        num_mistakes: number of all mistakes.
        skipped: rows of the data that were left out.
        notes: remarks on the data and the run.
        seed: seed of the bootstrap.
    """

    head: str
    feature: str
    source: str
    unit: str
    records: int
    units: int
    metrics: Mapping[str, Score]
    classes: Mapping[str, Mapping[str, float]]
    entities: Mapping[str, Any] | None
    labels: tuple[str, ...]
    confusion: Int64Array | None
    mistakes: tuple[Mistake, ...]
    num_mistakes: int
    skipped: tuple[RowError, ...] = ()
    notes: tuple[str, ...] = field(default=())
    seed: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return the evaluation as JSON values."""
        scores = {
            name: {"value": it.value, "low": it.low, "high": it.high, "standard_error": it.error}
            for name, it in self.metrics.items()
        }
        whole: dict[str, Any] = {
            "head": self.head,
            "feature": self.feature,
            "data": self.source,
            "unit": self.unit,
            "records": self.records,
            f"{self.unit}s": self.units,
            "metrics": scores,
            "interval": {"level": LEVEL, "resamples": RESAMPLES, "seed": self.seed},
        }
        if self.confusion is not None:
            whole["classes"] = {name: dict(values) for name, values in self.classes.items()}
            if self.entities is not None:
                whole["entities"] = dict(self.entities)
            whole["labels"] = list(self.labels)
            whole["confusion"] = self.confusion[:, : len(self.labels)].tolist()
            whole["without_prediction"] = int(self.confusion[:, -1].sum())
            whole["num_mistakes"] = self.num_mistakes
        whole["mistakes"] = [mistake.values() for mistake in self.mistakes]
        whole["skipped"] = [{"row": it.row, "where": it.where, "reason": it.reason} for it in self.skipped]
        return whole | {"notes": list(self.notes)}


def evaluate(
    head: str | os.PathLike[str] | Head | Classifier,
    data: str | os.PathLike[str] | LabelledTexts,
    *,
    label: str = LABEL,
    text_column: str | None = None,
    words_column: str | None = None,
    pair_column: str | None = None,
    input_format: str | None = None,
    delimiter: str | None = None,
    quoting: Quoting | None = None,
    header: bool = True,
    records: Records | None = None,
    encoding: str | None = None,
    max_record_bytes: int | None = None,
    on_error: OnError = "raise",
    max_errors: int | None = None,
    extractor: Extractor | None = None,
    seed: int = 0,
    progress: bool = False,
) -> HeadEvaluation:
    """Evaluate a classifier on labelled data that it has not seen, as `layertap evaluate` does.

    Args:
        head: a `Head`, a `Classifier`, a folder that `layertap fit` or `layertap finetune` made, or a hub id.
        data: a labelled file, or `LabelledTexts`.
        label: name of the column of labels, of lists with one per word, or of scores if the head gives a number.
        text_column, words_column, pair_column: as in `layertap.extract`.
        input_format, delimiter, quoting, header, records, encoding, max_record_bytes: likewise.
        on_error: "raise" stops at the first row that cannot be used, "skip" leaves it out; see
            `HeadEvaluation.skipped`.
        max_errors: number of rows that "skip" tolerates; None tolerates any number.
        extractor: the open model of a `Head`; None opens it.
        seed: seed of the bootstrap.
        progress: draw a progress bar on standard error.

    Raises:
        InputError: rows or labels that cannot be read, or labels that the head does not have.
        OptionError: an extractor that does not fit the head.
        UnsupportedModelError: a head that gives any number of labels per text.
    """
    chosen, opened = _opened(head, extractor)
    if isinstance(data, LabelledTexts):
        if chosen.answer == "number":
            raise OptionError(f"{chosen.name} gives numbers; evaluate it on a file with a column of scores")
        return evaluate_dataset(opened, chosen, data.dataset(_finder(opened)), seed=seed, progress=progress)
    options = read_options(
        text_column=text_column,
        words_column=words_column,
        pair_column=pair_column,
        columns=(label,),
        delimiter=delimiter,
        quoting=quoting,
        header=header,
        records=records,
        encoding=encoding,
        max_record_bytes=max_record_bytes,
        on_error=on_error,
        max_errors=max_errors,
    )
    source = Input(source=data, format=input_format, options=options)
    return evaluate_file(opened, chosen, source, label, seed=seed, progress=progress)


def evaluate_file(
    extractor: Extractor, head: PredictionHead, source: Input, label: str, *, seed: int = 0, progress: bool = False
) -> HeadEvaluation:
    """Evaluate a head on a labelled file; `source` carries the column `label`.

    Raises:
        InputError: rows or labels that cannot be read, or labels that the head does not have.
        UnsupportedModelError: a head that gives any number of labels per text.
    """
    check_evaluable(head)
    if head.answer == "number":
        return _numbers(extractor, head, source, label, seed=seed, progress=progress)
    dataset = LabelledDataset.read(source, label, _finder(extractor), in_memory=False)
    return evaluate_dataset(extractor, head, dataset, seed=seed, progress=progress)


def check_evaluable(head: PredictionHead) -> None:
    """Refuse a head that gives any number of labels.

    Raises:
        UnsupportedModelError: it does.
    """
    if head.answer == "labels":
        raise UnsupportedModelError(
            f"{head.name} gives any number of labels per text, and `layertap evaluate` compares one label per text; "
            "predict with it (layertap predict), and compare the columns"
        )


def evaluate_dataset(
    extractor: Extractor, head: PredictionHead, dataset: LabelledDataset, *, seed: int = 0, progress: bool = False
) -> HeadEvaluation:
    """Evaluate a head that gives labels on a labelled dataset; records are streamed.

    Raises:
        InputError: labels of texts for a head of words or the other way round, or labels that the head does not have.
    """
    check_evaluable(head)
    if dataset.task != head.task:
        has = {"text": "one label per row", "words": "lists of labels"}[dataset.task]
        does = {"text": "classifies texts", "words": "tags words"}[head.task]
        raise InputError(f"{dataset.source} has {has}, and {head.name} {does}; give data that is labelled as the head")
    known = [label_text(label) for label in head.labels]
    learned = dataset.labels.mapped(lambda label: label if head.scheme is None else in_scheme(label, head.scheme))
    check_known(learned, known, f"the labels of {head.name}")
    index = {label: i for i, label in enumerate(known)}
    classes = [np.array([index[label] for label in labels], dtype=np.int64) for labels in learned.values]
    mistakes = MistakeList()
    predicted = _predicted(extractor, head, dataset, classes, known, mistakes, progress=progress)
    groups, sizes = group_numbers(dataset.text_keys), [len(own) for own in classes]
    true, none = np.concatenate(classes), len(known)
    confusion = np.zeros((none, none + 1), dtype=np.int64)
    np.add.at(confusion, (true, predicted), 1)
    gold = Gold(classes=true, names=known, groups=np.repeat(groups, sizes))
    rows = np.arange(len(true))
    metrics = {name: gold.scored(name, rows, predicted, seed=seed) for name in METRICS}
    entities = None
    if marks_entities(head):
        tags = _split([*known, OUTSIDE], predicted, sizes)
        counts = entity_counts(dataset.labels.values, tags)
        metrics = {"entity_f1": scored_entities(counts, groups, seed=seed), **metrics}
        entities = entity_scores(dataset.labels.values, tags)
    untagged = int(confusion[:, -1].sum())
    notes = list(dataset.notes)
    if untagged:
        notes.append(f"{counted(untagged, 'word')} without a token, or cut off: no prediction; counted as an error")
    return HeadEvaluation(
        head=head.name,
        feature=head.feature,
        source=dataset.source,
        unit="text" if head.task == "text" else "word",
        records=len(dataset),
        units=len(true),
        metrics=metrics,
        classes=confusion_scores(ConfusionCounts.of(true, predicted, none), known)["classes"],
        entities=entities,
        labels=tuple(known),
        confusion=confusion,
        mistakes=mistakes.listed,
        num_mistakes=mistakes.total,
        skipped=dataset.skipped,
        notes=tuple(notes),
        seed=seed,
    )


def _predicted(
    extractor: Extractor,
    head: PredictionHead,
    dataset: LabelledDataset,
    classes: Sequence[Int64Array],
    names: Sequence[str],
    mistakes: MistakeList,
    *,
    progress: bool,
) -> Int64Array:
    """Return the predicted class of each unit, int64 [R], K for none, and gather mistakes."""
    predictor, finder = Predictor(extractor, [head]), _finder(extractor)
    parts: list[Int64Array] = []
    done = 0
    with progress_on(sys.stderr, shown=progress, total=len(dataset)) as on_progress:
        for records, (predictions,) in predictor.predict_arrays(dataset.records, on_progress):
            if done + len(records) > len(classes):
                break
            ids, scores = predictions.ids.astype(np.int64), predictions.scores
            begin = 0
            for record, own in zip(records, classes[done : done + len(records)], strict=True):
                given = ids[begin : begin + len(own)]
                wrong = np.flatnonzero(given != own).tolist()
                words = finder.word_chars(record).tolist() if wrong and head.task == "words" else None
                for place in wrong:
                    word = None if words is None else record.text[words[place][0] : words[place][1]]
                    label = names[given[place]] if given[place] >= 0 else None
                    score = float(scores[begin + place])
                    mistakes.add(mistake_of(record, word, names[own[place]], label, score))
                begin += len(own)
            if begin != len(ids):
                break
            parts.append(np.where(ids < 0, len(names), ids))
            done += len(records)
    if done != len(classes):
        raise InputError(f"{dataset.source} has changed since its labels were read; run again")
    return np.concatenate(parts)


def _numbers(
    extractor: Extractor, head: PredictionHead, source: Input, label: str, *, seed: int, progress: bool
) -> HeadEvaluation:
    """Evaluate a head that gives a number, by the correlation with given scores."""
    with advice_on_label(label), source.open() as reader:
        located = list(reader.located())
        errors = list(reader.errors)
    bad: list[RowError] | None = [] if source.options.on_error == "skip" else None
    gold = np.array(numbers_of(located, label, source=source.name, skipped=bad))
    skipped = tuple(sorted([*errors, *(bad or ())], key=lambda error: error.row))
    refuse_many(skipped, source)
    left_out = {error.row for error in bad or ()}
    located = [(place, record) for place, record in located if record.row not in left_out]
    if len({text_key(record) for _, record in located}) < MIN_SCORES or len(set(gold.tolist())) < 2:
        raise InputError(
            f"{source.name}: a correlation needs at least {MIN_SCORES} distinct texts or pairs with different scores"
        )
    records = [record for _, record in located]
    with progress_on(sys.stderr, shown=progress, total=len(records)) as on_progress:
        chunks = Predictor(extractor, [head]).predict_arrays(records, on_progress)
        given = np.concatenate([predictions.probabilities[:, 0] for _, (predictions,) in chunks]).astype(np.float64)
    texts = [(record.text, record.pair) for record in records]
    mistakes = furthest(texts, gold, given, (record.row for record in records))
    return HeadEvaluation(
        head=head.name,
        feature=head.feature,
        source=source.name,
        unit="text",
        records=len(records),
        units=len(records),
        metrics={name: correlated(name, given, gold, seed=seed) for name in CORRELATIONS},
        classes={},
        entities=None,
        labels=head.labels,
        confusion=None,
        mistakes=mistakes,
        num_mistakes=len(mistakes),
        skipped=skipped,
        seed=seed,
    )


def _opened(
    head: str | os.PathLike[str] | Head | Classifier, extractor: Extractor | None
) -> tuple[PredictionHead, Extractor]:
    if isinstance(head, str | os.PathLike):
        place = Path(head)
        head = Head.load(place) if (place / JSON_FILE).is_file() else Classifier.from_pretrained(head)
    if isinstance(head, Classifier):
        if extractor is not None:
            raise OptionError("extractor: a classifier has its own; leave it out")
        return head.head, head.extractor
    return head, extractor or head.extractor()


def _finder(extractor: Extractor) -> UnitFinder:
    return UnitFinder(words=True, pattern=extractor.semantics.compiled_word_pattern())


def _split(names: Sequence[str], predicted: Int64Array, sizes: Sequence[int]) -> list[list[str]]:
    """Return the predicted tags of each sentence."""
    parts = np.split(predicted, np.cumsum(sizes)[:-1])
    return [[names[i] for i in part.tolist()] for part in parts]
