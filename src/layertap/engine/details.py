"""What can be had beside features: ids, characters and strings of tokens and words, and what was cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from layertap.engine.preparing import PreparedText
from layertap.engine.variants import Shown
from layertap.errors import OptionError
from layertap.packing import IntArray, simple_segments
from layertap.records import Array, Feature, FeatureSchema, Ragged
from layertap.text.encoded import EncodedText
from layertap.text.tokenizer import TextTokenizer
from layertap.text.units import given_chars

TOKEN_DETAILS = ("token_ids", "token_offsets", "token_special", "token_words", "token_strings")
WORD_DETAILS = ("word_offsets", "word_texts")
RECORD_DETAILS = ("cut_tokens", "num_windows")
NAMES = (*TOKEN_DETAILS, *WORD_DETAILS, *RECORD_DETAILS)

WITH_WORDS = frozenset({"token_words", *WORD_DETAILS})
"""Details that need words, also where no feature does."""

_DTYPES: dict[str, Literal["bool", "str"]] = {"token_special": "bool", "token_strings": "str", "word_texts": "str"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Details:
    """Details of texts as one input of the plan sees them (`InputVariants.shown`).

    Attributes:
        names: which, in output order.
        tokenizer: what made the tokens.
        shown: that input.
    """

    names: tuple[str, ...]
    tokenizer: TextTokenizer
    shown: Shown

    @property
    def schemas(self) -> tuple[FeatureSchema, ...]:
        """Of the details, in output order."""
        return tuple(
            FeatureSchema(
                name=name,
                dtype=_DTYPES.get(name, "int32"),
                shape=(2,) if name.endswith("_offsets") else (),
                ragged=name not in RECORD_DETAILS,
            )
            for name in self.names
        )

    def of(self, texts: Sequence[PreparedText]) -> dict[str, Feature]:
        """Name -> array or `Ragged`, for consecutive records."""
        found: dict[str, Feature] = {}
        for name in self.names:
            values = [self._value(name, text) for text in texts]
            if name in RECORD_DETAILS:
                found[name] = np.array(values, dtype=np.int32)
            else:
                found[name] = Ragged.from_rows(values)
        return found

    def _value(self, name: str, text: PreparedText) -> Any:
        make: Callable[[PreparedText], Any] = getattr(self, f"_{name}")
        return make(text)

    def _tokens(self, text: PreparedText) -> EncodedText:
        """The tokens that features see: of a text in windows all of them, as if it was one sequence."""
        sequences = text.cuts[self.shown.number].sequences
        return sequences[0] if len(sequences) == 1 else text.texts[self.shown.place]

    def _token_ids(self, text: PreparedText) -> IntArray:
        return self._tokens(text).input_ids

    def _token_special(self, text: PreparedText) -> Array:
        tokens = self._tokens(text)
        special = np.ones(len(tokens), dtype=bool)
        for begin, end in (tokens.content, tokens.pair_content or (0, 0)):
            special[begin:end] = False
        return special

    def _token_offsets(self, text: PreparedText) -> IntArray:
        tokens = self._tokens(text)
        assert tokens.offsets is not None
        if tokens.word_ids is None:  # (0, 0) for the prompt's tokens, too
            unprompted: IntArray = np.maximum(tokens.offsets - np.int32(self.shown.shift), 0)
            return unprompted
        begins = np.concatenate(
            [given_chars(text.record.words or ())[:, 0], [0]]
        )  # the last one for the template's, -1
        shifted: IntArray = (tokens.offsets + begins[tokens.word_ids][:, None]).astype(np.int32)
        return shifted

    def _token_words(self, text: PreparedText) -> IntArray:
        tokens = self._tokens(text)
        assert text.units is not None
        assert text.units.words is not None
        whole = text.texts[self.shown.place]
        word_of = np.full(whole.content[1] - whole.content[0], -1, dtype=np.int32)
        rows = simple_segments(text.units.words[:, 0], text.units.words[:, 1])
        owners = np.repeat(np.arange(len(rows)), rows.counts())
        word_of[rows.rows()[::-1]] = owners[::-1]  # of words that share a token the first one counts
        begin, end = tokens.content
        windows = text.cuts[self.shown.number].windows
        first = windows[0].begin if len(windows) == 1 else 0
        words = np.full(len(tokens), -1, dtype=np.int32)
        words[begin:end] = word_of[first : first + end - begin]
        return words

    def _token_strings(self, text: PreparedText) -> Array:
        strings = [self.tokenizer.backend.id_to_token(i) for i in self._tokens(text).input_ids.tolist()]
        return np.array(strings, dtype=object)

    def _word_offsets(self, text: PreparedText) -> IntArray:
        assert text.units is not None
        assert text.units.word_chars is not None
        return text.units.word_chars

    def _word_texts(self, text: PreparedText) -> Array:
        words = text.record.words
        if words is None:
            words = tuple(text.record.text[begin:end] for begin, end in self._word_offsets(text).tolist())
        found = np.empty(len(words), dtype=object)
        found[:] = words
        return found

    def _cut_tokens(self, text: PreparedText) -> int:
        cut = text.cuts[self.shown.number]
        return sum(sequence.cut_tokens for sequence in cut.sequences) if len(cut.sequences) == 1 else 0

    def _num_windows(self, text: PreparedText) -> int:
        return len(text.cuts[self.shown.number].sequences)


def checked_names(details: bool | Sequence[str]) -> tuple[str, ...]:
    """The details that a user asks for; True: all.

    Raises:
        OptionError: a name that is none, or one twice.
    """
    if isinstance(details, bool):
        return NAMES if details else ()
    if isinstance(details, str):
        raise OptionError(f"details {details!r}: expected a list of names, or True for all")
    for name in details:
        if name not in NAMES:
            raise OptionError(f"details: no detail is called {name!r}; there are {', '.join(NAMES)}")
        if list(details).count(name) > 1:
            raise OptionError(f"details: {name!r} is there twice")
    return tuple(details)
