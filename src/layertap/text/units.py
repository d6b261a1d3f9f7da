"""Words and spans of records, as rows of their tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from layertap.errors import InputError
from layertap.packing import IntArray
from layertap.records import Record
from layertap.text.encoded import EncodedText
from layertap.text.words import pattern_words, rows_of_words, rows_under, whitespace_words, word_edges


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RecordUnits:
    """Words and spans of one record; tokens are counted without the template's.

    Attributes:
        word_chars: int32 [W, 2], characters of each word in `Record.text`, or None: words were not asked for.
        words: int32 [W, 2], the tokens [begin, end) of each word; empty where it has none.
        spans: the same for the record's spans, or None: they were not asked for.
    """

    word_chars: IntArray | None = None
    words: IntArray | None = None
    spans: IntArray | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitFinder:
    """Finder of the words and spans of records, as rows of their tokens.

    Attributes:
        words, spans: whether they are wanted.
        pattern: of a word, or None: what stands between white space.
    """

    words: bool = False
    spans: bool = False
    pattern: re.Pattern[str] | None = None

    def find(self, record: Record, text: EncodedText, *, shift: int = 0) -> RecordUnits:
        """Return the units of a record.

        Args:
            record: its spans have been checked (`check`).
            text: its tokens without a limit, with offsets.
            shift: characters of the prompt before it.
        """
        word_chars = words = spans = None
        if self.words:
            word_chars = self.word_chars(record)
            words = self._rows(word_chars + shift, text) if text.word_ids is None else _given(text, len(word_chars))
        if self.spans:
            ranges = np.array([] if record.spans is None else record.spans, dtype=np.int32).reshape(-1, 2)
            spans = self._rows(ranges + shift, text)
        return RecordUnits(word_chars=word_chars, words=words, spans=spans)

    def word_chars(self, record: Record) -> IntArray:
        """Return int32 [W, 2], the characters of each word in `Record.text`."""
        if record.words is not None:
            return given_chars(record.words)
        return whitespace_words(record.text) if self.pattern is None else pattern_words(record.text, self.pattern)

    def check(self, record: Record) -> None:
        """Refuses what the wanted units cannot be had for.

        Raises:
            InputError: saying why; the caller names the record.
        """
        if record.pair is not None and record.words is not None:
            raise InputError("it has given words and a second text; pairs are of texts")
        if record.pair is not None and (self.words or self.spans):
            raise InputError("it is a pair; words and spans, and details of them, are of single texts")
        if not self.spans:
            return
        if record.words is not None:
            raise InputError("it has given words, and spans(...) are characters of a text")
        if record.spans is None:
            raise InputError("it has no spans (--spans-column; Record(spans=...))")
        for begin, end in record.spans:
            if not 0 <= begin < end <= len(record.text):
                raise InputError(
                    f"span [{begin}, {end}): expected characters with 0 <= begin < end <= {len(record.text)}, the "
                    "length of the text"
                )

    @staticmethod
    def _rows(chars: IntArray, text: EncodedText) -> IntArray:
        assert text.offsets is not None
        begin, end = text.content
        return rows_under(chars, text.offsets[begin:end])


def given_chars(words: Sequence[str]) -> IntArray:
    """Return int32 [W, 2], the characters of given words in the text that joins them with spaces."""
    lengths = np.fromiter(map(len, words), dtype=np.int32, count=len(words))
    ends = np.cumsum(lengths + 1, dtype=np.int32) - np.int32(1)
    return np.stack([ends - lengths, ends], axis=1)


def _given(text: EncodedText, num_words: int) -> IntArray:
    assert text.word_ids is not None
    begin, end = text.content
    return rows_of_words(text.word_ids[begin:end], num_words)


def edges_of(record: Record, text: EncodedText, finder: UnitFinder, *, prompt: str) -> npt.NDArray[np.bool_]:
    """Return bool [n + 1]: where a window may begin or end without cutting a word."""
    begin, end = text.content
    if text.word_ids is not None:
        return word_edges(_given(text, len(record.words or ())), end - begin)
    assert text.offsets is not None
    chars = finder.word_chars(record if not prompt else replace(record, text=prompt + record.text, words=None))
    return word_edges(rows_under(chars, text.offsets[begin:end]), end - begin)
