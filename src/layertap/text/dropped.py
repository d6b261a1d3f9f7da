"""Control characters that a SentencePiece normalizer drops at the beginning of a text.

The `tokenizers` library normalizes the stretches between the special tokens typed in a text one by one. It counts the
characters of a stretch from the first one that is kept, so that all offsets in it are too small by the number of those
that were dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def drops_unseen(backend: Tokenizer) -> bool:
    """Whether the normalizer of a tokenizer has a part whose offsets are wrong after dropped characters."""
    return backend.normalizer is not None and b'"Precompiled"' in backend.normalizer.__getstate__()


def with_dropped(
    backend: Tokenizer, text: str, ids: npt.NDArray[np.int32], offsets: npt.NDArray[np.int32]
) -> npt.NDArray[np.int32]:
    """Return the offsets of the tokens of a text with the characters counted that were dropped, int32 [n, 2].

    Args:
        ids: ids of the text's own tokens, without those of the template, int32 [n].
        offsets: their offsets as the library gives them, int32 [n, 2].
    """
    special = {i: token.content for i, token in backend.get_added_tokens_decoder().items() if not token.normalized}
    corrected = offsets.copy()
    shift = num_dropped(backend, text)
    for i, (token_id, (begin, end)) in enumerate(zip(ids.tolist(), offsets.tolist(), strict=True)):
        if token_id in special and text[begin:end].strip() == special[token_id]:
            shift = num_dropped(backend, text, end)
        else:
            corrected[i] += shift
    return corrected


def num_dropped(backend: Tokenizer, text: str, begin: int = 0) -> int:
    """Count the control characters from a place in a text on that the normalizer drops."""
    end = begin
    while end < len(text) and is_control(text[end]) and not backend.normalizer.normalize_str(text[end]):
        end += 1
    return end - begin


def is_control(character: str) -> bool:
    """Whether a character is a control character, C0, DEL or C1."""
    return character < " " or "\x7f" <= character <= "\x9f"
