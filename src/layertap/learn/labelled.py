"""Labelled datasets: records and their labels, from a file or from memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from layertap.data.input import Input, RepeatedInput
from layertap.engine.texts import Lists, Text, as_records
from layertap.errors import InputError
from layertap.learn.labels import Labels, LocatedRecord, TaskKind, labels_of
from layertap.records import Record
from layertap.text.units import UnitFinder

LABEL = "label"
"""Default name of the column of labels, and the column in which labels from memory are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledDataset:
    """Records with their labels: to learn from, to validate or to test on.

    Attributes:
        records: the records; each iteration starts from the first one.
        labels: labels of the records.
        notes: remarks on rows that were left out.
    """

    records: Iterable[Record]
    labels: Labels
    notes: tuple[str, ...] = ()

    @classmethod
    def read(cls, source: Input, column: str, finder: UnitFinder, *, in_memory: bool = True) -> LabelledDataset:
        """Read a labelled file.

        Args:
            source: the input.
            column: name of the column of labels.
            finder: finder of words; lists of labels must match the words that it finds.
            in_memory: keep the records; otherwise only the labels are kept, and each iteration reads the file again.
                The records of a pipe are always kept, as it can be read once only.

        Raises:
            InputError: rows or labels that cannot be read; see `labels_of`.
            UsageError: a column that the input does not have.
        """
        if not in_memory and source.can_be_reread:
            repeated = RepeatedInput(source)
            labels = labels_of(repeated.located(), column, source=source.name, finder=finder)
            return cls(records=repeated, labels=labels)
        with source.open() as reader:
            located = list(reader.located())
        return cls._of(located, column, source=source.name, finder=finder)

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
        return cls(records=tuple(record for _, record in located), labels=labels)

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
        return replace(self, records=tuple(records[row] for row in rows), labels=labels)


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
