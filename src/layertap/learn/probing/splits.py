"""Division of labelled data for probes: rows to learn from, to choose the penalty on, and to predict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from layertap.data.readers.base import RowError
from layertap.errors import InputError, OptionError
from layertap.learn.arrays import Int64Array
from layertap.learn.bootstrap import ENTITY_F1, Gold
from layertap.learn.labelled import LabelledDataset, group_numbers
from layertap.learn.labels import LabelEncoder, TaskKind, check_labels, listed
from layertap.learn.metrics import METRICS
from layertap.learn.probing.logistic import Split
from layertap.learn.splitting import LabelledUnits, check_folds, dataset_units, draw_held_out, fold_groups
from layertap.learn.tags import mark_entities
from layertap.records import Record
from layertap.text.units import UnitFinder
from layertap.words import counted

VALIDATION_SHARE = 0.2
MAX_WORDS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ProbeData:
    """Labelled texts or words, divided for probes.

    Attributes:
        records: records of all datasets, one after the other, numbered anew.
        rows: number of each record in its file.
        texts: N texts: those of the records, or their words.
        classes: int64 [N], index of each label in `names`.
        names: the K class names, sorted.
        splits: folds of a cross-validation, or the one given split.
        crossed: whether the splits are folds.
        notes: remarks on rows that were left out.
        owners: int64 [N], index of the record of each word; None if texts are labelled.
        skipped: rows of each dataset that were left out as they cannot be used: mapping from its name to the rows.
        groups: int64 [N], number of the distinct text, or of the distinct sentence of each word.
    """

    records: tuple[Record, ...]
    rows: tuple[int, ...]
    texts: tuple[str, ...]
    classes: Int64Array
    names: tuple[str, ...]
    splits: tuple[Split, ...]
    crossed: bool
    notes: tuple[str, ...]
    owners: Int64Array | None
    groups: Int64Array
    skipped: Mapping[str, tuple[RowError, ...]]

    @property
    def gold(self) -> Gold:
        """True classes, which predictions are compared with."""
        return Gold(classes=self.classes, names=self.names, owners=self.owners, groups=self.groups)

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

    If there are more than `max_words` words, whole texts are drawn. Classes are counted before the draw.

    Raises:
        OptionError: fewer than 2 folds.
        InputError: a single class, fewer distinct texts or sentences than folds, of all classes together or of one, or
            too few to choose the penalty on.
    """
    if folds < 2:
        raise OptionError(f"--folds {folds}: expected at least 2")
    encoder = _checked(dataset, [])
    check_folds(dataset_units(dataset, encoder), folds)
    dataset = _drawn(dataset, max_words, seed)
    data = _joined([dataset], encoder, finder, dataset.notes)
    units, notes = _units(data, dataset.source), data.notes
    copies = len(data.records) - len(np.unique(data.groups))
    if copies:
        noun = "text" if data.owners is None else "sentence"
        are = "is a copy of another" if copies == 1 else "are copies of others"
        notes = (*notes, f"{counted(copies, noun)} {are}; copies were kept in one fold")
    notes += _conflicts(units)
    splits = []
    for groups in fold_groups(units, folds, seed):
        tested = np.isin(units.groups, groups)
        splits.append(_split(np.flatnonzero(~tested), np.flatnonzero(tested), units, seed, folds=folds))
    return replace(data, splits=tuple(splits), crossed=True, notes=notes)


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

    Texts of `test` and `dev` that also occur in `train`, and texts of `dev` that also occur in `test`, are left out,
    with a note. If a dataset has more than `max_words` words, whole texts are drawn; classes are counted before the
    draw.

    Raises:
        InputError: a single class, a class with one example, a label that does not occur in `train`, a dataset with
            no texts of its own, or too few distinct texts to choose the penalty on.
    """
    others = [dataset for dataset in (dev, test) if dataset is not None]
    encoder = _checked(train, others)
    notes: list[str] = []
    if dev is not None:
        dev = _without(_without(dev, train, notes), test, notes)
    test = _without(test, train, notes)
    others = [dataset for dataset in (dev, test) if dataset is not None]
    datasets = [_drawn(dataset, max_words, seed) for dataset in (train, *others)]
    notes += [note for dataset in datasets for note in dataset.notes]
    data = _joined(datasets, encoder, finder, tuple(notes))
    ends = np.cumsum([0, *(sum(map(len, dataset.labels.values)) for dataset in datasets)])
    rows = [np.arange(begin, end) for begin, end in pairwise(ends)]
    units = _units(data, train.source)
    if len(np.unique(data.classes[rows[0]])) < 2:
        raise InputError(
            f"{train.source}: the words that were drawn have a single tag; draw more of them (--max-words)"
        )
    if dev is not None:
        split = Split(train=rows[0], test=rows[-1], fit=rows[0], validate=rows[1])
    else:
        split = _split(rows[0], rows[-1], units, seed)
    return replace(data, splits=(split,), notes=(*data.notes, *_conflicts(units.rows(rows[0]))))


def _checked(train: LabelledDataset, others: Sequence[LabelledDataset]) -> LabelEncoder:
    """Check labels; tags are classes as they stand, whether or not they mark entities."""
    scheme = "tags" if train.task == "words" else "auto"
    return check_labels(train.labels, [other.labels for other in others], scheme=scheme)


def _drawn(dataset: LabelledDataset, max_words: int, seed: int) -> LabelledDataset:
    """Draw whole texts with about `max_words` words in total, if there are more."""
    sizes = [len(labels) for labels in dataset.labels.values]
    if dataset.task == "text" or sum(sizes) <= max_words:
        return dataset
    worded = np.flatnonzero(sizes)
    order = worded[np.random.default_rng(seed).permutation(len(worded))]
    last = int(np.searchsorted(np.array(sizes)[order].cumsum(), max_words, side="right"))
    taken = np.sort(order[: max(1, last)]).tolist()
    words = sum(sizes[row] for row in taken)
    note = (
        f"of the {sum(sizes):,} words of {dataset.source} {words:,} were drawn, in {counted(len(taken), 'sentence')} "
        "(--max-words)"
    )
    return replace(dataset.subset(taken), notes=(*dataset.notes, note))


def _joined(
    datasets: Sequence[LabelledDataset], encoder: LabelEncoder, finder: UnitFinder, notes: tuple[str, ...]
) -> ProbeData:
    """Join datasets, not divided yet."""
    records = [record for dataset in datasets for record in dataset.records]
    encoded = [classes for dataset in datasets for classes in encoder.encode(dataset.labels)]
    texts, owners = [record.text for record in records], None
    groups = group_numbers(key for dataset in datasets for key in dataset.text_keys)
    if datasets[0].task == "words":
        texts = [record.text[begin:end] for record in records for begin, end in finder.word_chars(record).tolist()]
        owners = np.repeat(np.arange(len(records)), [len(classes) for classes in encoded])
    return ProbeData(
        records=tuple(replace(record, row=row, id=None, columns={}) for row, record in enumerate(records)),
        rows=tuple(record.row for record in records),
        texts=tuple(texts),
        classes=np.concatenate(encoded),
        names=encoder.classes,
        splits=(),
        crossed=False,
        notes=notes,
        owners=owners,
        groups=groups if owners is None else groups[owners],
        skipped={dataset.source: dataset.skipped for dataset in datasets},
    )


def _units(data: ProbeData, source: str) -> LabelledUnits:
    task: TaskKind = "text" if data.owners is None else "words"
    return LabelledUnits(source=source, task=task, classes=data.classes, groups=data.groups, names=data.names)


def _split(train: Int64Array, test: Int64Array, units: LabelledUnits, seed: int, *, folds: int | None = None) -> Split:
    """Hold out a fifth of the distinct training texts of each class (none of a class with one), or of the sentences.

    Raises:
        InputError: nothing can be held out of the training rows, or what is left has a single class.
    """
    known = units.rows(train)
    held = np.isin(known.groups, draw_held_out(known, VALIDATION_SHARE, seed, least=1))
    if not held.any() or len(np.unique(known.classes[~held])) < 2:
        where = "" if folds is None else f" in a fold of a {folds}-fold cross-validation"
        needed = (
            "three sentences with two tags each"
            if units.task == "words"
            else "two classes, and two texts of one of them,"
        )
        raise InputError(
            f"{units.source}: {known.counted} to learn from{where}: too few to hold any out, on which the "
            f"penalty of a probe is chosen; {needed} are needed at least: add examples"
            + ("" if folds is None or folds > 2 else ", use more folds (--folds)")
            + (", or give a --dev file" if folds is None else ", or give a --test file")
        )
    return Split(train=train, test=test, fit=train[~held], validate=train[held])


def _conflicts(units: LabelledUnits) -> tuple[str, ...]:
    """Return a note on texts that occur with several labels."""
    number = units.num_conflicts
    have = f"text of {units.source} has" if number == 1 else f"texts of {units.source} have"
    return (f"{number:,} {have} several labels, in different rows",) if number else ()


def _without(dataset: LabelledDataset, other: LabelledDataset, notes: list[str]) -> LabelledDataset:
    """Leave out the texts that also occur in another dataset."""
    source, known = dataset.source, set(other.text_keys)
    what = "text" if dataset.task == "text" else "sentence"
    kept = [row for row, key in enumerate(dataset.text_keys) if key not in known]
    left_out = len(dataset.text_keys) - len(kept)
    if not left_out:
        return dataset
    rest = dataset.subset(kept)
    if not rest.labels.counts:
        raise InputError(
            f"{source}: every {what} also occurs in {other.source}, so that none is left to score; give other {what}s"
        )
    occur = "also occurs in {0} and was" if left_out == 1 else "also occur in {0} and were"
    notes.append(f"{counted(left_out, what)} of {source} {occur.format(other.source)} left out")
    return rest
