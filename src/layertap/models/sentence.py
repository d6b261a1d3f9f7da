"""Sentence embeddings that sentence-transformers folders declare, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:  # features are parsed without numpy
    import numpy as np
    import numpy.typing as npt

    Floats: TypeAlias = npt.NDArray[np.float32]

SentencePooling = Literal["cls", "max", "mean", "mean_sqrt_len", "weighted_mean", "last"]
DenseActivation = Literal["identity", "tanh", "relu", "gelu", "sigmoid", "silu"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dense:
    """`activation(x @ weight.T + bias)`, and `x` or `x @ residual.T` added to it where there is a residual.

    Equal only to itself.

    Attributes:
        weight: float32 [D, C]: C numbers a vector become D.
        bias: float32 [D], or None.
        activation: of the sum, before the residual is added; `gelu` is the erf form.
        residual: "none", "identity" (where C is D), or float32 [D, C].
    """

    weight: Floats
    bias: Floats | None
    activation: DenseActivation
    residual: Floats | Literal["none", "identity"] = "none"

    @property
    def size(self) -> int:
        """Size D of the vectors after this step."""
        return len(self.weight)

    def __str__(self) -> str:
        bias = "" if self.bias is None else ", bias"
        residual = "" if isinstance(self.residual, str) and self.residual == "none" else ", residual"
        return f"dense({self.size}, {self.activation}{bias}{residual})"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerNorm:
    """Vectors shifted and scaled to mean 0 and variance 1, times `weight` plus `bias`, float32 [D] each.

    Equal only to itself.
    """

    weight: Floats
    bias: Floats
    eps: float = 1e-5

    @property
    def size(self) -> int:
        """Size D of the vectors after this step."""
        return len(self.weight)

    def __str__(self) -> str:
        return f"layer_norm({self.size})"


SentenceStep: TypeAlias = Dense | LayerNorm | Literal["normalize"]
"""Step after the pooling; `normalize` scales the vector to length 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SentenceEmbeddingSpec:
    """The recipe behind `sentence_embedding`.

    Attributes:
        layer_weights: number of a hidden state -> its weight in the sum that is pooled; None: the last alone.
        poolings: token poolings, special tokens included, in the order in which sentence-transformers joins them (cls,
            max, mean, mean_sqrt_len, weighted_mean, last).
        include_prompt: False: the prompt's tokens, and what the template puts before them, are left out of pooling.
        steps: what happens to the joined vector, in order.
        truncate: numbers kept of the vector at the very end, or None: all.
        max_length: the folder's `max_seq_length`, special tokens included, or None: the model's own limit.
        lowercase: texts are lower-cased before they are tokenised.
        prompts: name -> prompt, those of the folder that hold a text.
        default_prompt: the name of the one that is put before every text, or None: none is.
        files: names of the files that this was read from.
        refusal: why layertap cannot compute it (a module it does not know), or None. Where it is set, the other
            fields, `files` apart, mean nothing.
    """

    layer_weights: Mapping[int, float] | None = None
    poolings: tuple[SentencePooling, ...] = ("mean",)
    include_prompt: bool = True
    steps: tuple[SentenceStep, ...] = ()
    truncate: int | None = None
    max_length: int | None = None
    lowercase: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    files: tuple[str, ...] = field(default=(), compare=False)
    refusal: str | None = None
