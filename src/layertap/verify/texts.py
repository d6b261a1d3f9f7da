"""The texts that a model is verified on where the user names none."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from hashlib import sha256
from importlib import resources


def built_in_texts(count_tokens: Callable[[str], int], max_length: int) -> list[str]:
    """Texts in many languages and of many kinds, an empty one first, one beyond `max_length` tokens last.

    Args:
        count_tokens: tokens of a text, special tokens included.
        max_length: the limit.
    """
    stored: dict[str, str] = json.loads(resources.files("layertap.verify").joinpath("texts.json").read_text("utf-8"))
    texts = list(stored.values())
    # Without the special tokens that are typed in one of them.
    everything = " ".join(text for name, text in stored.items() if name != "typed special tokens")
    copies = max_length // max(1, count_tokens(everything) - count_tokens("")) + 1
    longest = " ".join([everything] * copies)
    return [*texts, longest]


def hash_of(texts: Sequence[str]) -> str:
    """Hexadecimal sha256 of the texts as a JSON list, so that a certificate says which ones it stands for."""
    return sha256(json.dumps(texts).encode("ascii")).hexdigest()
