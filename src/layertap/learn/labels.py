"""Labels of records: read from a column, and checked before any work is done."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from layertap.errors import InputError, OptionError
from layertap.learn.arrays import Int64Array
from layertap.learn.tags import Scheme, in_scheme, scheme_of
from layertap.records import Record
from layertap.text.units import UnitFinder

TaskKind: TypeAlias = Literal["text", "words"]
"""Unit that gets a label: whole texts, or the words of a text."""

LocatedRecord: TypeAlias = tuple[str, Record]
"""A record and its place in the input as messages state it, for example `line 7`."""

MOST_LISTED = 5
WHOLE_NUMBER = re.compile(r"(-?(?:0|[1-9][0-9]*))(?:\.0+)?")
TRUTH_VALUES = ("true", "false")
UNITS: dict[TaskKind, str] = {"text": "one label per row", "words": "lists of labels, one per word"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """Labels of N records.

    Attributes:
        source: name of the input, for messages.
        task: "text" for one label per record, "words" for one per word.
        values: N tuples of labels; each holds exactly one if `task` is "text".
    """

    source: str
    task: TaskKind
    values: tuple[tuple[str, ...], ...]

    @property
    def counts(self) -> Counter[str]:
        """Number of occurrences of each label."""
        return Counter(label for labels in self.values for label in labels)

    def mapped(self, change: Callable[[str], str]) -> Labels:
        """Return a copy in which a function has replaced each label."""
        values = tuple(tuple(map(change, labels)) for labels in self.values)
        return Labels(source=self.source, task=self.task, values=values)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelEncoder:
    """Classes that a training dataset teaches, and the index of each label among them.

    Attributes:
        scheme: tagging scheme of the labels, or None if they are labels of texts.
        classes: sorted class names.
    """

    scheme: Scheme | None
    classes: tuple[str, ...]

    @property
    def marks_entities(self) -> bool:
        """Whether the labels are tags that mark entities."""
        return self.scheme in ("bio", "io")

    def learned(self, label: str) -> str:
        """Return the class of a label: under the scheme "io", `B-` counts as `I-`."""
        return label if self.scheme is None else in_scheme(label, self.scheme)

    def encode(self, labels: Labels) -> list[Int64Array]:
        """Return N arrays, int64 [units], of indices in `classes`."""
        index = {name: i for i, name in enumerate(self.classes)}
        return [np.array([index[self.learned(label)] for label in own], dtype=np.int64) for own in labels.values]


def labels_of(records: Iterable[LocatedRecord], column: str, *, source: str, finder: UnitFinder) -> Labels:
    """Read the labels of records.

    A label is a string, a whole number, or true or false. Numbers and truth values are one label in every notation: a
    column of `1.0` and `2.0` holds the labels `1` and `2`, a column of `True` and `False` the labels `true` and
    `false`.

    Args:
        records: records that carry the column, with their places.
        column: name of the column; its values are labels, or lists of labels with one per word.
        source: name of the input, for messages.
        finder: finder of the words that lists of labels must match.

    Raises:
        InputError: there are no records; a label is missing or is not a label; a list of labels does not match the
            words of its text; some rows have lists and others single labels.
    """
    values: list[tuple[str, ...]] = []
    missing: list[str] = []
    kinds = set()
    for place, record in records:
        value, where = record.columns.get(column), f"{source}, {_row(place, record)}"
        if _is_missing(value):
            missing.append(where)
            continue
        is_list = isinstance(value, list | tuple)
        kinds.add(is_list)
        if len(kinds) > 1:
            here, before = ("a list", "single labels") if is_list else ("a single label", "lists")
            raise InputError(
                f"{where}: column {column!r} holds {here}, and {before} in the rows before; give every row one label, "
                "or every row a list with one label per word"
            )
        if isinstance(value, list | tuple):
            values.append(_tags(value, column, where, record, finder))
        else:
            values.append((_label(value, f"column {column!r}", where),))
    _refuse_missing(missing, len(values), column, source)
    labels = Labels(source=source, task="words" if kinds == {True} else "text", values=tuple(values))
    return _in_one_notation(labels)


def numbers_of(records: Iterable[LocatedRecord], column: str, *, source: str) -> tuple[float, ...]:
    """Read the scores of records.

    Args:
        records: records that carry the column, with their places.
        column: name of the column; its values are numbers, or strings that are numbers.
        source: name of the input, for messages.

    Raises:
        InputError: there are no records, or a score is missing or not a finite number.
    """
    values: list[float] = []
    missing: list[str] = []
    for place, record in records:
        value, where = record.columns.get(column), f"{source}, {_row(place, record)}"
        if _is_missing(value):
            missing.append(where)
            continue
        try:
            number = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise InputError(f"{where}: column {column!r} is {value!r:.60}; expected a number")
        values.append(number)
    _refuse_missing(missing, len(values), column, source)
    return tuple(values)


def check_labels(train: Labels, others: Sequence[Labels], *, scheme: str = "auto") -> LabelEncoder:
    """Check the labels of all datasets against each other, and return the classes to learn.

    Args:
        train: labels to learn from.
        others: labels of validation and test datasets.
        scheme: tagging scheme, or "auto"; see `scheme_of`.

    Raises:
        InputError: fewer than two classes, or a class with a single example; a dataset without words; labels of a
            dataset that do not occur in training; datasets of which one labels texts and another words.
        OptionError: a scheme that labels of texts do not have.
    """
    for other in others:
        if other.task != train.task:
            raise InputError(
                f"{other.source} has {UNITS[other.task]}, and {train.source} has {UNITS[train.task]}; label both alike"
            )
    if train.task == "text" and scheme != "auto":
        raise OptionError(
            f"scheme {scheme!r} is for tags of words, and {train.source} has {UNITS['text']}; leave it out"
        )
    encoder = LabelEncoder(scheme=None if train.task == "text" else scheme_of(train.counts, scheme), classes=())
    encoder = LabelEncoder(scheme=encoder.scheme, classes=_learnable(train.mapped(encoder.learned)))
    for other in others:
        _check_known(other.mapped(encoder.learned), encoder.classes, train.source)
    return encoder


def listed(names: Sequence[str]) -> str:
    """Join the first few names, for a message."""
    more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    return ", ".join(repr(name) for name in names[:MOST_LISTED]) + more


def _learnable(labels: Labels) -> tuple[str, ...]:
    """Return the classes of a training dataset, sorted; whole numbers by their value."""
    counts, unit = labels.counts, "row" if labels.task == "text" else "word"
    if not counts:
        raise InputError(f"{labels.source}: no text has a word; give texts with words, and one label per word")
    if len(counts) == 1:
        raise InputError(
            f"{labels.source}: every {unit} has the label {next(iter(counts))!r}; at least two classes are needed"
        )
    single = sorted(label for label, count in counts.items() if count == 1)
    if single:
        raise InputError(
            f"{labels.source}: only one example of {listed(single)}; at least two of each class are needed: add "
            "examples, remove the class, or merge it with another"
        )
    numbers = all(label.removeprefix("-").isdecimal() for label in counts)
    return tuple(sorted(counts, key=(lambda label: (int(label), label)) if numbers else None))


def _check_known(labels: Labels, classes: Sequence[str], trained_on: str) -> None:
    if not labels.counts:
        raise InputError(f"{labels.source}: no text has a word; give texts with words, and one label per word")
    known = set(classes)
    unknown = {label: count for label, count in labels.counts.items() if label not in known}
    if unknown:
        number = sum(unknown.values())
        raise InputError(
            f"{labels.source}: {f'{number} labels do' if number > 1 else 'one label does'} not occur in {trained_on}: "
            f"{listed(sorted(unknown))}; known are {listed(classes)}: remove these rows, or add examples to the "
            "training data"
        )


def _in_one_notation(labels: Labels) -> Labels:
    """Write whole numbers without decimals and truth values in lower case, if all labels are of one of these kinds."""
    distinct = set(labels.counts)
    numbers = {label: match[1] for label in distinct if (match := WHOLE_NUMBER.fullmatch(label))}
    if len(numbers) == len(distinct) and any("." in label for label in distinct):
        return labels.mapped(lambda label: "0" if numbers[label] == "-0" else numbers[label])
    if distinct and all(label.lower() in TRUTH_VALUES for label in distinct):
        return labels.mapped(str.lower)
    return labels


def _tags(value: Sequence[Any], column: str, where: str, record: Record, finder: UnitFinder) -> tuple[str, ...]:
    tags = tuple(_label(tag, f"item {i} of column {column!r}", where) for i, tag in enumerate(value, start=1))
    try:
        finder.check(record)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    num_words = len(finder.word_chars(record))
    if len(tags) != num_words:
        raise InputError(
            f"{where}: column {column!r} has {len(tags)} label{'' if len(tags) == 1 else 's'}, and the text has "
            f"{num_words} word{'' if num_words == 1 else 's'}; give one label per word"
        )
    return tags


def _label(value: Any, what: str, where: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # files hold whole numbers as floats if some of them are missing
    if isinstance(value, str | int) and value != "":
        return str(value)
    shown = "empty" if _is_missing(value) else repr(value)
    raise InputError(f"{where}: {what} is {shown:.60}; expected a string, a whole number, or true or false")


def _is_missing(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _refuse_missing(missing: Sequence[str], num_read: int, column: str, source: str) -> None:
    if missing:
        more = f", as in {len(missing)} of {num_read + len(missing)} rows" if len(missing) > 1 else ""
        raise InputError(f"{missing[0]}: column {column!r} is empty{more}; fill it in, or remove the row")
    if not num_read:
        raise InputError(f"{source}: there are no rows; rows with a text and a label are needed")


def _row(place: str, record: Record) -> str:
    return place if record.id is None else f"{place} (id {record.id!r})"
