"""Details of tokens and words beside features: ids, offsets and strings, and what was cut off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from layertap.engine.preparing import PreparedText
from layertap.engine.variants import DetailInput
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
"""Details that need words, even where no feature does."""


def _axes(name: str) -> tuple[str, ...]:
    """Return the names of a detail's axes; `edge` is where a range begins and ends."""
    if name in RECORD_DETAILS:
        return ()
    return ("word" if name in WORD_DETAILS else "token", *(("edge",) if name.endswith("_offsets") else ()))


_DTYPES: dict[str, Literal["bool", "str"]] = {"token_special": "bool", "token_strings": "str", "word_texts": "str"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Details:
    """Details of texts, found in the tokens of one input of the plan.

    Attributes:
        names: names of the details, in output order.
        tokenizer: tokenizer of the model.
        detail_input: input whose tokens are described.
    """

    names: tuple[str, ...]
    tokenizer: TextTokenizer
    detail_input: DetailInput

    @property
    def schemas(self) -> tuple[FeatureSchema, ...]:
        """Schemas of the details, in output order."""
        return tuple(
            FeatureSchema(
                name=name,
                dtype=_DTYPES.get(name, "int32"),
                shape=(2,) if name.endswith("_offsets") else (),
                ragged=name not in RECORD_DETAILS,
                axes=_axes(name),
            )
            for name in self.names
        )

    def of(self, texts: Sequence[PreparedText]) -> dict[str, Feature]:
        """Return the details of consecutive records by name: arrays, or `Ragged`."""
        details: dict[str, Feature] = {}
        for name in self.names:
            values = [self._value(name, text) for text in texts]
            if name in RECORD_DETAILS:
                details[name] = np.array(values, dtype=np.int32)
            else:
                details[name] = Ragged.from_rows(values)
        return details

    def _value(self, name: str, text: PreparedText) -> Any:
        make: Callable[[PreparedText], Any] = getattr(self, f"_{name}")
        return make(text)

    def _tokens(self, text: PreparedText) -> EncodedText:
        """Return the tokens that features see; a text in windows counts as one sequence."""
        sequences = text.cuts[self.detail_input.number].sequences
        return sequences[0] if len(sequences) == 1 else text.texts[self.detail_input.variant]

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
        if tokens.word_ids is None:  # tokens of the prompt get (0, 0) as well
            unprompted: IntArray = np.maximum(tokens.offsets - np.int32(self.detail_input.prompt_chars), 0)
            return unprompted
        # Special tokens have the word index -1, which takes the last entry.
        begins = np.concatenate([given_chars(text.record.words or ())[:, 0], [0]])
        shifted: IntArray = (tokens.offsets + begins[tokens.word_ids][:, None]).astype(np.int32)
        return shifted

    def _token_words(self, text: PreparedText) -> IntArray:
        tokens = self._tokens(text)
        assert text.units is not None
        assert text.units.words is not None
        whole = text.texts[self.detail_input.variant]
        word_of = np.full(whole.content[1] - whole.content[0], -1, dtype=np.int32)
        rows = simple_segments(text.units.words[:, 0], text.units.words[:, 1])
        owners = np.repeat(np.arange(len(rows)), rows.counts())
        word_of[rows.rows()[::-1]] = owners[::-1]  # a token that several words share belongs to the first one
        begin, end = tokens.content
        windows = text.cuts[self.detail_input.number].windows
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
        texts = np.empty(len(words), dtype=object)
        texts[:] = words
        return texts

    def _cut_tokens(self, text: PreparedText) -> int:
        cut = text.cuts[self.detail_input.number]
        return sum(sequence.cut_tokens for sequence in cut.sequences) if len(cut.sequences) == 1 else 0

    def _num_windows(self, text: PreparedText) -> int:
        return len(text.cuts[self.detail_input.number].sequences)


def checked_names(details: bool | Sequence[str]) -> tuple[str, ...]:
    """Return the names of the details that a user asks for; True stands for all of them.

    Raises:
        OptionError: a name is unknown, or is given twice.
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
