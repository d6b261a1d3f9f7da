"""What an architecture is, as data that backends interpret.

Canonical weight names are those of transformers' `BertModel` (`encoder.layer.0.attention.self.query.weight`);
`KeyRule`s lead from a checkpoint's own names to them and back.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from layertap.models.config import ConfigReader

Activation = Literal["gelu", "gelu_tanh", "relu", "silu"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionTable:
    """Learned absolute positions.

    Attributes:
        rows: rows of the table (`max_position_embeddings`).
        padding_id: None: positions are 0, 1, 2, ... (BERT). Otherwise they come from the ids, as in
            RoBERTa: a token equal to `padding_id` sits on row `padding_id` and is not counted, the others on
            `padding_id + 1, padding_id + 2, ...`.
    """

    rows: int
    padding_id: int | None = None

    @property
    def max_length(self) -> int:
        """Tokens that a sequence can have, special tokens included."""
        return self.rows if self.padding_id is None else self.rows - self.padding_id - 1

    def position_ids(self, input_ids: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """int32 [T], the rows of the position table for one sequence's ids [T]."""
        if self.padding_id is None:
            return np.arange(len(input_ids), dtype=np.int32)
        counted = input_ids != self.padding_id
        positions: npt.NDArray[np.int32] = (np.cumsum(counted) * counted + self.padding_id).astype(np.int32)
        return positions


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSpec:
    """One encoder: architecture and numbers, no weights.

    Post-norm transformer blocks with learned absolute positions:
    `h0 = norm(word + type + position)`, then per block `a = norm(h + out(attention(h)))`,
    `h = norm(a + down(act(up(a))))`. Source: Devlin et al. 2019, and transformers' BertModel.

    Attributes carry the names of Hugging Face configs. `pooler` says that the architecture has one
    (dense + tanh on the first token's last state); whether a checkpoint stores it is the checkpoint's.
    `pad_token_id` is the row of the word table that gets no gradient.
    """

    architecture: str
    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_act: Activation
    layer_norm_eps: float
    positions: PositionTable
    type_vocab_size: int
    pad_token_id: int | None
    hidden_dropout_prob: float
    attention_probs_dropout_prob: float
    pooler: bool = True

    @property
    def head_size(self) -> int:
        """D."""
        return self.hidden_size // self.num_attention_heads

    @property
    def num_states(self) -> int:
        """L + 1: the embedding output and every block's."""
        return self.num_hidden_layers + 1

    def parameters(self) -> dict[str, tuple[int, ...]]:
        """Canonical weight name -> shape, the pooler's included where the architecture has one."""
        h, f = self.hidden_size, self.intermediate_size
        shapes: dict[str, tuple[int, ...]] = {
            "embeddings.word_embeddings.weight": (self.vocab_size, h),
            "embeddings.position_embeddings.weight": (self.positions.rows, h),
            "embeddings.token_type_embeddings.weight": (self.type_vocab_size, h),
            "embeddings.LayerNorm.weight": (h,),
            "embeddings.LayerNorm.bias": (h,),
        }
        for i in range(self.num_hidden_layers):
            layer = f"encoder.layer.{i}."
            for name, rows, columns in (
                ("attention.self.query", h, h),
                ("attention.self.key", h, h),
                ("attention.self.value", h, h),
                ("attention.output.dense", h, h),
                ("intermediate.dense", f, h),
                ("output.dense", h, f),
            ):
                shapes[f"{layer}{name}.weight"] = (rows, columns)
                shapes[f"{layer}{name}.bias"] = (rows,)
            for name in ("attention.output.LayerNorm", "output.LayerNorm"):
                shapes[f"{layer}{name}.weight"] = (h,)
                shapes[f"{layer}{name}.bias"] = (h,)
        if self.pooler:
            shapes["pooler.dense.weight"] = (h, h)
            shapes["pooler.dense.bias"] = (h,)
        return shapes


@dataclass(frozen=True, slots=True)
class KeyRule:
    """One reversible renaming of checkpoint keys: two templates with one `*` each.

    `KeyRule("bert.*", "*")` drops a prefix, `KeyRule("*LayerNorm.gamma", "*LayerNorm.weight")` renames an end.
    Rules are applied in their order to read, and backwards to write.
    """

    stored: str
    canonical: str

    def to_canonical(self, key: str) -> str | None:
        """The key with its stored form replaced by the canonical one, or None where the rule does not apply."""
        return _rename(key, self.stored, self.canonical)

    def to_stored(self, key: str) -> str | None:
        """The way back."""
        return _rename(key, self.canonical, self.stored)


def _rename(key: str, old: str, new: str) -> str | None:
    head, tail = old.split("*")
    if len(key) < len(head) + len(tail) or not (key.startswith(head) and key.endswith(tail)):
        return None
    return new.replace("*", key[len(head) : len(key) - len(tail)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A family with one forward pass.

    Attributes:
        name: the row's name, as `model_type` of Hugging Face configs.
        transformers_class: the class of transformers that has the same parameters (`BertModel`).
        spec: config -> EncoderSpec; refuses what it does not understand.
        key_rules: ordered renamings from a checkpoint's keys to canonical names. Each is optional: a key
            to which it does not apply stays as it is.
        ignored_keys: pattern of whole stored keys that are known and never needed: heads for other tasks,
            persisted `position_ids`. Everything else that is not used is reported.
    """

    name: str
    transformers_class: str
    spec: Callable[[ConfigReader], EncoderSpec]
    key_rules: tuple[KeyRule, ...]
    ignored_keys: re.Pattern[str]
