"""Encoding of labelled datasets for training: token ids, classes, and the token whose logits each label belongs to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from layertap.engine.preparing import label
from layertap.errors import InputError, OptionError
from layertap.learn.arrays import Int64Array
from layertap.learn.labelled import LabelledDataset
from layertap.learn.labels import LabelEncoder
from layertap.records import Record
from layertap.text.encoded import EncodedText
from layertap.text.tokenizer import TextTokenizer
from layertap.text.units import UnitFinder
from layertap.text.word_table import fault_of

TEXTS_AT_ONCE = 1024

FINDER = UnitFinder(words=True)
"""Finder of words: those given as a list, or those between white space."""


def digest_of(dataset: LabelledDataset) -> str:
    """Return the hexadecimal sha256 of the texts, pairs, given words and labels of a dataset."""
    digest = hashlib.sha256()
    for record, labels in zip(dataset.records, dataset.labels.values, strict=True):
        digest.update(json.dumps([record.text, record.pair, record.words, labels]).encode())
    return digest.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncodedDataset:
    """Labelled texts as token ids; a unit is a text, or a word of one.

    Attributes:
        texts: N texts, each within the limit.
        labels: N tuples, the given label of each unit.
        classes: N arrays, int64 [units]: index of the class of each unit.
        rows: N arrays, int64 [units]: index of the token whose logits belong to the unit, the first token of the text
            or word; -1 for a word that has no token, or whose tokens were cut off.
    """

    texts: tuple[EncodedText, ...]
    labels: tuple[tuple[str, ...], ...]
    classes: tuple[Int64Array, ...]
    rows: tuple[Int64Array, ...]

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def num_cut(self) -> int:
        """Number of texts that were longer than the limit."""
        return sum(text.cut_tokens > 0 for text in self.texts)

    @property
    def num_without_token(self) -> int:
        """Number of words that have no token, or whose tokens were cut off."""
        return sum(int((rows < 0).sum()) for rows in self.rows)

    def num_learned(self, records: Sequence[int]) -> int:
        """Return the number of units of some records that have a token."""
        return sum(int((self.rows[record] >= 0).sum()) for record in records)


def encoded(
    dataset: LabelledDataset, encoder: LabelEncoder, tokenizer: TextTokenizer, *, limit: int, max_length: int | None
) -> EncodedDataset:
    """Tokenize a dataset and encode its labels; texts longer than the limit are cut on the right.

    Args:
        dataset: N labelled texts.
        encoder: classes to learn, in the order of the outputs of the model.
        tokenizer: tokenizer of the model.
        limit: maximum number of tokens that the model takes.
        max_length: a smaller limit, or None.

    Raises:
        OptionError: a limit above that of the model, or too small for its special tokens.
    """
    if max_length is not None and max_length > limit:
        raise OptionError(f"max_length {max_length}: this model takes {limit} tokens at most")
    words = dataset.task == "words"
    texts: list[EncodedText] = []
    rows: list[Int64Array] = []
    records = tuple(dataset.records)
    for begin in range(0, len(records), TEXTS_AT_ONCE):
        chunk = records[begin : begin + TEXTS_AT_ONCE]
        for record, whole in zip(chunk, _tokenized(chunk, tokenizer, words=words), strict=True):
            text = whole.limited(max_length or limit)
            texts.append(text)
            rows.append(_first_tokens(record, whole, text) if words else np.zeros(1, dtype=np.int64))
    return EncodedDataset(
        texts=tuple(texts),
        labels=dataset.labels.values,
        classes=tuple(encoder.encode(dataset.labels)),
        rows=tuple(rows),
    )


def _tokenized(records: Sequence[Record], tokenizer: TextTokenizer, *, words: bool) -> list[EncodedText]:
    """Tokenize records without a limit; given words one by one."""
    in_order: list[EncodedText | None] = [None] * len(records)
    given = [i for i, record in enumerate(records) if record.words is not None]
    plain = [i for i, record in enumerate(records) if record.words is None]
    if given:
        for i, text in zip(given, tokenizer.encode_words([records[i].words or () for i in given]), strict=True):
            in_order[i] = text
    if plain:
        pairs = [records[i].pair for i in plain]
        pairs_or_none = pairs if any(pair is not None for pair in pairs) else None
        texts = tokenizer.encode([records[i].text for i in plain], pairs_or_none, offsets=words)
        for i, text in zip(plain, texts, strict=True):
            in_order[i] = text
    for record, encoded in zip(records, in_order, strict=True):
        fault = None if encoded is None else fault_of(tokenizer, encoded)
        if fault is not None:
            raise InputError(f"record {label(record)}: {fault}")
    return [text for text in in_order if text is not None]


def _first_tokens(record: Record, whole: EncodedText, text: EncodedText) -> Int64Array:
    """Return the index of the first token of each word, int64 [words]; -1 for a word without one."""
    words = FINDER.find(record, whole).words
    assert words is not None
    begin, end = text.content
    rows = words[:, 0].astype(np.int64)
    return np.where((words[:, 0] < words[:, 1]) & (rows < end - begin), rows + begin, -1)
