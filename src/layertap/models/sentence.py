"""What a sentence-transformers folder says of itself, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SentencePooling = Literal["cls", "max", "mean", "mean_sqrt_len", "weighted_mean", "last"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SentenceEmbeddingSpec:
    """The recipe behind `sentence_embedding`.

    Attributes:
        poolings: token poolings over `last_hidden_state`, special tokens included, in the order in which
            sentence-transformers joins them (cls, max, mean, mean_sqrt_len, weighted_mean, last).
        normalize: whether the joined vector is scaled to length 1.
        max_length: the folder's `max_seq_length`, special tokens included, or None: the model's own limit.
        refusal: why layertap cannot compute it (a module it does not know, a default prompt), or None.
            Where it is set, the other fields mean nothing.
    """

    poolings: tuple[SentencePooling, ...] = ("mean",)
    normalize: bool = False
    max_length: int | None = None
    refusal: str | None = None
