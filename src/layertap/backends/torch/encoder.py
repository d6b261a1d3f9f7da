"""`Encoder`: the reference forward pass as a torch module, packed and differentiable.

Submodules and parameters have the names and shapes of transformers' `BertModel`, so its state dicts fit as they are.
Follows Devlin et al. 2019 and transformers' modeling_bert.py and modeling_roberta.py (post-norm, erf or tanh GELU).

Shape letters: T packed tokens, Q query rows, B sequences, H hidden size, F feed-forward size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from layertap.backends.torch.attention import Layout, attend
from layertap.models.spec import Activation, EncoderSpec

ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PackedTensors:
    """A packed batch on the encoder's device.

    Attributes:
        input_ids: int64 [T], or None where `inputs_embeds` are given.
        position_ids: int64 [T].
        token_type_ids: int64 [T], or None: type 0 everywhere.
        layout: which rows are whose.
        inputs_embeds: [T, H] in place of the word table's rows, or None.
    """

    input_ids: Tensor | None
    position_ids: Tensor
    token_type_ids: Tensor | None
    layout: Layout
    inputs_embeds: Tensor | None = None


class Embeddings(nn.Module):
    """Word, token-type and position tables, summed in that order, normed."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.word_embeddings = _table(spec.vocab_size, spec.hidden_size, padding_idx=spec.pad_token_id)
        self.position_embeddings = _table(spec.positions.rows, spec.hidden_size, padding_idx=spec.positions.padding_id)
        self.token_type_embeddings = _table(spec.type_vocab_size, spec.hidden_size, padding_idx=None)
        self.LayerNorm = nn.LayerNorm(spec.hidden_size, eps=spec.layer_norm_eps)
        self.dropout = nn.Dropout(spec.hidden_dropout_prob)

    def forward(self, batch: PackedTensors) -> Tensor:
        """[T, H], `hidden_states[0]`."""
        words_TH = batch.inputs_embeds
        if words_TH is None:
            words_TH = self.word_embeddings(batch.input_ids)
        if batch.token_type_ids is None:
            words_TH = words_TH + self.token_type_embeddings.weight[0]
        else:
            words_TH = words_TH + self.token_type_embeddings(batch.token_type_ids)
        words_TH = words_TH + self.position_embeddings(batch.position_ids)
        hidden_TH: Tensor = self.dropout(self.LayerNorm(words_TH))
        return hidden_TH


def _table(rows: int, size: int, *, padding_idx: int | None) -> nn.Embedding:
    weight = torch.empty(rows, size)
    # Drawing random numbers on the meta device does nothing, and imports torch's compiler for it: 1.5 s.
    return nn.Embedding(rows, size, padding_idx=padding_idx, _weight=weight if weight.is_meta else None)


class SelfAttention(nn.Module):
    """Query, key and value projections around packed attention."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.num_heads = spec.num_attention_heads
        self.query = nn.Linear(spec.hidden_size, spec.hidden_size)
        self.key = nn.Linear(spec.hidden_size, spec.hidden_size)
        self.value = nn.Linear(spec.hidden_size, spec.hidden_size)
        self.dropout = nn.Dropout(spec.attention_probs_dropout_prob)

    def forward(self, query_QH: Tensor, hidden_TH: Tensor, layout: Layout) -> Tensor:
        """[Q, H]: each query row's mix of its own sequence's values."""
        return attend(
            self.query(query_QH),
            self.key(hidden_TH),
            self.value(hidden_TH),
            layout,
            num_heads=self.num_heads,
            dropout=self.dropout.p if self.training else 0.0,
        )


class AddNorm(nn.Module):
    """`norm(residual + dropout(dense(x)))`, the end of both halves of a block."""

    def __init__(self, in_features: int, spec: EncoderSpec) -> None:
        super().__init__()
        self.dense = nn.Linear(in_features, spec.hidden_size)
        self.LayerNorm = nn.LayerNorm(spec.hidden_size, eps=spec.layer_norm_eps)
        self.dropout = nn.Dropout(spec.hidden_dropout_prob)

    def forward(self, x_QF: Tensor, residual_QH: Tensor) -> Tensor:
        """[Q, H]."""
        hidden_QH: Tensor = self.LayerNorm(self.dropout(self.dense(x_QF)) + residual_QH)
        return hidden_QH


class Attention(nn.Module):
    """The attention half of a block."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.self = SelfAttention(spec)
        self.output = AddNorm(spec.hidden_size, spec)

    def forward(self, query_QH: Tensor, hidden_TH: Tensor, layout: Layout) -> Tensor:
        """[Q, H]."""
        mixed_QH: Tensor = self.output(self.self(query_QH, hidden_TH, layout), query_QH)
        return mixed_QH


class Intermediate(nn.Module):
    """The widening half of the feed-forward."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.dense = nn.Linear(spec.hidden_size, spec.intermediate_size)
        self.activation = ACTIVATIONS[spec.hidden_act]

    def forward(self, hidden_QH: Tensor) -> Tensor:
        """[Q, F]."""
        return self.activation(self.dense(hidden_QH))


class Block(nn.Module):
    """One transformer block, post-norm."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.attention = Attention(spec)
        self.intermediate = Intermediate(spec)
        self.output = AddNorm(spec.intermediate_size, spec)

    def forward(self, hidden_TH: Tensor, layout: Layout, rows: Tensor | None = None) -> Tensor:
        """[T, H], or [Q, H] where only `rows` (int64 [Q], ascending; `layout` has them as queries) are wanted."""
        query_QH = hidden_TH if rows is None else hidden_TH[rows]
        mixed_QH = self.attention(query_QH, hidden_TH, layout)
        hidden_QH: Tensor = self.output(self.intermediate(mixed_QH), mixed_QH)
        return hidden_QH


class Stack(nn.Module):
    """The blocks, `encoder.layer[i]`."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Block(spec) for _ in range(spec.num_hidden_layers))


class Pooler(nn.Module):
    """Dense and tanh on the first token's last hidden state."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.dense = nn.Linear(spec.hidden_size, spec.hidden_size)

    def forward(self, first_BH: Tensor) -> Tensor:
        """[B, H], `pooler_output`."""
        return torch.tanh(self.dense(first_BH))


class Encoder(nn.Module):
    """A whole encoder on packed batches: knows train mode and dropout, can be differentiated through."""

    def __init__(self, spec: EncoderSpec, *, pooler: bool) -> None:
        super().__init__()
        self.spec = spec
        self.embeddings = Embeddings(spec)
        self.encoder = Stack(spec)
        self.pooler = Pooler(spec) if pooler else None

    def states(
        self, batch: PackedTensors, *, stop: int | None = None, top_rows: npt.NDArray[np.int32] | None = None
    ) -> Iterator[tuple[int, Tensor]]:
        """Yields (i, `hidden_states[i]` [T, H]) for i in 0..stop, one at a time.

        Args:
            batch: T packed tokens.
            stop: the highest block to run, L if None. Higher blocks cost nothing.
            top_rows: int32 [Q] ascending: compute only these rows of block `stop`, whose state is then [Q, H].
        """
        last = self.spec.num_hidden_layers if stop is None else stop
        hidden_TH: Tensor = self.embeddings(batch)
        if last == 0 and top_rows is not None:
            hidden_TH = hidden_TH[_index(top_rows, hidden_TH)]
        yield 0, hidden_TH
        for i in range(1, last + 1):
            block = self.encoder.layer[i - 1]
            if i == last and top_rows is not None:
                layout = batch.layout.with_queries(top_rows)
                hidden_TH = block(hidden_TH, layout, _index(top_rows, hidden_TH))
            else:
                hidden_TH = block(hidden_TH, batch.layout)
            yield i, hidden_TH

    def pool(self, first_BH: Tensor) -> Tensor:
        """[B, H], the pooler head on first tokens' last hidden states; the encoder must have one."""
        assert self.pooler is not None, "this encoder was built without a pooler"
        pooled_BH: Tensor = self.pooler(first_BH)
        return pooled_BH


def _index(rows: npt.NDArray[np.int32], like: Tensor) -> Tensor:
    return torch.as_tensor(rows, dtype=torch.int64, device=like.device)
