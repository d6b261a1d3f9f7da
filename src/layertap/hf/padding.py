"""Interpretation of a tokenizer's arguments (texts, pairs, padding, truncation), and padding of encoded rows."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from layertap.errors import OptionError

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

PADDING: Mapping[bool | str, Literal["longest", "max_length"] | None] = {
    True: "longest",
    "longest": "longest",
    "max_length": "max_length",
    False: None,
    "do_not_pad": None,
}
TRUNCATION: Mapping[bool | str | None, Literal["longest_first", "only_first", "only_second"] | None] = {
    True: "longest_first",
    "longest_first": "longest_first",
    "only_first": "only_first",
    "only_second": "only_second",
    False: None,
    None: None,
    "do_not_truncate": None,
}
NO_LIMIT = int(1e20)
"""Values of `model_max_length` above this mean that there is no limit, as in transformers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Padding and truncation of a call.

    Attributes:
        pad: whether rows are padded to the longest row, to `max_length`, or not at all.
        truncate: which text of a pair is truncated first, or None for no truncation.
        max_length: the length for padding and truncation, or None.
        multiple: number of which padded lengths are multiples, or None.
    """

    pad: Literal["longest", "max_length"] | None
    truncate: Literal["longest_first", "only_first", "only_second"] | None
    max_length: int | None
    multiple: int | None


def resolve_lengths(
    padding: bool | str,
    truncation: bool | str | None,
    max_length: int | None,
    *,
    model_max_length: int,
    pad_to_multiple_of: int | None = None,
    warn: bool = True,
) -> Lengths:
    """Interpret the arguments `padding`, `truncation` and `max_length` as transformers 5 does.

    `max_length` alone truncates. Without it, the limit of the tokenizer is used; if it has none, rows are neither
    padded nor truncated to a fixed length.

    Raises:
        OptionError: an argument has an invalid value, or two arguments exclude each other.
    """
    if max_length is not None and padding is False and truncation is None:
        truncation = True
    pad = _one_of("padding", padding, PADDING)
    truncate = _one_of("truncation", truncation, TRUNCATION)
    if warn and padding is True and max_length is not None and truncate is None:
        warnings.warn(
            "max_length is ignored with padding=True and no truncation; padding='max_length' pads to it",
            UserWarning,
            stacklevel=4,
        )
    if max_length is None:
        if model_max_length > NO_LIMIT:
            pad, truncate = (None if pad == "max_length" else pad), None
        elif pad == "max_length" or truncate:
            max_length = model_max_length
    elif max_length < 0:
        raise OptionError(f"max_length: expected 0 or more, found {max_length}")
    if pad and truncate and pad_to_multiple_of and max_length is not None and max_length % pad_to_multiple_of:
        raise OptionError(
            f"max_length {max_length} is not a multiple of pad_to_multiple_of {pad_to_multiple_of}, and both "
            "truncation and padding are on"
        )
    return Lengths(pad=pad, truncate=truncate, max_length=max_length, multiple=pad_to_multiple_of)


def _one_of(name: str, value: Any, allowed: Mapping[Any, Any]) -> Any:
    # 1 == True, and a list has no hash
    if not (value is None or isinstance(value, bool | str)) or value not in allowed:
        raise OptionError(f"{name}: expected one of {', '.join(map(repr, allowed))}, found {value!r}")
    return allowed[value]


def encode_batch(
    backend: Tokenizer,
    inputs: list[Any],
    lengths: Lengths,
    *,
    truncation_side: str,
    stride: int,
    pad_with: Mapping[str, Any],
    add_special_tokens: bool,
    is_pretokenized: bool,
) -> list[Encoding]:
    """Encode texts with the given padding and truncation, which remain set on the backend tokenizer.

    The caller must make sure that no other thread uses the backend tokenizer.

    Args:
        backend: the backend tokenizer.
        inputs: the texts, as `text_inputs` returns them.
        lengths: padding and truncation.
        truncation_side, stride: the side to truncate, and the number of tokens that overflowing rows repeat.
        pad_with: arguments of `enable_padding` for the side and the token.
        add_special_tokens, is_pretokenized: as in the `tokenizers` library.

    Raises:
        OptionError: the limit leaves no room for tokens of the text, or a text has a lone surrogate.
    """
    backend.no_truncation()
    backend.no_padding()
    try:
        if lengths.truncate and lengths.max_length is not None:
            backend.enable_truncation(
                lengths.max_length, stride=stride, strategy=lengths.truncate, direction=truncation_side
            )
        if lengths.pad:
            backend.enable_padding(
                length=lengths.max_length if lengths.pad == "max_length" else None,
                pad_to_multiple_of=lengths.multiple,
                **pad_with,
            )
        return backend.encode_batch(inputs, add_special_tokens=add_special_tokens, is_pretokenized=is_pretokenized)
    except TypeError as error:  # what is not a str was refused before
        raise OptionError("a text holds a lone surrogate (half of a character); replace it first") from error
    except BaseException as error:
        # the library raises bare exceptions, and panics of its own kind, on limits that leave no room
        if type(error) not in (Exception, ValueError) and type(error).__name__ != "PanicException":
            raise
        raise OptionError(f"max_length {lengths.max_length} with stride {stride} cannot be kept: {error}") from error


def to_lists(value: Any) -> Any:
    """Convert tensors, arrays and lists of them to lists of numbers."""
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        return value.tolist()
    return [to_lists(item) for item in value] if isinstance(value, list | tuple) else value


def tensor_type(value: Any) -> str | None:
    """Return the tensor type of a value: "pt" for tensors, "np" for arrays, None for numbers."""
    while isinstance(value, list | tuple) and value:
        value = value[0]
    if isinstance(value, torch.Tensor):
        return "pt"
    return "np" if isinstance(value, np.ndarray | np.generic) else None


def pad_rows(
    rows: Mapping[str, Sequence[Any]], lengths: Lengths, fills: Mapping[str, int], *, left: bool
) -> dict[str, list[Any]]:
    """Pad encoded rows to one length.

    Args:
        rows: for each name, one list per row; `input_ids` is required.
        lengths: the padding to apply.
        fills: for each name to be padded, the number to pad with.
        left: whether to pad on the left.
    """
    longest = max((len(ids) for ids in rows["input_ids"]), default=0)
    target = longest if lengths.pad == "longest" else lengths.max_length or 0
    if lengths.multiple and lengths.pad:
        target = -(-target // lengths.multiple) * lengths.multiple
    padded: dict[str, list[Any]] = {}
    for name, values in rows.items():
        if name not in fills or not lengths.pad:
            padded[name] = list(values)
            continue
        padded[name] = []
        for row in values:
            missing = [fills[name]] * (target - len(row))
            padded[name].append([*missing, *row] if left else [*row, *missing])
    return padded


def text_inputs(text: Any, text_pair: Any, is_split_into_words: bool) -> tuple[list[Any], bool]:
    """Convert texts to the inputs of the `tokenizers` library, and return them with whether they are a batch.

    Raises:
        OptionError: an input is not a text, a list of words, or a pair of either.
    """
    first = text[0] if isinstance(text, list | tuple) and text else None
    is_batch = isinstance(first, list | tuple) if is_split_into_words else isinstance(text, list | tuple)
    if not is_batch:
        # as in transformers, an empty second text is none
        inputs = [(text, text_pair)] if text_pair else [text]
    elif text_pair is None:
        inputs = list(text)
    elif not isinstance(text_pair, list | tuple) or len(text_pair) != len(text):
        raise OptionError(f"text_pair: expected a list of {len(text)} texts, one for each text")
    else:
        inputs = list(zip(text, text_pair, strict=True))
    for i, one in enumerate(inputs):
        if not _is_text(one, is_split_into_words):
            kind = "list of words" if is_split_into_words else "str"
            kinds = ", ".join(type(part).__name__ for part in one) if isinstance(one, list | tuple) else None
            raise OptionError(
                f"text {i}: expected a {kind} or a pair of them, found {kinds or type(one).__name__}"
                + ("; is_split_into_words=True is for texts that are lists of words" if isinstance(one, list) else "")
            )
    return inputs, is_batch


def _is_text(one: Any, is_split_into_words: bool) -> bool:
    def single(value: Any) -> bool:
        if is_split_into_words:
            return isinstance(value, list | tuple) and all(isinstance(word, str) for word in value)
        return isinstance(value, str)

    return single(one) or (isinstance(one, list | tuple) and len(one) == 2 and all(single(part) for part in one))
