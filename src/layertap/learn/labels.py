"""Labels of records: read from a column, and checked before any work is done."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from layertap.data.readers.base import RowError
from layertap.errors import InputError, OptionError
from layertap.learn.arrays import Int64Array
from layertap.learn.tags import Scheme, in_scheme, scheme_of
from layertap.records import Record
from layertap.text.units import UnitFinder
from layertap.words import counted

TaskKind: TypeAlias = Literal["text", "words"]
"""Unit that gets a label: whole texts, or the words of a text."""

LocatedRecord: TypeAlias = tuple[str, Record]
"""A record and its place in the input as messages state it, for example `line 7`."""

MOST_LISTED = 5
WHOLE_NUMBER = re.compile(r"(-?(?:0|[1-9][0-9]*))(?:\.0+)?")
TRUTH_VALUES = ("true", "false")
MEASURED = ". Measurements are not classes: sort them into a few classes first, such as low and high"
"""End of messages about labels that are numbers with fractions, each of which occurs once."""

SEVERAL = (
    ". Several labels per text are not supported: give each label a column of its own with true or false, and fit one "
    "head per column"
)
"""End of messages about lists of labels that are not one per word."""

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


def labels_of(
    records: Iterable[LocatedRecord],
    column: str,
    *,
    source: str,
    finder: UnitFinder,
    skipped: list[RowError] | None = None,
) -> Labels:
    """Read the labels of records.

    A label is a string, a number, or true or false. Labels are compared as text, in one notation (see `label_text`).

    Args:
        records: records that carry the column, with their places.
        column: name of the column; its values are labels, or lists of labels with one per word.
        source: name of the input, for messages.
        finder: finder of the words that lists of labels must match.
        skipped: list to which rows without a usable label are added, in place of an error; None refuses them.

    Raises:
        InputError: there are no records; a label is missing or is not a label; a list of labels does not match the
            words of its text; some rows have lists and others single labels.
    """
    values: list[tuple[str, ...]] = []
    missing: list[str] = []
    lists: bool | None = None
    for place, record in records:
        value, row = record.columns.get(column), _row(place, record)
        try:
            if skipped is None and _is_missing(value):
                missing.append(f"{source}, {row}")
                continue
            labels = _labels(value, column, record, finder, lists=lists)
        except _BadLabelError as bad:
            if skipped is None:
                raise InputError(f"{source}, {row}: {bad}") from None
            skipped.append(RowError(row=record.row, where=place, reason=str(bad)))
            continue
        lists = isinstance(value, list | tuple)
        values.append(labels)
    _refuse_missing(missing, len(values), column, source)
    _refuse_lists_as_text([label for labels in values for label in labels] if not lists else [], column, source)
    return Labels(source=source, task="words" if lists else "text", values=tuple(values))


class _BadLabelError(Exception):
    """Reason why the label of a row cannot be used."""


def _labels(value: Any, column: str, record: Record, finder: UnitFinder, *, lists: bool | None) -> tuple[str, ...]:
    """Return the labels of a row, or raise `_BadLabelError`; `lists` says whether the rows before hold lists."""
    is_list = isinstance(value, list | tuple)
    if not is_list:
        labels = (_label(value, f"column {column!r}"),)
    if lists is not None and lists != is_list:
        here, before = ("a list", "single labels") if is_list else ("a single label", "lists")
        raise _BadLabelError(
            f"column {column!r} holds {here}, and {before} in the rows before; give every row one label, or every row "
            f"a list with one label per word{SEVERAL if is_list else ''}"
        )
    return _tags(value, column, record, finder) if is_list else labels


def label_text(label: str) -> str:
    """Return a label in the notation in which labels are compared.

    Numbers without a fraction are written as whole numbers (`1.0` is `1`), and truth values in lower case (`True` is
    `true`), so that a label is the same one in CSV, where everything is text, and in JSON. Other labels stay as they
    are.
    """
    number = WHOLE_NUMBER.fullmatch(label)
    if number is not None:
        return "0" if number[1] == "-0" else number[1]
    return label.lower() if label.lower() in TRUTH_VALUES else label


def numbers_of(
    records: Iterable[LocatedRecord], column: str, *, source: str, skipped: list[RowError] | None = None
) -> tuple[float, ...]:
    """Read the scores of records.

    Args:
        records: records that carry the column, with their places.
        column: name of the column; its values are numbers, or strings that are numbers.
        source: name of the input, for messages.
        skipped: list to which rows without a score are added, in place of an error; None refuses them.

    Raises:
        InputError: there are no records, or a score is missing or not a finite number.
    """
    values: list[float] = []
    missing: list[str] = []
    for place, record in records:
        value, where = record.columns.get(column), f"{source}, {_row(place, record)}"
        if skipped is None and _is_missing(value):
            missing.append(where)
            continue
        try:
            number = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            number = math.nan
        if math.isfinite(number):
            values.append(number)
            continue
        reason = f"column {column!r} is {'empty' if _is_missing(value) else repr(value):.60}; expected a number"
        if skipped is None:
            raise InputError(f"{where}: {reason}")
        skipped.append(RowError(row=record.row, where=place, reason=reason))
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
        check_known(other.mapped(encoder.learned), encoder.classes, train.source)
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
        hint = MEASURED if 2 * sum(map(_is_fraction, single)) > len(single) else ""
        raise InputError(
            f"{labels.source}: only one example of {listed(single)}; at least two of each class are needed: add "
            f"examples, remove the class, or merge it with another{hint}"
        )
    numbers = all(label.removeprefix("-").isdecimal() for label in counts)
    return tuple(sorted(counts, key=(lambda label: (int(label), label)) if numbers else None))


def check_known(labels: Labels, classes: Sequence[str], trained_on: str) -> None:
    """Refuse labels that are not among the classes of `trained_on`, and a dataset without words.

    Raises:
        InputError: the message names the unknown labels and the known ones.
    """
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


def _tags(value: Sequence[Any], column: str, record: Record, finder: UnitFinder) -> tuple[str, ...]:
    try:
        finder.check(record)
    except InputError as error:
        raise _BadLabelError(str(error)) from None
    num_words = len(finder.word_chars(record))
    if len(value) != num_words:
        several = SEVERAL if record.words is None else ""
        raise _BadLabelError(
            f"column {column!r} has {counted(len(value), 'label')}, and the text has {counted(num_words, 'word')}; "
            f"give one label per word{several}"
        )
    return tuple(_label(tag, f"item {i} of column {column!r}") for i, tag in enumerate(value, start=1))


def _label(value: Any, what: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and math.isfinite(value):
        value = int(value) if value.is_integer() else repr(value)
    if isinstance(value, str | int) and value != "":
        return label_text(str(value))
    if _is_missing(value):
        raise _BadLabelError(f"{what} is empty; fill it in, or remove the row")
    raise _BadLabelError(f"{what} is {value!r:.60}; expected a string, a number, or true or false")


def _is_fraction(label: str) -> bool:
    try:
        return not float(label).is_integer()
    except (ValueError, OverflowError):
        return False


def _refuse_lists_as_text(labels: Sequence[str], column: str, source: str) -> None:
    """Refuse a column of texts of which all read as JSON lists, as CSV files hold several labels per text."""
    if labels and all(label.startswith("[") and label.endswith("]") for label in labels) and _is_json(labels[0]):
        raise InputError(
            f"{source}: column {column!r} holds lists as text, for example {labels[0]!r:.40}; for one label per word "
            f"give lists of JSONL or Parquet{SEVERAL}"
        )


def _is_json(text: str) -> bool:
    try:
        json.loads(text.replace("'", '"'))
    except (ValueError, RecursionError):
        return False
    return True


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
