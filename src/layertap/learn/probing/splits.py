"""Division of labelled data for probes: rows to learn from, to choose the penalty on, and to predict."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from layertap.errors import InputError, OptionError
from layertap.learn.arrays import Int64Array
from layertap.learn.labelled import LabelledDataset
from layertap.learn.labels import LabelEncoder, check_labels, listed
from layertap.learn.metrics import METRICS
from layertap.learn.probing.bootstrap import ENTITY_F1, Gold
from layertap.learn.probing.logistic import Split
from layertap.learn.tags import mark_entities
from layertap.records import Record
from layertap.text.units import UnitFinder

VALIDATION_SHARE = 0.2
MAX_WORDS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ProbeData:
    """Labelled texts or words, divided for probes.

    Attributes:
        records: records of all datasets, one after the other.
        texts: N texts: those of the records, or their words.
        classes: int64 [N], index of each label in `names`.
        names: the K class names, sorted.
        splits: folds of a cross-validation, or the one given split.
        crossed: whether the splits are folds.
        notes: remarks on rows that were left out.
        owners: int64 [N], index of the record of each word; None if texts are labelled.
    """

    records: tuple[Record, ...]
    texts: tuple[str, ...]
    classes: Int64Array
    names: tuple[str, ...]
    splits: tuple[Split, ...]
    crossed: bool
    notes: tuple[str, ...]
    owners: Int64Array | None

    @property
    def gold(self) -> Gold:
        """True classes, which predictions are compared with."""
        return Gold(classes=self.classes, names=self.names, owners=self.owners)

    @property
    def tested(self) -> Int64Array:
        """Rows that are predicted, each once."""
        return np.concatenate([split.test for split in self.splits])

    @property
    def num_trained(self) -> int:
        """Number of rows that a probe learns from, in the first split."""
        return len(self.splits[0].train)


def metrics_of(data: ProbeData, asked: str | None) -> tuple[str, ...]:
    """Return the metric that decides, and the others to report; accuracy and entity F1 are reported together.

    Args:
        data: data whose labels decide on the default.
        asked: name of a metric; None stands for entity F1 if the labels mark entities, else accuracy.

    Raises:
        OptionError: entity F1 for labels that mark no entities.
    """
    entities = data.owners is not None and mark_entities(data.names)
    if asked == ENTITY_F1 and not entities:
        raise OptionError(
            f"--metric {asked} needs BIO or IO tags of words, and the labels are {listed(data.names)}; expected one of "
            f"{', '.join(METRICS)}"
        )
    first = asked or (ENTITY_F1 if entities else "accuracy")
    return (first, *(other for other in ("accuracy", ENTITY_F1) if entities and other != first))


def check_for_probe(dataset: LabelledDataset) -> LabelledDataset:
    """Return a dataset that a probe can use, or refuse given words that have one label for all of them.

    Raises:
        InputError: texts are labelled, and given as lists of words.
    """
    if dataset.task == "text" and any(record.words is not None for record in dataset.records):
        raise InputError(
            f"{dataset.source}: its texts are given as words, and have one label each; give one label per word, or "
            "name a column of whole texts (--text-column)"
        )
    return dataset


def cross_validation(
    dataset: LabelledDataset, *, finder: UnitFinder, folds: int, seed: int, max_words: int = MAX_WORDS
) -> ProbeData:
    """Divide a dataset into stratified folds; equal texts stay in one fold, and so do the words of a text.

    If there are more than `max_words` words, whole texts are drawn. What is refused does not depend on the draw.

    Raises:
        OptionError: fewer than 2 folds.
        InputError: a single class, or one with fewer examples than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    if folds < 2:
        raise OptionError(f"--folds {folds}: expected at least 2")
    encoder = _checked(dataset, [])
    for name, count in dataset.labels.counts.items():
        if count < folds:
            raise InputError(
                f"{dataset.source}: class {name!r} has {count:,} examples, and {folds}-fold cross-validation needs "
                f"{folds} of each; remove the class, reduce --folds, or give a --test file"
            )
    dataset = _drawn(dataset, max_words, seed)
    data = _joined([dataset], encoder, finder, dataset.notes)
    classes, owners, notes = data.classes, data.owners, data.notes
    text_ids = {text: i for i, text in enumerate(dict.fromkeys(record.text for record in data.records))}
    copies = len(data.records) - len(text_ids)
    if copies:
        what = "texts" if owners is None else "sentences"
        notes = (*notes, f"{copies:,} {what} are copies of others; copies were kept in one fold")
    grouped = copies or owners is not None
    splitter: Any = StratifiedGroupKFold if grouped else StratifiedKFold
    groups = np.array([text_ids[record.text] for record in data.records])
    if owners is not None:
        groups = groups[owners]
    divided = splitter(folds, shuffle=True, random_state=seed).split(classes, classes, groups if grouped else None)
    with warnings.catch_warnings():
        # Of a rare class few words may be left by the draw.
        warnings.filterwarnings("ignore", message="The least populated class in y")
        splits = tuple(_split(train, test, classes, seed, owners) for train, test in divided)
    return replace(data, splits=splits, crossed=True, notes=notes)


def given_split(
    train: LabelledDataset,
    test: LabelledDataset,
    dev: LabelledDataset | None,
    *,
    finder: UnitFinder,
    seed: int,
    max_words: int = MAX_WORDS,
) -> ProbeData:
    """Return one split: learn from `train`, choose C on `dev` (or on a fifth of `train`), and predict `test`.

    Texts of `test` and `dev` that also occur in `train` are left out, with a note. If a dataset has more than
    `max_words` words, whole texts are drawn; what is refused does not depend on the draw.

    Raises:
        InputError: a single class, a class with one example, a label that does not occur in `train`, or a dataset with
            no texts of its own.
    """
    others = [dataset for dataset in (dev, test) if dataset is not None]
    encoder = _checked(train, others)
    notes: list[str] = []
    datasets = [
        _drawn(dataset, max_words, seed) for dataset in (train, *(_without(other, train, notes) for other in others))
    ]
    notes += [note for dataset in datasets for note in dataset.notes]
    data = _joined(datasets, encoder, finder, tuple(notes))
    ends = np.cumsum([0, *(sum(map(len, dataset.labels.values)) for dataset in datasets)])
    rows = [np.arange(begin, end) for begin, end in pairwise(ends)]
    split = _split(rows[0], rows[-1], data.classes, seed, data.owners)
    if dev is not None:
        split = Split(train=rows[0], test=rows[-1], fit=rows[0], validate=rows[1])
    return replace(data, splits=(split,))


def _checked(train: LabelledDataset, others: Sequence[LabelledDataset]) -> LabelEncoder:
    """Check labels; tags are classes as they stand, whether or not they mark entities."""
    scheme = "tags" if train.task == "words" else "auto"
    return check_labels(train.labels, [other.labels for other in others], scheme=scheme)


def _drawn(dataset: LabelledDataset, max_words: int, seed: int) -> LabelledDataset:
    """Draw whole texts with about `max_words` words in total, if there are more."""
    sizes = [len(labels) for labels in dataset.labels.values]
    if dataset.task == "text" or sum(sizes) <= max_words:
        return dataset
    order = np.random.default_rng(seed).permutation(len(sizes))
    last = int(np.searchsorted(np.array(sizes)[order].cumsum(), max_words, side="right"))
    taken = np.sort(order[: max(1, last)]).tolist()
    words = sum(sizes[row] for row in taken)
    note = (
        f"of the {sum(sizes):,} words of {dataset.source} {words:,} were drawn, in {len(taken):,} sentences "
        "(--max-words)"
    )
    return replace(dataset.subset(taken), notes=(note,))


def _joined(
    datasets: Sequence[LabelledDataset], encoder: LabelEncoder, finder: UnitFinder, notes: tuple[str, ...]
) -> ProbeData:
    """Join datasets, not divided yet."""
    records = [record for dataset in datasets for record in dataset.records]
    encoded = [classes for dataset in datasets for classes in encoder.encode(dataset.labels)]
    texts, owners = [record.text for record in records], None
    if datasets[0].task == "words":
        texts = [record.text[begin:end] for record in records for begin, end in finder.word_chars(record).tolist()]
        owners = np.repeat(np.arange(len(records)), [len(classes) for classes in encoded])
    return ProbeData(
        records=tuple(replace(record, row=row, id=None, columns={}) for row, record in enumerate(records)),
        texts=tuple(texts),
        classes=np.concatenate(encoded),
        names=encoder.classes,
        splits=(),
        crossed=False,
        notes=notes,
        owners=owners,
    )


def _split(train: Int64Array, test: Int64Array, classes: Int64Array, seed: int, owners: Int64Array | None) -> Split:
    """Hold out a fifth of the training rows of each class (none of a class with one row), or of the sentences."""
    random = np.random.default_rng(seed)
    if owners is not None:
        whole = random.permutation(np.unique(owners[train]))
        back = np.isin(owners[train], whole[: round(VALIDATION_SHARE * len(whole))])
        if back.any() and len(np.unique(classes[train[~back]])) > 1:
            return Split(train=train, test=test, fit=train[~back], validate=train[back])
    held = []
    for name in np.unique(classes[train]):
        rows = random.permutation(train[classes[train] == name])
        held.append(rows[: max(1, round(VALIDATION_SHARE * len(rows)))] if len(rows) > 1 else rows[:0])
    validate = np.sort(np.concatenate(held))
    return Split(train=train, test=test, fit=np.setdiff1d(train, validate), validate=validate)


def _without(dataset: LabelledDataset, train: LabelledDataset, notes: list[str]) -> LabelledDataset:
    """Leave out the texts that also occur in the training data."""
    source, known = dataset.source, {record.text for record in train.records}
    what = "text" if dataset.task == "text" else "sentence"
    texts = [record.text for record in dataset.records]
    kept = [row for row, text in enumerate(texts) if text not in known]
    if not kept:
        raise InputError(
            f"{source}: every {what} also occurs in {train.source}, so that none is left to score; give other {what}s"
        )
    if len(kept) < len(texts):
        notes.append(f"{len(texts) - len(kept):,} {what}s of {source} also occur in {train.source} and were left out")
    return dataset.subset(kept)
