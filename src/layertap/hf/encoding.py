"""`BatchEncoding`, the result of calling a tokenizer."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import torch

from layertap.errors import OptionError

if TYPE_CHECKING:
    from tokenizers import Encoding


class CharSpan(NamedTuple):
    """Range of characters in a text, from `start` to before `end`."""

    start: int
    end: int


class TokenSpan(NamedTuple):
    """Range of tokens in a row, from `start` to before `end`."""

    start: int
    end: int


class BatchEncoding(UserDict[str, Any]):
    """Dictionary of `input_ids`, `attention_mask` and so on, with attribute access; `model(**encoding)` runs it.

    Attributes:
        data: the dictionary; its values are lists, or tensors if `return_tensors` asked for them.
        encodings: one `tokenizers.Encoding` per row, or None if there are none (after `pad`).
    """

    def __init__(
        self,
        data: Mapping[str, Any] | None = None,
        encodings: Sequence[Encoding] | None = None,
        tensor_type: str | None = None,
    ) -> None:
        super().__init__()
        self.data = dict(data or {})
        self.encodings = encodings
        self.convert_to_tensors(tensor_type)

    def __getitem__(self, key: Any) -> Any:
        """Return the entry named `key`, or, for an index or a slice, the `tokenizers.Encoding`s of those rows.

        Without encodings, a slice returns those rows of every entry.
        """
        if isinstance(key, str):
            return self.data[key]
        if isinstance(key, slice) and self.encodings is None:
            return {name: value[key] for name, value in self.data.items()}
        return self._encoding(key)

    def __getattr__(self, name: str) -> Any:
        if name != "data" and name in self.data:  # `data` is not there yet while unpickling
            return self.data[name]
        raise AttributeError(f"BatchEncoding has no {name!r}")

    @property
    def is_fast(self) -> bool:
        """Whether the batch has `encodings`, as in transformers."""
        return self.encodings is not None

    def _encoding(self, batch_index: Any) -> Any:
        if self.encodings is None:
            raise OptionError("tokens and offsets are known of a tokenizer's own results only, not after pad()")
        return self.encodings[batch_index]

    @property
    def n_sequences(self) -> int | None:
        """Number of texts in each row: 1, or 2 for pairs; None without encodings."""
        if not self.encodings:
            return None
        count: int = self.encodings[0].n_sequences
        return count

    def tokens(self, batch_index: int = 0) -> list[str]:
        """Return the tokens of a row as strings."""
        tokens: list[str] = self._encoding(batch_index).tokens
        return tokens

    def word_ids(self, batch_index: int = 0) -> list[int | None]:
        """Return the index of the word of each token of a row, None for special tokens of the template."""
        words: list[int | None] = self._encoding(batch_index).word_ids
        return words

    def sequence_ids(self, batch_index: int = 0) -> list[int | None]:
        """Return the index (0 or 1) of the text of each token of a row, None for special tokens of the template."""
        sequences: list[int | None] = self._encoding(batch_index).sequence_ids
        return sequences

    # Each of these takes a row and an index in it, or an index in row 0 alone.

    def token_to_sequence(self, batch_or_token_index: int, token_index: int | None = None) -> int | None:
        """Return the index (0 or 1) of the text of a token of row 0, or of the row given first."""
        encoding, token = self._token(batch_or_token_index, token_index)
        sequence: int | None = encoding.token_to_sequence(token)
        return sequence

    def token_to_word(self, batch_or_token_index: int, token_index: int | None = None) -> int | None:
        """Return the index of the word of a token of row 0, or of the row given first."""
        encoding, token = self._token(batch_or_token_index, token_index)
        # the library counts words within their text
        word: tuple[int, int] | int | None = encoding.token_to_word(token)
        return word[1] if isinstance(word, tuple) else word

    def token_to_chars(self, batch_or_token_index: int, token_index: int | None = None) -> CharSpan | None:
        """Return the characters of a token of row 0, or of the row given first."""
        encoding, token = self._token(batch_or_token_index, token_index)
        span = encoding.token_to_chars(token)
        return None if span is None else CharSpan(*span)

    def word_to_tokens(
        self, batch_or_word_index: int, word_index: int | None = None, sequence_index: int = 0
    ) -> TokenSpan | None:
        """Return the tokens of a word of row 0, or of the row given first."""
        encoding, word = self._part(batch_or_word_index, word_index)
        span = encoding.word_to_tokens(word, sequence_index)
        return None if span is None else TokenSpan(*span)

    def word_to_chars(
        self, batch_or_word_index: int, word_index: int | None = None, sequence_index: int = 0
    ) -> CharSpan | None:
        """Return the characters of a word of row 0, or of the row given first."""
        encoding, word = self._part(batch_or_word_index, word_index)
        span = encoding.word_to_chars(word, sequence_index)
        return None if span is None else CharSpan(*span)

    def char_to_token(
        self, batch_or_char_index: int, char_index: int | None = None, sequence_index: int = 0
    ) -> int | None:
        """Return the index of the token that covers a character of row 0, or of the row given first."""
        encoding, char = self._part(batch_or_char_index, char_index)
        token: int | None = encoding.char_to_token(char, sequence_index)
        return token

    def char_to_word(
        self, batch_or_char_index: int, char_index: int | None = None, sequence_index: int = 0
    ) -> int | None:
        """Return the index of the word that holds a character of row 0, or of the row given first."""
        encoding, char = self._part(batch_or_char_index, char_index)
        word: int | None = encoding.char_to_word(char, sequence_index)
        return word

    def _part(self, first: int, second: int | None) -> tuple[Any, int]:
        """Return the encoding of a row, and the index in it that a call means.

        Raises:
            OptionError: there is no such row, or the index is negative.
        """
        row, index = (0, first) if second is None else (first, second)
        if index < 0:
            raise OptionError(f"index {index}: words and characters are counted from 0")
        return self._row(row), index

    def _token(self, first: int, second: int | None) -> tuple[Any, int]:
        """Return the encoding of a row, and the index of a token in it; negative ones count from its end."""
        row, index = (0, first) if second is None else (first, second)
        encoding = self._row(row)
        return encoding, index + len(encoding) if index < 0 else index

    def _row(self, row: int) -> Any:
        try:
            return self._encoding(row)
        except IndexError:
            raise OptionError(f"row {row}: the batch has {len(self.encodings or ())} rows") from None

    def convert_to_tensors(self, tensor_type: str | None = None) -> Self:
        """Convert lists, arrays and tensors to tensors ("pt") or arrays ("np"), in place.

        Raises:
            OptionError: the type is unknown, or the rows have different lengths.
        """
        if tensor_type is None:
            return self
        makers: dict[str, Callable[[Any], Any]] = {"pt": _torch, "np": _numpy}
        if tensor_type not in makers:
            raise OptionError(f"return_tensors: expected 'pt', 'np' or None, found {tensor_type!r}")
        for name, value in self.data.items():
            try:
                self.data[name] = makers[tensor_type](value)
            except (ValueError, TypeError) as error:
                raise OptionError(
                    f"{name}: rows of different lengths cannot become one tensor; "
                    "tokenize with padding=True (and truncation=True where texts can be too long)"
                ) from error
        return self

    def to(self, device: str | int | torch.device, *, non_blocking: bool = False) -> Self:
        """Move the tensors to a device, in place."""
        for name, value in self.data.items():
            if isinstance(value, torch.Tensor):
                self.data[name] = value.to(device, non_blocking=non_blocking)
        return self


def _numpy(value: Any) -> np.ndarray[Any, Any]:
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)


def _torch(value: Any) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return value
    # an empty list has no dtype of its own
    made = torch.as_tensor(np.asarray(value)) if isinstance(value, np.ndarray) else torch.tensor(value)
    return made if made.numel() else made.long()
