"""Labelled texts and words divided: what is learned from, what is predicted."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from layertap.errors import InputError, OptionError
from layertap.learn.labels import Part, check_known, check_learnable, check_same_task, listed
from layertap.learn.metrics import METRICS, Classes
from layertap.learn.probing.bootstrap import ENTITY_F1, Gold, Rows
from layertap.learn.probing.logistic import Split
from layertap.learn.tags import mark_entities
from layertap.records import Record
from layertap.text.units import UnitFinder

VALIDATION_SHARE = 0.2
MAX_WORDS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Examples:
    """What a probe works on.

    Attributes:
        records: of all files, one after the other.
        texts: N, the records' own, or their words.
        classes: int64 [N], places in `names`.
        names: the K labels, sorted.
        splits: folds of a cross-validation, or the one that was given.
        crossed: whether they are folds.
        notes: what was done to the data, in words.
        owners: int64 [N], the record of each word; None where texts are labelled as a whole.
    """

    records: tuple[Record, ...]
    texts: tuple[str, ...]
    classes: Classes
    names: tuple[str, ...]
    splits: tuple[Split, ...]
    crossed: bool
    notes: tuple[str, ...]
    owners: Classes | None

    @property
    def gold(self) -> Gold:
        """What predictions are held against."""
        return Gold(classes=self.classes, names=self.names, owners=self.owners)

    @property
    def tested(self) -> Rows:
        """The rows that are predicted, each once."""
        return np.concatenate([split.test for split in self.splits])

    @property
    def trained(self) -> int:
        """Rows that a probe learns from, of the first split."""
        return len(self.splits[0].train)


def metrics_of(examples: Examples, asked: str | None) -> tuple[str, ...]:
    """What to measure by, and what to have beside it: accuracy and entity F1 go together where tags mark entities.

    Args:
        examples: whose labels decide.
        asked: a metric, or None: entity F1 where there are entities, else accuracy.

    Raises:
        OptionError: entity F1 of labels that mark no entities.
    """
    entities = examples.owners is not None and mark_entities(examples.names)
    if asked == ENTITY_F1 and not entities:
        raise OptionError(
            f"--metric {asked} is of BIO or IO tags of words, and the labels are {listed(examples.names)}; expected "
            f"one of {', '.join(METRICS)}"
        )
    first = asked or (ENTITY_F1 if entities else "accuracy")
    return (first, *(other for other in ("accuracy", ENTITY_F1) if entities and other != first))


def read_part(records: Iterable[Record], label: str, source: str, *, finder: UnitFinder) -> Part:
    """Reads labelled texts, or texts of which the words are labelled.

    Args:
        records: with a label among their columns, or a list of them, one a word.
        label: that column.
        source: the file's name, for messages.
        finder: of words.

    Raises:
        InputError: as `labels_of`, or given words with a single label.
    """
    part = Part.held(records, label, source=source, count_words=lambda record: len(finder.word_chars(record)))
    if part.labels.task == "text" and any(record.words is not None for record in part.records):
        raise InputError(f"{source}: it has given words, and column {label!r} one label for all; one a word is needed")
    return part


def _drawn(part: Part, most: int, seed: int) -> Part:
    """Whole texts with about so many words in all, where there are more."""
    sizes = [len(labels) for labels in part.labels.values]
    if part.labels.task == "text" or sum(sizes) <= most:
        return part
    order = np.random.default_rng(seed).permutation(len(sizes))
    last = int(np.searchsorted(np.array(sizes)[order].cumsum(), most, side="right"))
    taken = np.sort(order[: max(1, last)]).tolist()
    words = sum(sizes[place] for place in taken)
    note = (
        f"of the {sum(sizes):,} words of {part.labels.source} {words:,} were drawn, in {len(taken):,} sentences "
        "(--max-words)"
    )
    return replace(_kept(part, taken), notes=(note,))


def cross_validation(part: Part, *, finder: UnitFinder, folds: int, seed: int, most: int = MAX_WORDS) -> Examples:
    """Folds with as much of every class in each; texts that are the same stay in one fold, as do words of a text.

    Of more than `most` words whole texts are drawn. What is refused does not depend on the draw.

    Raises:
        OptionError: fewer than 2 folds.
        InputError: a single class, or one with fewer examples than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    if folds < 2:
        raise OptionError(f"--folds {folds}: expected at least 2")
    names = check_learnable(part.labels)
    for name, count in part.labels.counts.items():
        if count < folds:
            raise InputError(
                f"{part.labels.source}: class {name!r} has {count:,} examples, and {folds}-fold cross-validation needs "
                f"{folds} of each; leave the class out, name fewer --folds, or give a --test file"
            )
    part = _drawn(part, most, seed)
    examples = _joined([part], names, finder, part.notes)
    classes, owners, notes = examples.classes, examples.owners, examples.notes
    places = {text: place for place, text in enumerate(dict.fromkeys(record.text for record in examples.records))}
    copies = len(examples.records) - len(places)
    if copies:
        what = "texts" if owners is None else "sentences"
        notes = (*notes, f"{copies:,} {what} repeat others word for word; these were kept in one fold")
    grouped = copies or owners is not None
    kind: Any = StratifiedGroupKFold if grouped else StratifiedKFold
    groups = np.array([places[record.text] for record in examples.records])
    if owners is not None:
        groups = groups[owners]
    divided = kind(folds, shuffle=True, random_state=seed).split(classes, classes, groups if grouped else None)
    with warnings.catch_warnings():
        # Words are drawn, and of a rare class few may be left.
        warnings.filterwarnings("ignore", message="The least populated class in y")
        splits = tuple(_split(train, test, classes, seed, owners) for train, test in divided)
    return replace(examples, splits=splits, crossed=True, notes=notes)


def given_split(
    train: Part, test: Part, dev: Part | None, *, finder: UnitFinder, seed: int, most: int = MAX_WORDS
) -> Examples:
    """One split: learn from `train`, choose C on `dev` (or on a fifth of `train`), predict `test`.

    Texts of `test` and `dev` that stand in `train`, too, are left out, with a note. Of more than `most` words of a part
    whole texts are drawn; what is refused does not depend on the draw.

    Raises:
        InputError: a single class, a class of one example, a label that `train` does not have, a part that is empty or
            has nothing of its own.
    """
    names = check_learnable(train.labels)
    others = [part for part in (dev, test) if part is not None]
    for part in others:
        check_same_task(train.labels, part.labels)
        check_known(part.labels, names, trained_on=train.labels.source)
    notes: list[str] = []
    parts = [_drawn(part, most, seed) for part in (train, *(_without(part, train, notes) for part in others))]
    notes += [note for part in parts for note in part.notes]
    examples = _joined(parts, names, finder, tuple(notes))
    ends = np.cumsum([0, *(sum(map(len, part.labels.values)) for part in parts)])
    rows = [np.arange(begin, end) for begin, end in pairwise(ends)]
    split = _split(rows[0], rows[-1], examples.classes, seed, examples.owners)
    if dev is not None:
        split = Split(train=rows[0], test=rows[-1], fit=rows[0], validate=rows[1])
    return replace(examples, splits=(split,))


def _joined(parts: Sequence[Part], names: tuple[str, ...], finder: UnitFinder, notes: tuple[str, ...]) -> Examples:
    """All parts end to end, not divided yet."""
    records = [record for part in parts for record in part.records]
    values = [labels for part in parts for labels in part.labels.values]
    texts, owners = [record.text for record in records], None
    if parts[0].labels.task == "words":
        texts = [record.text[begin:end] for record in records for begin, end in finder.word_chars(record).tolist()]
        owners = np.repeat(np.arange(len(records)), [len(labels) for labels in values])
    place = {name: i for i, name in enumerate(names)}
    return Examples(
        records=tuple(replace(record, row=row, id=None, columns={}) for row, record in enumerate(records)),
        texts=tuple(texts),
        classes=np.array([place[label] for labels in values for label in labels], dtype=np.int64),
        names=names,
        splits=(),
        crossed=False,
        notes=notes,
        owners=owners,
    )


def _split(train: Rows, test: Rows, classes: Classes, seed: int, owners: Classes | None) -> Split:
    """Holds a fifth of every class's training rows back, of a class with a single row nothing; or of the sentences."""
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


def _without(part: Part, train: Part, notes: list[str]) -> Part:
    source, known = part.labels.source, {record.text for record in train.records}
    what = "text" if part.labels.task == "text" else "sentence"
    texts = [record.text for record in part.records]
    kept = [place for place, text in enumerate(texts) if text not in known]
    if not kept:
        raise InputError(
            f"{source}: every {what} of it stands in {train.labels.source}, too; there is nothing to score on"
        )
    if len(kept) < len(texts):
        left_out = len(texts) - len(kept)
        notes.append(f"{left_out:,} {what}s of {source} stand in {train.labels.source}, too, and were left out")
    return _kept(part, kept)


def _kept(part: Part, places: Sequence[int]) -> Part:
    """The part with just some of its records."""
    records, values = tuple(part.records), part.labels.values
    labels = replace(part.labels, values=tuple(values[place] for place in places))
    return replace(part, records=tuple(records[place] for place in places), labels=labels)
