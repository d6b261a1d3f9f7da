"""Provide the texts that a model is verified on by default."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from hashlib import sha256
from importlib import resources


def built_in_texts(count_tokens: Callable[[str], int], max_length: int) -> list[str]:
    """Returns texts in many languages and of many kinds, the first empty, the last longer than the limit.

    Args:
        count_tokens: function that counts the tokens of a text, special tokens included.
        max_length: limit of the model in tokens.
    """
    stored: dict[str, str] = json.loads(resources.files("layertap.verify").joinpath("texts.json").read_text("utf-8"))
    texts = list(stored.values())
    # The long text leaves out the one with typed special tokens, which would be many.
    everything = " ".join(text for name, text in stored.items() if name != "typed special tokens")
    copies = max_length // max(1, count_tokens(everything) - count_tokens("")) + 1
    longest = " ".join([everything] * copies)
    return [*texts, longest]


def hash_of(texts: Sequence[str]) -> str:
    """Hashes the texts as a JSON list (hexadecimal sha256), to identify them in a certificate."""
    return sha256(json.dumps(texts).encode("ascii")).hexdigest()
