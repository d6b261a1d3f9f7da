"""Parts of BERT and RoBERTa under the names that transformers gives them, each of which can be called and hooked.

A part computes one formula for two shapes: [B, S, H] of a padded batch with a mask, as in transformers, and [1, T, H]
of a packed batch whose sequences an `AttentionPositions` describes (`attending.Mask`). The arguments are those of
transformers.

Shape letters: B sequences, S columns of the padded batch, T attended cells, H hidden size, E table width, F
feed-forward size.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from layertap.errors import OptionError
from layertap.hf.attending import ATTENTIONS, Mask, attend
from layertap.hf.config import PretrainedConfig
from layertap.hf.outputs import BaseModelOutputWithPoolingAndCrossAttentions
from layertap.hf.padded import check_ids, check_positions, default_positions
from layertap.models.positions import PositionTable
from layertap.models.spec import Activation, EncoderSpec

ModelOutput = BaseModelOutputWithPoolingAndCrossAttentions

ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "gelu_tanh": lambda: nn.GELU(approximate="tanh"),
    "relu": nn.ReLU,
    "silu": nn.SiLU,
}


def table(rows: int, size: int, *, padding_idx: int | None) -> nn.Embedding:
    """Make an embedding table."""
    weight = torch.empty(rows, size)
    # Drawing random numbers on the meta device has no effect and imports torch's compiler, which takes 1.5 s.
    return nn.Embedding(rows, size, padding_idx=padding_idx, _weight=weight if weight.is_meta else None)


def norm(spec: EncoderSpec, size: int | None = None) -> nn.LayerNorm:
    """Make a layer norm of a width, or of H."""
    return nn.LayerNorm(size or spec.hidden_size, eps=spec.layer_norm_eps)


class Embeddings(nn.Module):
    """Sum of word, token-type and position embeddings, normed.

    Attributes:
        position_ids, token_type_ids: int64 [1, longest], the columns and zeros. They are not stored.
    """

    position_ids: Tensor
    token_type_ids: Tensor

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        positions, width = spec.positions, spec.table_size
        assert isinstance(positions, PositionTable), "every family of this room has one"
        self._positions = positions
        self.padding_idx = positions.padding_id
        self.word_embeddings = table(spec.vocab_size, width, padding_idx=spec.pad_token_id)
        if positions.padding_id is None:
            self.position_embeddings = table(positions.rows, width, padding_idx=None)
        self.token_type_embeddings = table(spec.type_vocab_size, width, padding_idx=None)
        self.LayerNorm = norm(spec, width)
        self.dropout = nn.Dropout(spec.hidden_dropout_prob)
        if positions.padding_id is not None:  # RoBERTa registers it last, which is the order of its parameters
            self.position_embeddings = table(positions.rows, width, padding_idx=positions.padding_id)
        self.make_buffers()

    def make_buffers(self) -> None:
        """Make the buffers, which no checkpoint stores, on the device of the weights."""
        device = self.word_embeddings.weight.device
        columns = torch.arange(self._positions.rows, device=device).expand((1, -1))
        self.register_buffer("position_ids", columns, persistent=False)
        self.register_buffer("token_type_ids", torch.zeros_like(columns), persistent=False)

    def forward(
        self,
        input_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        past_key_values_length: int = 0,
    ) -> Tensor:
        """Compute the embeddings [B, S, E] of ids, or of word embeddings [B, S, E].

        Raises:
            OptionError: a position beyond the table.
            TokenizerError: an id beyond its table.
        """
        if past_key_values_length:
            raise OptionError("past_key_values_length: encoders keep no cache")
        words = word_vectors(self.word_embeddings, input_ids, inputs_embeds)
        if position_ids is None:
            position_ids = default_positions(self._positions, words.shape[:2], input_ids, words.device)
        if token_type_ids is None:
            token_type_ids = words.new_zeros(words.shape[:2], dtype=torch.int64)
        check_ids("token_type_ids", token_type_ids, self.token_type_embeddings)
        check_positions(position_ids, self._positions, self.position_embeddings)
        words = words + self.token_type_embeddings(token_type_ids)
        words = words + self.position_embeddings(position_ids)
        embedded: Tensor = self.dropout(self.LayerNorm(words))
        return embedded

    def create_position_ids_from_input_ids(
        self, input_ids: Tensor, padding_idx: int, past_key_values_length: int = 0
    ) -> Tensor:
        """Count the tokens that are not padding from `padding_idx + 1` on: int64 [B, S]."""
        counted = (input_ids != padding_idx).long()
        return (counted.cumsum(1) + past_key_values_length) * counted + padding_idx

    def create_position_ids_from_inputs_embeds(self, inputs_embeds: Tensor, padding_idx: int) -> Tensor:
        """Count the columns from `padding_idx + 1` on: int64 [B, S]."""
        columns = torch.arange(inputs_embeds.shape[1], device=inputs_embeds.device)
        return (columns + padding_idx + 1).expand(inputs_embeds.shape[:2])


def word_vectors(words: nn.Module, input_ids: Tensor | None, inputs_embeds: Tensor | None) -> Tensor:
    """Look ids up in the word embeddings, or return the vectors given instead of ids.

    Raises:
        OptionError: neither is given.
        TokenizerError: an id is beyond the table.
    """
    if input_ids is None:
        if inputs_embeds is None:
            raise OptionError("You must specify exactly one of input_ids or inputs_embeds")
        return inputs_embeds
    check_ids("input_ids", input_ids, words)
    vectors: Tensor = words(input_ids)
    return vectors


class SelfAttention(nn.Module):
    """Self-attention with its query, key and value projections."""

    is_decoder = is_causal = False

    def __init__(self, spec: EncoderSpec, config: PretrainedConfig, layer_idx: int | None = None) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.num_attention_heads = spec.num_attention_heads
        self.attention_head_size = spec.head_size
        self.all_head_size = spec.num_attention_heads * spec.head_size
        self.scaling = spec.head_size**-0.5
        self.query = nn.Linear(spec.hidden_size, spec.hidden_size)
        self.key = nn.Linear(spec.hidden_size, spec.hidden_size)
        self.value = nn.Linear(spec.hidden_size, spec.hidden_size)
        self.dropout = nn.Dropout(spec.attention_probs_dropout_prob)

    def forward(
        self, hidden_states: Tensor, attention_mask: Mask = None, past_key_values: object = None, **keywords: Any
    ) -> tuple[Tensor, Tensor | None]:
        """Return the context [B, S, H], and the probabilities [B, A, S, S] with eager attention."""
        if past_key_values is not None:
            keywords["past_key_values"] = past_key_values
        return attend(
            self.query(hidden_states),
            self.key(hidden_states),
            self.value(hidden_states),
            attention_mask,
            num_heads=self.num_attention_heads,
            dropout=self.dropout.p if self.training else 0.0,
            eager=self.config.is_eager,
            keywords=keywords,
        )


class AddNorm(nn.Module):
    """End of both halves of a layer: a dense layer, dropout, and the norm of the sum with the residual."""

    def __init__(self, spec: EncoderSpec, in_features: int) -> None:
        super().__init__()
        self.dense = nn.Linear(in_features, spec.hidden_size)
        self.LayerNorm = norm(spec)
        self.dropout = nn.Dropout(spec.hidden_dropout_prob)

    def forward(self, hidden_states: Tensor, input_tensor: Tensor) -> Tensor:
        """Compute `norm(dropout(dense(hidden_states)) + input_tensor)`: [B, S, H]."""
        hidden: Tensor = self.dropout(self.dense(hidden_states))
        normed: Tensor = self.LayerNorm(hidden + input_tensor)
        return normed


class Attention(nn.Module):
    """Attention half of a layer."""

    is_cross_attention = False

    def __init__(self, spec: EncoderSpec, config: PretrainedConfig, layer_idx: int | None = None) -> None:
        super().__init__()
        self.self = SelfAttention(spec, config, layer_idx)
        self.output = AddNorm(spec, spec.hidden_size)

    def forward(
        self, hidden_states: Tensor, attention_mask: Mask = None, **keywords: Any
    ) -> tuple[Tensor, Tensor | None]:
        """Return the output [B, S, H] of this half, and the probabilities with eager attention."""
        context, probabilities = self.self(hidden_states, attention_mask=attention_mask, **keywords)
        return self.output(context, hidden_states), probabilities


class Intermediate(nn.Module):
    """First half of the feed-forward, to its inner size."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.dense = nn.Linear(spec.hidden_size, spec.intermediate_size)
        self.intermediate_act_fn = ACTIVATIONS[spec.hidden_act]()

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Compute the inner activations [B, S, F]."""
        inner: Tensor = self.intermediate_act_fn(self.dense(hidden_states))
        return inner


class Layer(nn.Module):
    """Layer of an encoder: attention, then feed-forward."""

    chunk_size_feed_forward = 0
    seq_len_dim = 1
    is_decoder = add_cross_attention = False

    def __init__(self, spec: EncoderSpec, config: PretrainedConfig, layer_idx: int | None = None) -> None:
        super().__init__()
        self.attention = Attention(spec, config, layer_idx)
        self.intermediate = Intermediate(spec)
        self.output = AddNorm(spec, spec.intermediate_size)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Mask = None,
        encoder_hidden_states: object = None,
        encoder_attention_mask: object = None,
        past_key_values: object = None,
        *,
        attentions: list[Tensor] | None = None,
        **keywords: Any,
    ) -> Tensor:
        """Run the layer: [B, S, H]. The list `attentions` gets its probabilities [B, A, S, S]."""
        given = {
            "encoder_hidden_states": encoder_hidden_states,
            "encoder_attention_mask": encoder_attention_mask,
            "past_key_values": past_key_values,
        }
        keywords |= {name: value for name, value in given.items() if value is not None}
        mixed, probabilities = self.attention(hidden_states, attention_mask, **keywords)
        if attentions is not None:
            attentions.append(probabilities)
        return self.feed_forward_chunk(mixed)

    def feed_forward_chunk(self, attention_output: Tensor) -> Tensor:
        """Run the feed-forward half: [B, S, H]."""
        output: Tensor = self.output(self.intermediate(attention_output), attention_output)
        return output


class Stack(nn.Module):
    """Layers of an encoder, one after the other."""

    gradient_checkpointing = False

    def __init__(self, spec: EncoderSpec, config: PretrainedConfig) -> None:
        super().__init__()
        self.config = config
        self.layer = nn.ModuleList(Layer(spec, config, i) for i in range(spec.num_hidden_layers))

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Mask = None,
        encoder_hidden_states: object = None,
        encoder_attention_mask: object = None,
        past_key_values: object = None,
        use_cache: bool | None = None,  # noqa: ARG002 - as in transformers, encoders take no notice of it
        *,
        output_hidden_states: bool | Collection[int] = False,
        **keywords: Any,
    ) -> ModelOutput:
        """Run the layers on the output [B, S, H] of the embeddings.

        Args:
            hidden_states: [B, S, H].
            attention_mask: [B, 1, 1 or S, S], True (or 0) where tokens are attended; None: everywhere.
            encoder_hidden_states, encoder_attention_mask, past_key_values: None.
            use_cache: ignored, as in transformers.
            output_hidden_states: whether to return all L + 1 states, or which of them.
            keywords: `output_attentions=True` for the probabilities of each layer.
        """
        return run_layers(
            self.layer,
            hidden_states,
            attention_mask,
            encoder_hidden_states,
            output_hidden_states=output_hidden_states,
            checkpointing=self.gradient_checkpointing and self.training,
            keywords=keywords | {"encoder_attention_mask": encoder_attention_mask, "past_key_values": past_key_values},
        )


def run_layers(
    layers: Sequence[nn.Module] | nn.ModuleList,
    hidden: Tensor,
    mask: Mask,
    *arguments: Any,
    output_hidden_states: bool | Collection[int],
    checkpointing: bool,
    keywords: dict[str, Any],
) -> ModelOutput:
    """Run layers one after the other, and collect the states and probabilities that are requested.

    Args:
        layers: the L layers.
        hidden: state 0.
        mask: which tokens attend to which.
        arguments: further positional arguments of each layer, as transformers passes them.
        output_hidden_states: whether to return all states, or which of them.
        checkpointing: whether to compute the layers again in the backward pass.
        keywords: keywords of each layer.
    """
    if output_hidden_states is True:
        output_hidden_states = range(len(layers) + 1)
    wanted: Collection[int] = output_hidden_states or ()
    attentions: list[Tensor] | None = [] if keywords.get(ATTENTIONS) else None
    if attentions is not None:
        keywords = keywords | {"attentions": attentions}
    states = [hidden if 0 in wanted else None]
    for i, layer in enumerate(layers, start=1):
        if checkpointing:
            hidden = checkpoint(layer, hidden, mask, *arguments, use_reentrant=False, **keywords)
        else:
            hidden = layer(hidden, mask, *arguments, **keywords)
        states.append(hidden if i in wanted else None)
    return ModelOutput(
        (
            ("last_hidden_state", hidden),
            ("hidden_states", tuple(states) if wanted else None),
            ("attentions", None if attentions is None else tuple(attentions)),
        )
    )


class Pooler(nn.Module):
    """Dense layer with tanh on the hidden state of the first column."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.dense = nn.Linear(spec.hidden_size, spec.hidden_size)
        self.activation = nn.Tanh()

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Compute [B, H] from the first column of [B, S, H]."""
        pooled: Tensor = self.activation(self.dense(hidden_states[:, 0]))
        return pooled
