"""Architectures as data that backends interpret.

Canonical weight names are those of transformers' `BertModel` (`encoder.layer.0.attention.self.query.weight`);
`EncoderSpec.parameters` lists them. Beyond BERT's there are

    embeddings.projection                     from the width of the tables to the hidden size
    encoder.layer.i.attention.LayerNorm       before attention (pre-norm)
    encoder.layer.i.LayerNorm                 before the feed-forward (pre-norm)
    encoder.layer.i.intermediate.gate         what the activation is applied to, where the feed-forward is gated
    encoder.relative_attention_bias           one table for all layers
    encoder.rel_embeddings, encoder.LayerNorm a vector a distance, for all layers, and the norm of these
    encoder.layer.i.attention.self.pos_key_proj, .pos_query_proj  projections of these, where not those of tokens
    encoder.conv.conv, encoder.conv.LayerNorm the convolution beside block 0
    encoder.final_norm                        after the last block (pre-norm)

where i numbers *blocks* of weights (`EncoderSpec.blocks`). `key_rules` lead from a checkpoint's own names to them and
back.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from layertap.models.config import ConfigReader
from layertap.models.key_rules import NORM_RULES, KeyRule, SplitRule
from layertap.models.positions import Disentangled, PlainPositions, PositionTable, RelativeBias

Activation = Literal["gelu", "gelu_tanh", "relu", "silu"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Convolution:
    """Beside block 0: state 1 is `norm(block(h0) + act(conv(h0)))`, rows beyond a sequence's ends being zero.

    Attributes:
        kernel_size: rows that a row is computed from, an odd number.
        activation: act.
    """

    kernel_size: int
    activation: Activation | Literal["tanh"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSpec:
    """One encoder: architecture and numbers, no weights.

    What has no default is BERT's own: `h0 = norm(word + type + position)`, then per block
    `a = norm(h + out(attention(h)))`, `h = norm(a + down(act(up(a))))` (Devlin et al. 2019). What has one says where a
    family departs from that. Attributes carry the names of Hugging Face configs.

    Attributes:
        architecture: the family's row.
        vocab_size: rows of the word table.
        hidden_size: H.
        num_hidden_layers: L.
        num_attention_heads: A.
        intermediate_size: F.
        hidden_act: the feed-forward's activation.
        layer_norm_eps: of every norm, of either kind.
        positions: a table of learned positions, or plain ones for `rotary_thetas` and `relative`.
        type_vocab_size: rows of the token-type table; 0: there is none.
        pad_token_id: the row of the word table that gets no gradient.
        hidden_dropout_prob: after the embeddings, after attention, and after the feed-forward.
        attention_probs_dropout_prob: of attention weights.
        pooler: the architecture has one (dense + tanh on the first token's last state); whether a checkpoint
            stores it is the checkpoint's.
        embedding_size: width of the tables and of their norm, or None: H.
        embedding_projection: a dense layer leads from the tables' width to H; state 0 is after it.
        embedding_norm: the sum of the tables is normed.
        projection_first: the norm comes after the projection, which has no bias then.
        blocks: which block of weights each of the L layers uses, or (): each its own. Layers may share one.
        norm: "layer" subtracts the mean and divides by the standard deviation; "rms" divides by the root mean
            square only, and has no bias.
        norm_bias: layer norms have a bias.
        norm_position: "post": after each residual sum. "pre": before attention and feed-forward, and
            `encoder.final_norm` after the last block: hidden state L is the normed one.
        first_attention_norm: block 0 of a pre-norm encoder has a norm before attention.
        qkv_bias, attention_output_bias, intermediate_bias, output_bias: the dense layers have a bias; that of
            `intermediate` is the gate's, too.
        output_dropout: dropout follows the feed-forward, too.
        gated: the feed-forward is `down(act(gate(x)) * up(x))`.
        num_key_value_heads: heads of keys and values, each shared by A / this many query heads; None: A.
        rotary_thetas: the base of the rotary angles of each layer, or (): no rotation. Halves of a head are
            rotated against each other (Su et al. 2021, as in GPT-NeoX).
        windows: for each layer the largest distance |i - j| at which tokens attend, None for any; or (): any.
        relative: a bias of attention scores by distance, or vectors of distances, or None.
        convolution: what is added to block 0, or None.
        embedding_dropout_prob: after the embeddings; None: `hidden_dropout_prob`.
        attention_output_dropout_prob: after the attention half of a block; None: `hidden_dropout_prob`.
        intermediate_dropout_prob: of the feed-forward's inner columns.
        rotary_scale: what positions are divided by before they are rotary angles.
    """

    architecture: str
    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_act: Activation
    layer_norm_eps: float
    positions: PositionTable | PlainPositions
    type_vocab_size: int
    pad_token_id: int | None
    hidden_dropout_prob: float
    attention_probs_dropout_prob: float
    pooler: bool = True
    embedding_size: int | None = None
    embedding_projection: bool = False
    embedding_norm: bool = True
    projection_first: bool = False
    blocks: tuple[int, ...] = ()
    norm: Literal["layer", "rms"] = "layer"
    norm_bias: bool = True
    norm_position: Literal["post", "pre"] = "post"
    first_attention_norm: bool = True
    qkv_bias: bool = True
    attention_output_bias: bool = True
    intermediate_bias: bool = True
    output_bias: bool = True
    output_dropout: bool = True
    gated: bool = False
    num_key_value_heads: int | None = None
    rotary_thetas: tuple[float, ...] = ()
    windows: tuple[int | None, ...] = ()
    relative: RelativeBias | Disentangled | None = None
    convolution: Convolution | None = None
    embedding_dropout_prob: float | None = None
    attention_output_dropout_prob: float | None = None
    intermediate_dropout_prob: float = 0.0
    rotary_scale: float = 1.0

    @property
    def head_size(self) -> int:
        """Size D of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def score_scale(self) -> float:
        """Factor of attention scores: one over the root of D, or of D times the number of terms in a score."""
        terms = self.relative.terms if isinstance(self.relative, Disentangled) else 1
        return float((self.head_size * terms) ** -0.5)

    @property
    def key_value_size(self) -> int:
        """Width of keys, and of values."""
        return self.head_size * (self.num_key_value_heads or self.num_attention_heads)

    @property
    def table_size(self) -> int:
        """Width of the embedding tables."""
        return self.embedding_size or self.hidden_size

    @property
    def num_states(self) -> int:
        """L + 1: the embedding output and every layer's."""
        return self.num_hidden_layers + 1

    @property
    def num_blocks(self) -> int:
        """Blocks of weights; fewer than L where layers share them."""
        return max(self.blocks) + 1 if self.blocks else self.num_hidden_layers

    @property
    def final_norm(self) -> bool:
        """Hidden state L is normed after the last block."""
        return self.norm_position == "pre"

    @property
    def any_length(self) -> bool:
        """Sequences may be longer than the model was trained for: what is farther than its table counts as its end."""
        return isinstance(self.relative, Disentangled) and isinstance(self.positions, PlainPositions)

    def block_of(self, layer: int) -> int:
        """Return the block of weights that layer 0..L-1 uses."""
        return self.blocks[layer] if self.blocks else layer

    def theta_of(self, layer: int) -> float | None:
        """Return the rotary base of layer 0..L-1, or None: no rotation."""
        return self.rotary_thetas[layer] if self.rotary_thetas else None

    def window_of(self, layer: int) -> int | None:
        """Return the largest distance at which tokens of layer 0..L-1 attend, or None: any."""
        return self.windows[layer] if self.windows else None

    def parameters(self) -> dict[str, tuple[int, ...]]:
        """Return canonical weight name -> shape, the pooler's included where the architecture has one."""
        h = self.hidden_size
        shapes = self._embedding_parameters()
        shapes |= self._distance_parameters()
        if self.convolution is not None:
            shapes |= {"encoder.conv.conv.weight": (h, h, self.convolution.kernel_size), "encoder.conv.conv.bias": (h,)}
            shapes |= self._norm_parameters("encoder.conv.LayerNorm", h)
        for i in range(self.num_blocks):
            shapes |= {f"encoder.layer.{i}.{name}": shape for name, shape in self._block_parameters(i).items()}
        if self.final_norm:
            shapes |= self._norm_parameters("encoder.final_norm", h)
        if self.pooler:
            shapes |= _dense("pooler.dense", h, h, bias=True)
        return shapes

    def _embedding_parameters(self) -> dict[str, tuple[int, ...]]:
        e = self.table_size
        shapes: dict[str, tuple[int, ...]] = {"embeddings.word_embeddings.weight": (self.vocab_size, e)}
        if isinstance(self.positions, PositionTable):
            shapes["embeddings.position_embeddings.weight"] = (self.positions.rows, e)
        if self.type_vocab_size:
            shapes["embeddings.token_type_embeddings.weight"] = (self.type_vocab_size, e)
        if self.embedding_norm:
            shapes |= self._norm_parameters("embeddings.LayerNorm", self.hidden_size if self.projection_first else e)
        if self.embedding_projection:
            shapes |= _dense("embeddings.projection", self.hidden_size, e, bias=not self.projection_first)
        return shapes

    def _distance_parameters(self) -> dict[str, tuple[int, ...]]:
        if self.relative is None:
            return {}
        if isinstance(self.relative, RelativeBias):
            return {"encoder.relative_attention_bias.weight": (self.relative.buckets, self.num_attention_heads)}
        shapes: dict[str, tuple[int, ...]] = {
            "encoder.rel_embeddings.weight": (2 * self.relative.span, self.hidden_size)
        }
        if self.relative.norm:
            shapes |= self._norm_parameters("encoder.LayerNorm", self.hidden_size)
        return shapes

    def _block_parameters(self, block: int) -> dict[str, tuple[int, ...]]:
        h, f = self.hidden_size, self.intermediate_size
        shapes = _dense("attention.self.query", h, h, bias=self.qkv_bias)
        shapes |= _dense("attention.self.key", self.key_value_size, h, bias=self.qkv_bias)
        shapes |= _dense("attention.self.value", self.key_value_size, h, bias=self.qkv_bias)
        if isinstance(self.relative, Disentangled) and not self.relative.shared_projections:
            if self.relative.content_to_position:
                shapes |= _dense("attention.self.pos_key_proj", h, h, bias=self.qkv_bias)
            if self.relative.position_to_content:
                shapes |= _dense("attention.self.pos_query_proj", h, h, bias=self.qkv_bias)
        shapes |= _dense("attention.output.dense", h, h, bias=self.attention_output_bias)
        if self.gated:
            shapes |= _dense("intermediate.gate", f, h, bias=self.intermediate_bias)
        shapes |= _dense("intermediate.dense", f, h, bias=self.intermediate_bias)
        shapes |= _dense("output.dense", h, f, bias=self.output_bias)
        for name in self.block_norms(block):
            shapes |= self._norm_parameters(name, h)
        return shapes

    def block_norms(self, block: int) -> tuple[str, ...]:
        """Return names of a block's norms inside it."""
        if self.norm_position == "post":
            return "attention.output.LayerNorm", "output.LayerNorm"
        return ("attention.LayerNorm", "LayerNorm") if block > 0 or self.first_attention_norm else ("LayerNorm",)

    def _norm_parameters(self, name: str, size: int) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {f"{name}.weight": (size,)}
        if self.norm == "layer" and self.norm_bias:
            shapes[f"{name}.bias"] = (size,)
        return shapes


def _dense(name: str, rows: int, columns: int, *, bias: bool) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {f"{name}.weight": (rows, columns)}
    if bias:
        shapes[f"{name}.bias"] = (rows,)
    return shapes


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A family with one forward pass.

    Attributes:
        name: the row's name, as `model_type` of Hugging Face configs.
        transformers_class: the class of transformers that has the same parameters (`BertModel`).
        spec: config -> EncoderSpec; refuses what it does not understand.
        key_rules: ordered renamings from a checkpoint's keys to canonical names. Each is optional: a key
            to which it does not apply stays as it is. The first drops the prefix.
        ignored_keys: pattern of whole stored keys that are known and never needed: heads for other tasks,
            persisted `position_ids`. Everything else that is not used is reported.
        split_rules: fused tensors, by their keys after `key_rules`; each is optional, too.
        spare_names: canonical names of weights that some checkpoints store though their own config has no use for
            them; set aside there like `ignored_keys`.
    """

    name: str
    transformers_class: str
    spec: Callable[[ConfigReader], EncoderSpec]
    key_rules: tuple[KeyRule, ...]
    ignored_keys: re.Pattern[str]
    split_rules: tuple[SplitRule, ...] = ()
    spare_names: frozenset[str] = frozenset()

    @property
    def class_rules(self) -> tuple[KeyRule, ...]:
        """The rules that lead to the names in transformers' class: no prefix, norms as they are called today."""
        return tuple(rule for rule in self.key_rules[1:] if rule not in NORM_RULES)
