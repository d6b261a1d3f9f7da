"""Labelled records: labels read from a column, and refused where nothing can be learnt from them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from layertap.errors import InputError
from layertap.records import Record

TaskKind: TypeAlias = Literal["text", "words"]
"""Unit that gets a label: whole texts, or the words of a text."""

MOST_LISTED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """The labels of N records.

    Attributes:
        source: what to call where they are from.
        task: "text", one label a record, or "words", one a word.
        values: N tuples, of one label each where the task is "text".
    """

    source: str
    task: TaskKind
    values: tuple[tuple[str, ...], ...]

    @property
    def counts(self) -> Counter[str]:
        """How often there is each."""
        return Counter(label for labels in self.values for label in labels)

    def mapped(self, change: Callable[[str], str]) -> Labels:
        """The same with each label changed."""
        values = tuple(tuple(map(change, labels)) for labels in self.values)
        return Labels(source=self.source, task=self.task, values=values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Labelled records: those to learn from, to choose or to stop early by, or to measure on.

    Attributes:
        records: each time they are gone through, from the first.
        labels: theirs.
        notes: what was left out, in words.
    """

    records: Iterable[Record]
    labels: Labels
    notes: tuple[str, ...] = ()

    @classmethod
    def held(cls, records: Iterable[Record], column: str, *, source: str, count_words: Callable[[Record], int]) -> Part:
        """Records in memory; arguments and errors as `labels_of` has them."""
        held = tuple(records)
        return cls(records=held, labels=labels_of(held, column, source=source, count_words=count_words))


def labels_of(records: Iterable[Record], column: str, *, source: str, count_words: Callable[[Record], int]) -> Labels:
    """Reads the labels of records.

    Args:
        records: they carry the column.
        column: strings, whole numbers or truth, which are read as their text; or lists of them, one a word.
        source: where they are from.
        count_words: words of a record, to hold lists of tags against.

    Raises:
        InputError: no records, labels that are missing or none, lists of another length than the words.
    """
    values: list[tuple[str, ...]] = []
    kinds: set[bool] = set()
    missing: list[Record] = []
    for record in records:
        value = record.columns.get(column)
        if _is_missing(value):
            missing.append(record)
            continue
        where = f"{source}: {_row(record)}"
        kinds.add(isinstance(value, list | tuple))
        if len(kinds) > 1:
            raise InputError(f"{where}: column {column!r} holds lists in some rows and single labels in others")
        if isinstance(value, list | tuple):
            values.append(_tags(value, column, where, count_words(record)))
        else:
            values.append((_label(value, column, where),))
    _refuse_missing(missing, len(values), f"no label in column {column!r}", source)
    return Labels(source=source, task="words" if kinds == {True} else "text", values=tuple(values))


def numbers_of(records: Iterable[Record], column: str, *, source: str) -> tuple[float, ...]:
    """Reads the scores of records.

    Args:
        records: they carry the column.
        column: numbers, or strings that are numbers.
        source: where they are from.

    Raises:
        InputError: no records, scores that are missing or no finite numbers.
    """
    values: list[float] = []
    missing: list[Record] = []
    for record in records:
        value = record.columns.get(column)
        if _is_missing(value):
            missing.append(record)
            continue
        try:
            number = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise InputError(
                f"{source}: {_row(record)}: the score in column {column!r} is {value!r:.60}; expected a number"
            )
        values.append(number)
    _refuse_missing(missing, len(values), f"no score in column {column!r}", source)
    return tuple(values)


def _refuse_missing(missing: Sequence[Record], found: int, what: str, source: str) -> None:
    if missing:
        raise InputError(
            f"{source}: {len(missing)} of {found + len(missing)} rows have {what}, the first of them "
            f"{_row(missing[0])}; label them or take them out"
        )
    if not found:
        raise InputError(f"{source}: there are no rows")


def check_learnable(labels: Labels) -> tuple[str, ...]:
    """The classes of a training part, sorted; whole numbers by their size.

    Raises:
        InputError: fewer than two, or one with a single example.
    """
    counts = labels.counts
    unit = "row" if labels.task == "text" else "word"
    if not counts:
        raise InputError(f"{labels.source}: there is no word in it")
    if len(counts) == 1:
        raise InputError(
            f"{labels.source}: every {unit} has the label {next(iter(counts))!r}; to learn a difference takes two "
            "classes or more"
        )
    single = sorted(label for label, count in counts.items() if count == 1)
    if single:
        raise InputError(
            f"{labels.source}: one example only of {listed(single)}; nothing can be learnt from one: give more, take "
            "it out, or join it to another class"
        )
    numbers = all(label.removeprefix("-").isdecimal() for label in counts)
    return tuple(sorted(counts, key=(lambda label: (int(label), label)) if numbers else None))


def check_known(labels: Labels, classes: Sequence[str], *, trained_on: str) -> None:
    """Refuses labels that were not there in training.

    Raises:
        InputError: naming them.
    """
    known = set(classes)
    unseen = {label: count for label, count in labels.counts.items() if label not in known}
    if unseen:
        number = sum(unseen.values())
        raise InputError(
            f"{labels.source}: {'one label is' if number == 1 else f'{number} labels are'} not among those of "
            f"{trained_on}: {listed(sorted(unseen))}; only {listed(classes)} can be predicted: leave the rows out, or "
            "train with them"
        )


def check_same_task(labels: Labels, other: Labels) -> None:
    """Refuses parts of which one labels texts and the other words.

    Raises:
        InputError: they do.
    """
    if labels.task != other.task:
        what = {"text": "one label a row", "words": "lists of labels, one a word"}
        raise InputError(
            f"{other.source} has {what[other.task]}, and {labels.source} has {what[labels.task]}; both must be the same"
        )


def listed(names: Sequence[str]) -> str:
    """The first few names, for a message."""
    more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    return ", ".join(repr(name) for name in names[:MOST_LISTED]) + more


def _tags(value: Sequence[Any], column: str, where: str, num_words: int) -> tuple[str, ...]:
    tags = tuple(_label(tag, column, f"{where}: item {i}") for i, tag in enumerate(value, start=1))
    if len(tags) != num_words:
        raise InputError(
            f"{where}: {len(tags)} label{'' if len(tags) == 1 else 's'} in column {column!r}, and "
            f"{num_words} word{'' if num_words == 1 else 's'}; each word needs one"
        )
    return tags


def _label(value: Any, column: str, where: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # as a file has whole numbers some of which are missing
    if isinstance(value, str | int) and value != "":
        return str(value)
    shown = "empty" if _is_missing(value) else repr(value)
    raise InputError(f"{where}: the label in column {column!r} is {shown:.60}; expected a string or a whole number")


def _is_missing(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _row(record: Record) -> str:
    return f"row {record.row + 1}" + ("" if record.id is None else f" ({record.id!r})")
