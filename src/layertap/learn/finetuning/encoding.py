"""Labelled texts or words, checked before any work starts, and as token ids."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from layertap.engine.options import Semantics
from layertap.errors import InputError, OptionError
from layertap.learn.fitting.fit import counter
from layertap.learn.labels import Part
from layertap.learn.tags import Scheme, in_scheme
from layertap.records import Record
from layertap.text.encoded import EncodedText
from layertap.text.tokenizer import TextTokenizer
from layertap.text.units import UnitFinder

TEXTS_AT_ONCE = 1024
LABEL = "label"


FINDER = UnitFinder(words=True)
"""A word is what was given as one, or stands between white space."""

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledTexts:
    """Texts and a label each, in memory; or texts and a label for each of their words.

    Attributes:
        texts: N, each a text or a list of words.
        labels: N, each a word or a whole number; or each a list of these, one for each word of its text.
        pairs: N second texts, or None: there are none.
        source: what to call them in messages.
    """

    texts: Sequence[str | Sequence[str]]
    labels: Sequence[str | int | Sequence[str | int]]
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
            words = tuple(text) if isinstance(text, list | tuple) else None
            for given in (*((text,) if words is None else words), *(() if pair is None else (pair,))):
                if not isinstance(given, str):
                    raise InputError(f"{self.source}: text {row} is {given!r:.60}, no str")
            as_list = getattr(label, "tolist", None)  # of numpy
            value = as_list() if callable(as_list) else list(label) if isinstance(label, tuple) else label
            whole = " ".join(words) if words is not None else str(text)
            yield Record(row=row, text=whole, pair=pair, words=words, columns={LABEL: value})


def part_of(records: Iterable[Record], label: str, source: str) -> Part:
    """The records of a file or of `LabelledTexts`, in memory.

    Raises:
        InputError: no records, labels that are missing, of another number than the words, or of pairs' words.
    """
    part = Part.held(records, label, source=source, count_words=counter(Semantics()))
    if part.labels.task == "words":
        for record in part.records:
            try:
                FINDER.check(record)
            except InputError as error:
                raise InputError(f"{source}: row {record.row + 1}: {error}") from None
    return part


def digest_of(part: Part) -> str:
    """A hash of texts, pairs, given words and labels."""
    found = hashlib.sha256()
    for record, labels in zip(part.records, part.labels.values, strict=True):
        found.update(json.dumps([record.text, record.pair, record.words, labels]).encode())
    return found.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Examples:
    """Labelled texts as the model takes them; a unit is a text, or a word of one.

    Attributes:
        texts: N, under the limit.
        labels: N tuples, the label of each unit as it was given.
        classes: N times int64 [units], places in the list of the model's labels.
        rows: N times int64 [units], the token whose logits are the unit's: the first of its text or of the word; -1:
            the word has none, or was cut off.
    """

    texts: tuple[EncodedText, ...]
    labels: tuple[tuple[str, ...], ...]
    classes: tuple[Rows, ...]
    rows: tuple[Rows, ...]

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def num_cut(self) -> int:
        """Texts that were over the limit."""
        return sum(text.cut_tokens > 0 for text in self.texts)

    @property
    def num_without_token(self) -> int:
        """Words that have no token, or were cut off with theirs."""
        return sum(int((rows < 0).sum()) for rows in self.rows)

    def learned(self, records: Sequence[int]) -> int:
        """How many units of these records have a token."""
        return sum(int((self.rows[record] >= 0).sum()) for record in records)


def encoded(
    data: Part,
    names: Sequence[str],
    scheme: Scheme | None,
    tokenizer: TextTokenizer,
    *,
    limit: int,
    max_length: int | None,
) -> Examples:
    """Tokenizes labelled texts; those over the limit are cut on the right.

    Args:
        data: N records.
        names: the labels, in the order of the model's outputs.
        scheme: of tags, or None: labels are of texts.
        tokenizer: the model's.
        limit: tokens that the model takes.
        max_length: a smaller limit, or None.

    Raises:
        OptionError: a limit above the model's, or too small for its special tokens.
    """
    if max_length is not None and max_length > limit:
        raise OptionError(f"max_length {max_length}: this model takes {limit} tokens at most")
    texts: list[EncodedText] = []
    rows: list[Rows] = []
    records = tuple(data.records)
    for begin in range(0, len(records), TEXTS_AT_ONCE):
        chunk = records[begin : begin + TEXTS_AT_ONCE]
        for record, whole in zip(chunk, _tokenized(chunk, tokenizer, words=scheme is not None), strict=True):
            text = whole.limited(max_length or limit)
            texts.append(text)
            rows.append(np.zeros(1, dtype=np.int64) if scheme is None else _first_tokens(record, whole, text))
    place = {name: i for i, name in enumerate(names)}
    classes = tuple(
        np.array([place[label if scheme is None else in_scheme(label, scheme)] for label in labels], dtype=np.int64)
        for labels in data.labels.values
    )
    return Examples(texts=tuple(texts), labels=data.labels.values, classes=classes, rows=tuple(rows))


def _tokenized(records: Sequence[Record], tokenizer: TextTokenizer, *, words: bool) -> list[EncodedText]:
    """Their texts without a limit; those of given words as such."""
    found: list[EncodedText | None] = [None] * len(records)
    given = [i for i, record in enumerate(records) if record.words is not None]
    plain = [i for i, record in enumerate(records) if record.words is None]
    if given:
        for i, text in zip(given, tokenizer.encode_words([records[i].words or () for i in given]), strict=True):
            found[i] = text
    if plain:
        pairs = [records[i].pair for i in plain]
        pairs_or_none = pairs if any(pair is not None for pair in pairs) else None
        texts = tokenizer.encode([records[i].text for i in plain], pairs_or_none, offsets=words)
        for i, text in zip(plain, texts, strict=True):
            found[i] = text
    return [text for text in found if text is not None]


def _first_tokens(record: Record, whole: EncodedText, text: EncodedText) -> Rows:
    """int64 [words], where the first token of each word is in the text; -1 where there is none."""
    words = FINDER.find(record, whole).words
    assert words is not None
    begin, end = text.content
    rows = words[:, 0].astype(np.int64)
    return np.where((words[:, 0] < words[:, 1]) & (rows < end - begin), rows + begin, -1)
