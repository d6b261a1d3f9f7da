"""`Encoder`: the reference forward pass as a torch module, on packed batches and differentiable.

The parts of an encoder are those that its spec names. Parameters have the names and shapes of transformers'
`BertModel`, so that its state dicts fit unchanged (`models.spec` has the names of further parts). The forward pass
follows Devlin et al. 2019 and the modeling files of transformers.

Shape letters: T packed tokens, Q query rows, B sequences, H hidden size, E table width, F feed-forward size, G width
of keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from layertap.backends.torch.devices import kind_of, upload
from layertap.backends.torch.disentangled import Convolution, DistanceTable
from layertap.backends.torch.layout import Layout
from layertap.backends.torch.positions import AttentionPositions, LayerPositions, RelativeBias, Watch
from layertap.models.positions import Disentangled, PositionTable
from layertap.models.positions import RelativeBias as RelativeBiasSpec
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
        position_ids: int64 [T]: rows of the position table, or what rotary angles are computed from.
        token_type_ids: int64 [T], or None: type 0 everywhere.
        layout: rows of each sequence.
        inputs_embeds: [T, E], used instead of rows of the word table, or None.
    """

    input_ids: Tensor | None
    position_ids: Tensor
    token_type_ids: Tensor | None
    layout: Layout
    inputs_embeds: Tensor | None = None


class RMSNorm(nn.Module):
    """Root-mean-square norm (Zhang and Sennrich 2019): `weight * x / sqrt(mean(x^2) + eps)`, rounded once.

    A row whose squares overflow becomes NaN. Its scale would be zero, and zeros would hide that it is wrong.
    """

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x_TH: Tensor) -> Tensor:
        """Normalize hidden states [T, H]."""
        if kind_of(x_TH.device) == "cuda" and x_TH.dtype == self.weight.dtype:
            normed_TH, scale_T1 = torch.ops.aten._fused_rms_norm(x_TH, [x_TH.shape[-1]], self.weight, self.eps)
            overflows: Tensor = normed_TH.masked_fill(scale_T1 == 0, float("nan"))
            return overflows
        wide_TH = x_TH.float()
        squares_T1 = wide_TH.square().mean(-1, keepdim=True) + self.eps
        scale_T1 = torch.rsqrt(squares_T1) + 0 * squares_T1  # zero times infinity is NaN
        return (self.weight * (wide_TH * scale_T1)).to(x_TH.dtype)


def norm_of(spec: EncoderSpec, size: int | None = None) -> nn.Module:
    """Make a norm of the kind that the spec states; its width is H if `size` is None."""
    size = size or spec.hidden_size
    if spec.norm == "rms":
        return RMSNorm(size, spec.layer_norm_eps)
    return nn.LayerNorm(size, eps=spec.layer_norm_eps, bias=spec.norm_bias)


class Embeddings(nn.Module):
    """Sum of word, token-type and position embeddings (in this order), normed and projected to the hidden size."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        width, positions = spec.table_size, spec.positions
        self.word_embeddings = _table(spec.vocab_size, width, padding_idx=spec.pad_token_id)
        self.position_embeddings = (
            _table(positions.rows, width, padding_idx=positions.padding_id)
            if isinstance(positions, PositionTable)
            else None
        )
        self.token_type_embeddings = (
            _table(spec.type_vocab_size, width, padding_idx=None) if spec.type_vocab_size else None
        )
        self.projection_first = spec.projection_first
        normed = spec.hidden_size if spec.projection_first else width
        self.LayerNorm = norm_of(spec, normed) if spec.embedding_norm else None
        self.dropout = nn.Dropout(_stated(spec.embedding_dropout_prob, spec.hidden_dropout_prob))
        self.projection = (
            nn.Linear(width, spec.hidden_size, bias=not spec.projection_first) if spec.embedding_projection else None
        )

    def forward(self, batch: PackedTensors) -> Tensor:
        """Compute hidden state 0 [T, H] of a batch."""
        words_TE = batch.inputs_embeds
        if words_TE is None:
            words_TE = self.word_embeddings(batch.input_ids)
        if self.token_type_embeddings is None:
            assert batch.token_type_ids is None, "this encoder has no token types"
        elif batch.token_type_ids is None:
            words_TE = words_TE + self.token_type_embeddings.weight[0]
        else:
            words_TE = words_TE + self.token_type_embeddings(batch.token_type_ids)
        if self.position_embeddings is not None:
            words_TE = words_TE + self.position_embeddings(batch.position_ids)
        if self.projection is not None and self.projection_first:
            words_TE = self.projection(words_TE)
        hidden_TH: Tensor = self.dropout(words_TE if self.LayerNorm is None else self.LayerNorm(words_TE))
        return hidden_TH if self.projection is None or self.projection_first else self.projection(hidden_TH)


def _stated(rate: float | None, otherwise: float) -> float:
    return otherwise if rate is None else rate


def _table(rows: int, size: int, *, padding_idx: int | None) -> nn.Embedding:
    weight = torch.empty(rows, size)
    # Drawing random numbers on the meta device has no effect and imports torch's compiler, which takes 1.5 s.
    return nn.Embedding(rows, size, padding_idx=padding_idx, _weight=weight if weight.is_meta else None)


class SelfAttention(nn.Module):
    """Self-attention on packed rows with its query, key and value projections."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.num_heads = spec.num_attention_heads
        self.query = nn.Linear(spec.hidden_size, spec.hidden_size, bias=spec.qkv_bias)
        self.key = nn.Linear(spec.hidden_size, spec.key_value_size, bias=spec.qkv_bias)
        self.value = nn.Linear(spec.hidden_size, spec.key_value_size, bias=spec.qkv_bias)
        self.dropout = nn.Dropout(spec.attention_probs_dropout_prob)
        self.relative = spec.relative if isinstance(spec.relative, Disentangled) else None
        self.pos_dropout = None if self.relative is None else nn.Dropout(spec.hidden_dropout_prob)
        self.pos_key_proj = self.pos_query_proj = None
        if self.relative is not None and not self.relative.shared_projections:
            if self.relative.content_to_position:
                self.pos_key_proj = nn.Linear(spec.hidden_size, spec.hidden_size, bias=spec.qkv_bias)
            if self.relative.position_to_content:
                self.pos_query_proj = nn.Linear(spec.hidden_size, spec.hidden_size, bias=spec.qkv_bias)

    def of_distances(self, vectors_RH: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Project vectors of distances to keys and queries [R, H], each None where scores have no such term."""
        assert self.relative is not None, "this encoder has no vectors of distances"
        assert self.pos_dropout is not None
        dropped_RH = self.pos_dropout(vectors_RH)
        project_key = self.key if self.relative.shared_projections else self.pos_key_proj
        project_query = self.query if self.relative.shared_projections else self.pos_query_proj
        key_RH = project_key(dropped_RH) if project_key and self.relative.content_to_position else None
        query_RH = project_query(dropped_RH) if project_query and self.relative.position_to_content else None
        return key_RH, query_RH

    def forward(self, hidden_TH: Tensor, positions: AttentionPositions) -> Tensor:
        """Attend: for each query row, a weighted mean [Q, H] of the values of its own sequence."""
        return positions.with_distances(self.of_distances).attend(
            self.query(positions.queries(hidden_TH)),
            self.key(hidden_TH),
            self.value(hidden_TH),
            num_heads=self.num_heads,
            dropout=self.dropout.p if self.training else 0.0,
        )


class AddNorm(nn.Module):
    """End of both halves of a block: `norm(residual + dropout(dense(x)))`; pre-norm blocks have no norm here."""

    def __init__(self, in_features: int, spec: EncoderSpec, *, bias: bool, dropout: float) -> None:
        super().__init__()
        self.dense = nn.Linear(in_features, spec.hidden_size, bias=bias)
        self.LayerNorm = norm_of(spec) if spec.norm_position == "post" else None
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_QF: Tensor, residual_QH: Tensor) -> Tensor:
        """Return the output [Q, H] of this half of the block."""
        hidden_QH: Tensor = self.dropout(self.dense(x_QF)) + residual_QH
        return hidden_QH if self.LayerNorm is None else self.LayerNorm(hidden_QH)


class Attention(nn.Module):
    """Attention half of a block."""

    def __init__(self, spec: EncoderSpec, block: int) -> None:
        super().__init__()
        self.LayerNorm = norm_of(spec) if "attention.LayerNorm" in spec.block_norms(block) else None
        self.self = SelfAttention(spec)
        dropout = _stated(spec.attention_output_dropout_prob, spec.hidden_dropout_prob)
        self.output = AddNorm(spec.hidden_size, spec, bias=spec.attention_output_bias, dropout=dropout)

    def forward(self, hidden_TH: Tensor, positions: AttentionPositions) -> Tensor:
        """Return the output [Q, H] of the attention half."""
        normed_TH = hidden_TH if self.LayerNorm is None else self.LayerNorm(hidden_TH)
        mixed_QH: Tensor = self.output(self.self(normed_TH, positions), positions.queries(hidden_TH))
        return mixed_QH


class Intermediate(nn.Module):
    """First half of the feed-forward, to its inner size."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.gate = (
            nn.Linear(spec.hidden_size, spec.intermediate_size, bias=spec.intermediate_bias) if spec.gated else None
        )
        self.dense = nn.Linear(spec.hidden_size, spec.intermediate_size, bias=spec.intermediate_bias)
        self.activation = ACTIVATIONS[spec.hidden_act]
        self.dropout = nn.Dropout(spec.intermediate_dropout_prob)

    def forward(self, hidden_QH: Tensor) -> Tensor:
        """Return the inner activations [Q, F] of the feed-forward."""
        up_QF: Tensor = self.dense(hidden_QH)
        wide_QF = self.activation(up_QF) if self.gate is None else self.activation(self.gate(hidden_QH)) * up_QF
        dropped_QF: Tensor = self.dropout(wide_QF)
        return dropped_QF


class Block(nn.Module):
    """Transformer block of an encoder.

    Args:
        spec: the encoder.
        block: index of the block among the blocks with weights of their own.
    """

    def __init__(self, spec: EncoderSpec, block: int) -> None:
        super().__init__()
        self.attention = Attention(spec, block)
        self.LayerNorm = norm_of(spec) if spec.norm_position == "pre" else None
        self.intermediate = Intermediate(spec)
        dropout = spec.hidden_dropout_prob if spec.output_dropout else 0.0
        self.output = AddNorm(spec.intermediate_size, spec, bias=spec.output_bias, dropout=dropout)

    def forward(self, hidden_TH: Tensor, positions: AttentionPositions) -> Tensor:
        """Run the block: [T, H], or [Q, H] where `positions` has only some rows as queries."""
        mixed_QH: Tensor = self.attention(hidden_TH, positions)
        normed_QH = mixed_QH if self.LayerNorm is None else self.LayerNorm(mixed_QH)
        hidden_QH: Tensor = self.output(self.intermediate(normed_QH), mixed_QH)
        return hidden_QH


class Stack(nn.Module):
    """Blocks of the encoder, and the tables and norms that all of them share."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.relative_attention_bias = (
            RelativeBias(spec.relative, spec.num_attention_heads)
            if isinstance(spec.relative, RelativeBiasSpec)
            else None
        )
        table = distance_table(spec)
        self._disentangled = None if table is None else table.spec
        self.rel_embeddings = None if table is None else table.rel_embeddings
        self.LayerNorm = None if table is None else table.LayerNorm
        self.conv = convolution(spec)
        self.layer = nn.ModuleList(Block(spec, i) for i in range(spec.num_blocks))
        self.final_norm = norm_of(spec) if spec.final_norm else None

    @property
    def relative(self) -> RelativeBias | DistanceTable | None:
        """Relative position table that all layers share, or None."""
        if self._disentangled is None or self.rel_embeddings is None:
            return self.relative_attention_bias
        return DistanceTable(self._disentangled, self.rel_embeddings, self.LayerNorm)


def distance_table(spec: EncoderSpec) -> DistanceTable | None:
    """Make the table of vectors of distances, or return None where the spec has none."""
    if not isinstance(spec.relative, Disentangled):
        return None
    table = _table(2 * spec.relative.span, spec.hidden_size, padding_idx=None)
    return DistanceTable(spec.relative, table, norm_of(spec) if spec.relative.norm else None)


def convolution(spec: EncoderSpec) -> Convolution | None:
    """Make the convolution beside block 0, or return None where the spec has none."""
    if spec.convolution is None:
        return None
    activation = torch.tanh if spec.convolution.activation == "tanh" else ACTIVATIONS[spec.convolution.activation]
    size, kernel = spec.hidden_size, spec.convolution.kernel_size
    return Convolution(
        nn.Conv1d(size, size, kernel), activation=activation, norm=norm_of(spec), dropout=spec.hidden_dropout_prob
    )


class Pooler(nn.Module):
    """Pooler: a dense layer with tanh on the last hidden state of the first token."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.dense = nn.Linear(spec.hidden_size, spec.hidden_size)

    def forward(self, first_BH: Tensor) -> Tensor:
        """Compute `pooler_output` [B, H] from the first rows."""
        return torch.tanh(self.dense(first_BH))


class Encoder(nn.Module):
    """Whole encoder on packed batches, differentiable, with train mode and dropout."""

    def __init__(self, spec: EncoderSpec, *, pooler: bool) -> None:
        super().__init__()
        self.spec = spec
        self.embeddings = Embeddings(spec)
        self.encoder = Stack(spec)
        self.pooler = Pooler(spec) if pooler else None

    def states(
        self,
        batch: PackedTensors,
        *,
        stop: int | None = None,
        top_rows: npt.NDArray[np.int32] | None = None,
        unnormed: bool = False,
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield (i, `hidden_states[i]` [T, H]) for i in 0..stop, one at a time.

        Args:
            batch: T packed tokens.
            stop: the highest layer to run; None: L. Higher layers are not computed.
            top_rows: int32 [Q] ascending; if given, only these rows of layer `stop` are computed, whose state is then
                [Q, H].
            unnormed: whether to yield state L as it is before the final norm, where the encoder has one.
        """
        layers = self.spec.num_hidden_layers
        states = run_layers(
            self.spec,
            batch,
            embeddings=self.embeddings,
            block=lambda i: self.encoder.layer[i],
            relative=self.encoder.relative,
            conv=self.encoder.conv,
            stop=layers if stop is None else stop,
            top_rows=top_rows,
        )
        for i, hidden_TH in states:
            if i == layers and self.encoder.final_norm is not None and not unnormed:
                hidden_TH = self.encoder.final_norm(hidden_TH)
            yield i, hidden_TH

    def pool(self, first_BH: Tensor) -> Tensor:
        """[B, H], the pooler head on first tokens' last hidden states; the encoder must have one."""
        assert self.pooler is not None, "this encoder was built without a pooler"
        pooled_BH: Tensor = self.pooler(first_BH)
        return pooled_BH


def run_layers(
    spec: EncoderSpec,
    batch: PackedTensors,
    *,
    embeddings: Callable[[PackedTensors], Tensor],
    block: Callable[[int], Callable[[Tensor, AttentionPositions], Tensor]],
    relative: RelativeBias | DistanceTable | None,
    conv: Convolution | None,
    stop: int,
    top_rows: npt.NDArray[np.int32] | None = None,
    watches: Mapping[int, Watch] | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """Yield (i, state i) for i in 0..stop, before any final norm; each part is requested when it is reached.

    Args:
        spec: the encoder.
        batch: T packed tokens.
        embeddings: batch -> state 0 [T, H].
        block: block of weights -> what runs it.
        relative: the table of relative biases or of distances, where the encoder has one.
        conv: the convolution beside block 0, where the encoder has one.
        stop: the highest layer to run.
        top_rows: as in `Encoder.states`.
        watches: layer 1..L -> what sees it attend.
    """
    watches = watches or {}
    hidden_TH = embedded_TH = embeddings(batch)
    # Everything that layers need from the processor is copied before the first of them.
    layer_positions = LayerPositions(spec, batch.layout, batch.position_ids, relative, kept=top_rows)
    if stop == 0 and top_rows is not None:
        hidden_TH = hidden_TH[upload(top_rows, hidden_TH.device, torch.int64)]
    near_Qk = None
    if conv is not None and stop > 0:
        near_Qk = conv.neighbours(layer_positions.of(0, kept=stop == 1).layout, hidden_TH.device)
    yield 0, hidden_TH
    for i in range(1, stop + 1):
        positions = layer_positions.of(i - 1, kept=i == stop, watch=watches.get(i))
        hidden_TH = block(spec.block_of(i - 1))(hidden_TH, positions)
        if i == 1 and conv is not None:
            hidden_TH = conv(embedded_TH, hidden_TH, near_Qk)
        yield i, hidden_TH
