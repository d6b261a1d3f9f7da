"""Control characters at the beginning of a text that a SentencePiece normalizer drops.

The `tokenizers` library counts the characters of such a text from the first one that is kept, so that all its offsets
are too small by the number of those that were dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def drops_unseen(backend: Tokenizer) -> bool:
    """Whether the normalizer of a tokenizer has a part whose offsets are wrong after dropped characters."""
    return backend.normalizer is not None and b'"Precompiled"' in backend.normalizer.__getstate__()


def num_dropped(backend: Tokenizer, text: str) -> int:
    """Count the control characters at the beginning of a text that the normalizer drops."""
    count = 0
    while count < len(text) and is_control(text[count]) and not backend.normalizer.normalize_str(text[count]):
        count += 1
    return count if count < len(text) else 0


def is_control(character: str) -> bool:
    """Whether a character is a control character, C0, DEL or C1."""
    return character < " " or "\x7f" <= character <= "\x9f"
