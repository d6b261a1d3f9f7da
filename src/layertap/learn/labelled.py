"""Labelled datasets: records and their labels, from a file or from memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from layertap.data.input import Input, RepeatedInput
from layertap.data.readers.base import Reader, RowError
from layertap.engine.texts import Lists, Text, as_records
from layertap.errors import InputError, UsageError
from layertap.learn.arrays import Int64Array
from layertap.learn.labels import Labels, LocatedRecord, TaskKind, labels_of
from layertap.records import Record
from layertap.text.units import UnitFinder
from layertap.words import counted

LABEL = "label"
"""Default name of the column of labels, and the column in which labels from memory are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledDataset:
    """Records with their labels: to learn from, to validate or to test on.

    Attributes:
        records: the records; each iteration starts from the first one.
        labels: labels of the records.
        text_keys: digest of the text of each record, and of its second text; equal for equal texts.
        notes: remarks on the file, and on rows that were left out.
        skipped: rows that were left out because they, or their labels, cannot be used.
    """

    records: Iterable[Record]
    labels: Labels
    text_keys: tuple[bytes, ...]
    notes: tuple[str, ...] = ()
    skipped: tuple[RowError, ...] = ()

    @classmethod
    def read(cls, source: Input, column: str, finder: UnitFinder, *, in_memory: bool = True) -> LabelledDataset:
        """Read a labelled file.

        Args:
            source: the input; with `on_error="skip"`, rows without a usable label are left out too.
            column: name of the column of labels.
            finder: finder of words; lists of labels must match the words that it finds.
            in_memory: keep the records; otherwise only the labels are kept, and each iteration reads the file again.
                The records of a pipe are always kept, as it can be read once only.

        Raises:
            InputError: rows or labels that cannot be read; see `labels_of`.
            UsageError: a column that the input does not have.
        """
        repeated = RepeatedInput(source) if not in_memory and source.can_be_reread else None
        kept: list[Record] = []
        keys: list[tuple[int, bytes]] = []
        bad: list[RowError] | None = [] if source.options.on_error == "skip" else None

        def watched(reader: Reader) -> Iterator[LocatedRecord]:
            for place, record in reader.located():
                keys.append((record.row, text_key(record)))
                if repeated is None:
                    kept.append(record)
                yield place, record

        with advice_on_label(column), source.open() if repeated is None else repeated.open() as reader:
            labels = labels_of(watched(reader), column, source=source.name, finder=finder, skipped=bad)
            skipped = sorted([*reader.errors, *(bad or ())], key=lambda error: error.row)
            notes = reader.notes
        refuse_many(skipped, source)
        left_out = {error.row for error in bad or ()}
        records: Iterable[Record] = tuple(record for record in kept if record.row not in left_out)
        if repeated is not None:
            records = _Remaining(repeated, left_out) if left_out else repeated
        return cls(
            records=records,
            labels=labels,
            text_keys=tuple(key for row, key in keys if row not in left_out),
            notes=notes,
            skipped=tuple(skipped),
        )

    @classmethod
    def of_texts(
        cls, texts: Sequence[Text], labels: Sequence[Any], finder: UnitFinder, *, source: str
    ) -> LabelledDataset:
        """Build a dataset of texts in memory.

        Args:
            texts: N texts, as `Extractor.extract` takes them.
            labels: N labels, or N lists of labels with one per word.
            finder: finder of words; lists of labels must match the words that it finds.
            source: name of the dataset, for messages.

        Raises:
            InputError: another number of labels than of texts; an item that is not a text, or a list that could be
                a pair or two words; labels that cannot be read, see `labels_of`.
        """
        as_list = getattr(labels, "tolist", None)  # the items of arrays and Series are not str and int
        values = as_list() if callable(as_list) else list(labels)
        if isinstance(texts, str) or len(texts) != len(values):
            count = "a single text" if isinstance(texts, str) else f"{len(texts):,} texts"
            raise InputError(f"{source}: {count} and {len(values):,} labels; give a list of texts, and one label each")
        lists: Lists = "words" if _of_words(values) else "either"
        try:
            located = [
                (f"text {i}", replace(record, columns={LABEL: _plain(label)}))
                for i, (record, label) in enumerate(zip(as_records(texts, lists=lists), values, strict=True))
            ]
        except InputError as error:
            raise InputError(f"{source}: {error}") from None
        return cls._of(located, LABEL, source=source, finder=finder)

    @classmethod
    def _of(cls, located: Sequence[LocatedRecord], column: str, *, source: str, finder: UnitFinder) -> LabelledDataset:
        labels = labels_of(located, column, source=source, finder=finder)
        records = tuple(record for _, record in located)
        return cls(records=records, labels=labels, text_keys=tuple(map(text_key, records)))

    @property
    def task(self) -> TaskKind:
        """Unit that is labelled: "text" or "words"."""
        return self.labels.task

    @property
    def source(self) -> str:
        """Name of the dataset, for messages."""
        return self.labels.source

    def __len__(self) -> int:
        return len(self.labels.values)

    def subset(self, rows: Sequence[int]) -> LabelledDataset:
        """Return the dataset with some of its records only; they must be in memory."""
        records, values = tuple(self.records), self.labels.values
        labels = replace(self.labels, values=tuple(values[row] for row in rows))
        keys = tuple(self.text_keys[row] for row in rows)
        return replace(self, records=tuple(records[row] for row in rows), labels=labels, text_keys=keys)


def shared_note(dataset: LabelledDataset, train: LabelledDataset) -> str:
    """Return a note on texts of a dataset that also occur in the training data, or an empty string."""
    known = set(train.text_keys)
    number = sum(key in known for key in dataset.text_keys)
    if not number:
        return ""
    noun, occur = (
        counted(number, "text" if dataset.task == "text" else "sentence"),
        "occurs" if number == 1 else "occur",
    )
    return f"{noun} of {dataset.source} also {occur} in {train.source}, so that its scores are a little too good"


@contextmanager
def advice_on_label(column: str) -> Iterator[None]:
    """Add to an error about the missing column of labels how it is named."""
    try:
        yield
    except UsageError as error:
        if f"column {column!r}" in str(error):
            error.add_note("labels are in the column `label`, unless --label (label=...) names another")
        raise


def text_key(record: Record) -> bytes:
    """Return a digest of the text of a record, and of its second text; equal for equal texts."""
    return hashlib.blake2b(json.dumps([record.text, record.pair]).encode(), digest_size=16).digest()


def group_numbers(keys: Iterable[bytes]) -> Int64Array:
    """Number distinct keys in the order of their first appearance, and return the number of each key: int64 [N]."""
    numbers: dict[bytes, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


class _Remaining(Iterable[Record]):
    """Records of a file without some rows, from the first each time they are iterated over."""

    def __init__(self, records: RepeatedInput, left_out: set[int]) -> None:
        self._records = records
        self._left_out = left_out

    def __iter__(self) -> Iterator[Record]:
        return (record for record in self._records if record.row not in self._left_out)


def refuse_many(skipped: Sequence[RowError], source: Input) -> None:
    """Refuse more rows that cannot be used than the options of the input tolerate.

    Raises:
        InputError: there are more.
    """
    most = source.options.max_errors
    if most is not None and len(skipped) > most:
        first = skipped[most]
        raise InputError(
            f"{source.name}: {len(skipped):,} rows cannot be used, and {most:,} are allowed (--max-errors); for "
            f"example {first.where}: {first.reason}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledTexts:
    """Texts with one label each, or with one label per word, in memory.

    Attributes:
        texts: N items, each a text, a pair of texts (tuple of two) or a list of words.
        labels: N items, each a string or a whole number; or each a list of these, one per word.
        pairs: N second texts, or None.
        source: name of the texts in messages.
    """

    texts: Sequence[str | Sequence[str]]
    labels: Sequence[str | int | Sequence[str | int]]
    pairs: Sequence[str] | None = None
    source: str = "data"

    def dataset(self, finder: UnitFinder) -> LabelledDataset:
        """Build the labelled dataset of these texts.

        Raises:
            InputError: as `LabelledDataset.of_texts`, or another number of second texts than of texts.
        """
        return LabelledDataset.of_texts(list(self._texts()), self.labels, finder, source=self.source)

    def _texts(self) -> Iterator[Text]:
        pairs = self.pairs
        if pairs is not None and len(pairs) != len(self.texts):
            raise InputError(
                f"{self.source}: {len(self.texts):,} texts and {len(pairs):,} second texts; give one for each"
            )
        of_words = _of_words(self.labels)
        for i, text in enumerate(self.texts):
            if isinstance(text, tuple) and len(text) == 2 and not of_words and pairs is None:
                yield text
                continue
            words = list(text) if isinstance(text, list | tuple) else None
            if words is not None and pairs is not None:
                raise InputError(f"{self.source}: text {i} is a list of words, and pairs are of texts; give a str")
            item: Any = text if words is None else words
            yield item if pairs is None else (item, pairs[i])


def _of_words(labels: Sequence[Any]) -> bool:
    """Whether labels are lists, one label per word."""
    return any(isinstance(label, list | tuple) for label in labels)


def _plain(label: Any) -> Any:
    """Return a label without numpy's types, and a tuple of labels as a list."""
    as_list = getattr(label, "tolist", None)
    value = as_list() if callable(as_list) else label
    return list(value) if isinstance(value, tuple) else value
