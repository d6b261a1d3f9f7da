"""Labelled texts and words, checked before any model runs and divided: what is learned from, what is predicted."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from typing import Any

import numpy as np

from layertap.errors import InputError, OptionError
from layertap.learn.probing.linear import Rows, Split
from layertap.learn.probing.scores import Classes
from layertap.records import Record

VALIDATION_SHARE = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Texts of one file, and a label each; or words of sentences.

    Attributes:
        source: the file's name.
        texts, labels: N of each; of sentences all their words, one after the other.
        sentences: the words of each sentence; empty where texts are labelled as a whole.
        notes: what was left out, in words.
    """

    source: str
    texts: tuple[str, ...]
    labels: tuple[str, ...]
    sentences: tuple[tuple[str, ...], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def wholes(self) -> tuple[Any, ...]:
        """What may stand in another part, too: the sentences, or the texts."""
        return self.sentences or self.texts

    @property
    def owners(self) -> Classes | None:
        """int64 [N]: the sentence of each word; None where texts are labelled as a whole."""
        return owners_of(self.sentences)

    def kept(self, places: Sequence[int]) -> Part:
        """The part with just some of its sentences or texts."""
        if not self.sentences:
            return replace(
                self,
                texts=tuple(self.texts[place] for place in places),
                labels=tuple(self.labels[place] for place in places),
            )
        ends = np.cumsum([0, *map(len, self.sentences)])
        labels = [label for place in places for label in self.labels[ends[place] : ends[place + 1]]]
        sentences = tuple(self.sentences[place] for place in places)
        return replace(self, texts=tuple(chain(*sentences)), labels=tuple(labels), sentences=sentences)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Examples:
    """What a probe works on.

    Attributes:
        texts: N, of all files.
        classes: int64 [N], places in `names`.
        names: the K labels, sorted.
        splits: folds of a cross-validation, or the one that was given.
        crossed: whether they are folds.
        notes: what was done to the data, in words.
        sentences: of which the texts are the words; empty where texts are labelled as a whole.
    """

    texts: tuple[str, ...]
    classes: Classes
    names: tuple[str, ...]
    splits: tuple[Split, ...]
    crossed: bool
    notes: tuple[str, ...]
    sentences: tuple[tuple[str, ...], ...] = ()

    @property
    def owners(self) -> Classes | None:
        """int64 [N]: the sentence of each word; None where there are none."""
        return owners_of(self.sentences)

    @property
    def tested(self) -> Rows:
        """The rows that are predicted, each once."""
        return np.concatenate([split.test for split in self.splits])

    @property
    def trained(self) -> int:
        """Rows that a probe learns from, of the first split."""
        return len(self.splits[0].train)


def owners_of(sentences: Sequence[Sequence[str]]) -> Classes | None:
    """int64 [N]: the sentence of each word; None where there are no sentences."""
    return np.repeat(np.arange(len(sentences)), [len(words) for words in sentences]) if sentences else None


def read_part(records: Iterable[Record], label: str, source: str) -> Part:
    """Reads texts and labels.

    Args:
        records: with the label among their columns.
        label: that column.
        source: the file's name, for messages.

    Raises:
        InputError: no record, a label that is missing or no class.
    """
    texts, labels = [], []
    for record in records:
        texts.append(record.text)
        labels.append(_label(record.columns.get(label), f"{source}: record {record.row}: the label {label!r}"))
    if not texts:
        raise InputError(f"{source}: there is no text in it; a probe needs examples")
    return Part(source=source, texts=tuple(texts), labels=tuple(labels))


def read_words(records: Iterable[Record], label: str, source: str, *, most: int, seed: int) -> Part:
    """Reads sentences of given words with a label each.

    Args:
        records: with words, and a list of labels in the column.
        label: that column.
        source: the file's name, for messages.
        most: words to take; of more, whole sentences are drawn.
        seed: of the draw.

    Raises:
        InputError: no sentence, another number of labels than of words, a label that is missing or no class.
    """
    sentences, labels = [], []
    for record in records:
        where = f"{source}: record {record.row}: the labels {label!r}"
        tags = record.columns.get(label)
        if record.words is None or not isinstance(tags, list | tuple):
            raise InputError(
                f"{where} are {'missing' if tags is None else repr(tags)[:40]}; a list is needed, one a word"
            )
        if len(tags) != len(record.words):
            raise InputError(f"{where}: {len(tags)} of them for {len(record.words)} words; one a word is needed")
        sentences.append(record.words)
        labels += [_label(tag, f"{where}: number {place}") for place, tag in enumerate(tags)]
    if not labels:
        raise InputError(f"{source}: there is no word in it; a probe needs examples")
    part = Part(source=source, texts=tuple(chain(*sentences)), labels=tuple(labels), sentences=tuple(sentences))
    if len(part.texts) <= most:
        return part
    order = np.random.default_rng(seed).permutation(len(sentences))
    sizes = np.array([len(sentences[place]) for place in order])
    taken = np.sort(order[: max(1, int(np.searchsorted(sizes.cumsum(), most, side="right")))])
    drawn = part.kept(taken.tolist())
    note = f"of the {len(part.texts):,} words of {source} {len(drawn.texts):,} were drawn, in {len(taken):,} sentences"
    return replace(drawn, notes=(f"{note} (--max-words)",))


def _label(value: Any, where: str) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)) or (isinstance(value, str) and not value):
        raise InputError(f"{where} is missing; leave the row out, or name another column (--label)")
    if isinstance(value, float) and not value.is_integer():
        raise InputError(f"{where} is {value}, a number and no class; classes are words or whole numbers")
    if not isinstance(value, str | int | float):
        raise InputError(f"{where} is a {type(value).__name__}; a class is a word or a whole number")
    return str(int(value)) if isinstance(value, float) else str(value)


def cross_validation(part: Part, *, folds: int, seed: int) -> Examples:
    """Folds with as much of every class in each; texts that are the same stay in one fold.

    Raises:
        OptionError: fewer than 2 folds.
        InputError: a single class, or one with fewer examples than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    if folds < 2:
        raise OptionError(f"--folds {folds}: expected at least 2")
    names = _names(part)
    few = [(name, count) for name, count in Counter(part.labels).items() if count - math.ceil(count / folds) < 1]
    least = [(name, count) for name, count in Counter(part.labels).items() if count < folds]
    for name, count in few or least:
        raise InputError(
            f"{part.source}: class {name!r} has {_examples(count)}, and {folds}-fold cross-validation needs {folds} of "
            "each; leave the class out, name fewer --folds, or give a --test file"
        )
    classes = _classes(part.labels, names)
    notes = list(part.notes)
    copies = len(part.wholes) - len(set(part.wholes))
    if copies:
        what = "sentences" if part.sentences else "texts"
        notes.append(f"{copies:,} {what} repeat others word for word; these were kept in one fold")
    if copies or part.sentences:
        places = {whole: place for place, whole in enumerate(dict.fromkeys(part.wholes))}
        groups = [places[whole] for whole in part.wholes for _ in (whole if part.sentences else [whole])]
        kind: Any = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
        divided = kind.split(classes, classes, groups)
    else:
        divided = StratifiedKFold(folds, shuffle=True, random_state=seed).split(classes, classes)
    splits = tuple(_split(train, test, classes, seed, part.owners) for train, test in divided)
    return Examples(
        texts=part.texts,
        classes=classes,
        names=names,
        splits=splits,
        crossed=True,
        notes=tuple(notes),
        sentences=part.sentences,
    )


def given_split(train: Part, test: Part, dev: Part | None, *, seed: int) -> Examples:
    """One split: learn from `train`, choose C on `dev` (or on a fifth of `train`), predict `test`.

    Texts of `test` and `dev` that stand in `train`, too, are left out, with a note.

    Raises:
        InputError: a single class, a class of one example with nothing to choose C on, a label that `train` does not
            have, a part that is empty or has nothing of its own.
    """
    names = _names(train)
    notes = list(train.notes)
    parts = [train]
    for part in (dev, test):
        if part is None:
            continue
        if bool(part.sentences) != bool(train.sentences):
            raise InputError(f"{part.source} and {train.source}: one has words with labels, the other whole texts")
        unknown = [(row, label) for row, label in enumerate(part.labels) if label not in names]
        if unknown:
            raise InputError(
                f"{part.source}: label {unknown[0][1]!r} ({_examples(len(unknown))} with labels like it, the first at "
                f"record {unknown[0][0]}) does not occur in {train.source}, whose labels are {_some(names)}"
            )
        notes += part.notes
        parts.append(_without(part, train, notes))
    single = [name for name, count in Counter(train.labels).items() if count < 2]
    if dev is None and single:
        raise InputError(
            f"{train.source}: class {single[0]!r} has one example; C is chosen on held-out examples, so two are "
            "needed: leave the class out, or give a --dev file"
        )
    classes = _classes([label for part in parts for label in part.labels], names)
    ends = np.cumsum([0, *(len(part.texts) for part in parts)])
    rows = [np.arange(begin, end) for begin, end in pairwise(ends)]
    owners = owners_of([sentence for part in parts for sentence in part.sentences])
    split = _split(rows[0], rows[-1], classes, seed, owners)
    if dev is not None:
        split = Split(train=rows[0], test=rows[-1], fit=rows[0], validate=rows[1])
    return Examples(
        texts=tuple(text for part in parts for text in part.texts),
        classes=classes,
        names=names,
        splits=(split,),
        crossed=False,
        notes=tuple(notes),
        sentences=tuple(sentence for part in parts for sentence in part.sentences),
    )


def _split(train: Rows, test: Rows, classes: Classes, seed: int, owners: Classes | None = None) -> Split:
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
    known, what = set(train.wholes), "sentence" if part.sentences else "text"
    kept = [place for place, whole in enumerate(part.wholes) if whole not in known]
    left_out = len(part.wholes) - len(kept)
    if not kept:
        raise InputError(
            f"{part.source}: every {what} of it stands in {train.source}, too; there is nothing to score on"
        )
    if left_out:
        notes.append(f"{left_out:,} {what}s of {part.source} stand in {train.source}, too, and were left out")
    return part.kept(kept)


def _names(part: Part) -> tuple[str, ...]:
    found = set(part.labels)
    if len(found) == 1:
        raise InputError(f"{part.source}: every label is {part.labels[0]!r}; a probe needs at least two classes")
    numbers = all(name.lstrip("-").isdecimal() for name in found)
    return tuple(sorted(found, key=(lambda name: (int(name), name)) if numbers else (lambda name: (0, name))))


def _classes(labels: Sequence[str], names: tuple[str, ...]) -> Classes:
    place = {name: i for i, name in enumerate(names)}
    return np.array([place[label] for label in labels], dtype=np.int64)


def _examples(count: int) -> str:
    return "one example" if count == 1 else f"{count:,} examples"


def _some(names: Sequence[str], most: int = 6) -> str:
    shown = ", ".join(map(repr, names[:most]))
    return shown if len(names) <= most else f"{shown} and {len(names) - most:,} more"
