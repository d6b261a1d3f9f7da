"""Labelled texts, checked before any work starts, and as token ids."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from layertap.errors import InputError, OptionError
from layertap.learn.labels import Labels, labels_of
from layertap.records import Record
from layertap.text.encoded import EncodedText
from layertap.text.tokenizer import TextTokenizer

TEXTS_AT_ONCE = 1024
LABEL = "label"


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledTexts:
    """Texts and a label each, in memory.

    Attributes:
        texts: N.
        labels: N, words or whole numbers.
        pairs: N second texts, or None: there are none.
        source: what to call them in messages.
    """

    texts: Sequence[str]
    labels: Sequence[str | int]
    pairs: Sequence[str] | None = None
    source: str = "data"

    def records(self) -> Iterator[Record]:
        """The same as a reader gives it, labels in the column `LABEL`.

        Raises:
            InputError: as many labels as texts are wanted, something that is no text.
        """
        for name, column in (("labels", self.labels), ("second texts", self.pairs)):
            if column is not None and len(column) != len(self.texts):
                raise InputError(
                    f"{self.source}: {len(self.texts):,} texts and {len(column):,} {name}; give one for each"
                )
        for row, (text, label) in enumerate(zip(self.texts, self.labels, strict=True)):
            pair = None if self.pairs is None else self.pairs[row]
            for given in (text,) if pair is None else (text, pair):
                if not isinstance(given, str):
                    raise InputError(f"{self.source}: text {row} is {given!r:.60}, no str")
            value = label.item() if isinstance(label, np.generic) else label
            yield Record(row=row, text=text, pair=pair, columns={LABEL: value})


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of the data: N records and their labels.

    Attributes:
        texts: N.
        pairs: N second texts, None where a record has none.
        labels: N.
    """

    texts: tuple[str, ...]
    pairs: tuple[str | None, ...]
    labels: Labels

    @classmethod
    def of(cls, records: Iterable[Record], label: str, source: str) -> Part:
        """The records of a file or of `LabelledTexts`.

        Raises:
            InputError: no records, labels that are missing or lists.
        """
        listed = list(records)
        labels = labels_of(listed, label, source=source, count_words=lambda record: len(record.words or ()))
        if labels.task != "text":
            raise InputError(
                f"{source}: column {label!r} holds lists, one label a word; fine-tuning learns one label a text "
                "(layertap fit learns tags)"
            )
        texts, pairs = tuple(record.text for record in listed), tuple(record.pair for record in listed)
        return cls(texts=texts, pairs=pairs, labels=labels)

    @property
    def sha256(self) -> str:
        """Of texts, pairs and labels."""
        found = hashlib.sha256()
        for row in zip(self.texts, self.pairs, self.labels.values, strict=True):
            found.update(json.dumps(row).encode())
        return found.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Examples:
    """Labelled texts as the model takes them.

    Attributes:
        texts: N, under the limit.
        classes: int64 [N], places in the list of labels.
    """

    texts: tuple[EncodedText, ...]
    classes: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def num_cut(self) -> int:
        """Texts that were over the limit."""
        return sum(text.cut_tokens > 0 for text in self.texts)


def encoded(
    data: Part, names: Sequence[str], tokenizer: TextTokenizer, *, limit: int, max_length: int | None
) -> Examples:
    """Tokenizes labelled texts; those over the limit are cut on the right.

    Args:
        data: N records.
        names: the labels, in the order of the model's outputs.
        tokenizer: the model's.
        limit: tokens that the model takes.
        max_length: a smaller limit, or None.

    Raises:
        OptionError: a limit above the model's, or too small for its special tokens.
    """
    if max_length is not None and max_length > limit:
        raise OptionError(f"max_length {max_length}: this model takes {limit} tokens at most")
    texts: list[EncodedText] = []
    for begin in range(0, len(data.texts), TEXTS_AT_ONCE):
        part = slice(begin, begin + TEXTS_AT_ONCE)
        pairs = data.pairs[part] if any(pair is not None for pair in data.pairs) else None
        texts += [text.limited(max_length or limit) for text in tokenizer.encode(data.texts[part], pairs)]
    place = {name: i for i, name in enumerate(names)}
    classes = np.array([place[label] for (label,) in data.labels.values], dtype=np.int64)
    return Examples(texts=tuple(texts), classes=classes)
