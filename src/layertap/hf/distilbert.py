"""`DistilBertModel` and its parts, under the names that transformers gives them; see `layers`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from layertap.checkpoints.keys import to_stored
from layertap.hf.attending import Mask, attend
from layertap.hf.config import DistilBertConfig, PretrainedConfig
from layertap.hf.layers import ACTIVATIONS, ModelOutput, norm, run_layers, table, word_vectors
from layertap.hf.modeling import PreTrainedModel
from layertap.hf.padded import check_positions, default_positions
from layertap.models.distilbert import DISTILBERT
from layertap.models.positions import PositionTable
from layertap.models.spec import EncoderSpec


class DistilBertEmbeddings(nn.Module):
    """Sum of word and position embeddings, normed."""

    position_ids: Tensor

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        positions, width = spec.positions, spec.table_size
        assert isinstance(positions, PositionTable), "the family has one"
        self._positions = positions
        self.word_embeddings = table(spec.vocab_size, width, padding_idx=spec.pad_token_id)
        self.position_embeddings = table(positions.rows, width, padding_idx=None)
        self.LayerNorm = norm(spec, width)
        self.dropout = nn.Dropout(spec.hidden_dropout_prob)
        self.make_buffers()

    def make_buffers(self) -> None:
        """Make the buffer of columns, which no checkpoint stores, on the device of the weights."""
        columns = torch.arange(self._positions.rows, device=self.word_embeddings.weight.device)
        self.register_buffer("position_ids", columns.expand((1, -1)), persistent=False)

    def forward(
        self,
        input_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> Tensor:
        """Compute the embeddings [B, S, H] of ids, or of word embeddings [B, S, H].

        Raises:
            OptionError: a position beyond the table.
            TokenizerError: an id beyond its table.
        """
        words = word_vectors(self.word_embeddings, input_ids, inputs_embeds)
        if position_ids is None:
            position_ids = default_positions(self._positions, words.shape[:2], input_ids, words.device)
        check_positions(position_ids, self._positions, self.position_embeddings)
        embedded: Tensor = self.dropout(self.LayerNorm(words + self.position_embeddings(position_ids)))
        return embedded


class DistilBertSelfAttention(nn.Module):
    """Self-attention with its projections, the one of the output among them."""

    is_causal = False

    def __init__(self, spec: EncoderSpec, config: PretrainedConfig) -> None:
        super().__init__()
        self.config = config
        self.n_heads = spec.num_attention_heads
        self.dim = spec.hidden_size
        self.attention_head_size = spec.head_size
        self.scaling = spec.head_size**-0.5
        self.q_lin = nn.Linear(spec.hidden_size, spec.hidden_size)
        self.k_lin = nn.Linear(spec.hidden_size, spec.hidden_size)
        self.v_lin = nn.Linear(spec.hidden_size, spec.hidden_size)
        self.out_lin = nn.Linear(spec.hidden_size, spec.hidden_size)
        self.dropout = nn.Dropout(spec.attention_probs_dropout_prob)

    def forward(
        self, hidden_states: Tensor, attention_mask: Mask = None, **keywords: Any
    ) -> tuple[Tensor, Tensor | None]:
        """Return the output [B, S, H] of attention, and the probabilities with eager attention."""
        context, probabilities = attend(
            self.q_lin(hidden_states),
            self.k_lin(hidden_states),
            self.v_lin(hidden_states),
            attention_mask,
            num_heads=self.n_heads,
            dropout=self.dropout.p if self.training else 0.0,
            eager=self.config.is_eager,
            keywords=keywords,
        )
        return self.out_lin(context), probabilities


class FeedForward(nn.Module):
    """Feed-forward of a layer, without the residual and the norm."""

    chunk_size_feed_forward = 0
    seq_len_dim = 1

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.dropout = nn.Dropout(spec.hidden_dropout_prob)
        self.lin1 = nn.Linear(spec.hidden_size, spec.intermediate_size)
        self.lin2 = nn.Linear(spec.intermediate_size, spec.hidden_size)
        self.activation = ACTIVATIONS[spec.hidden_act]()

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as in transformers
        """Compute `dropout(lin2(activation(lin1(input))))`: [B, S, H]."""
        return self.ff_chunk(input)

    def ff_chunk(self, input: Tensor) -> Tensor:  # noqa: A002 - as in transformers
        """Compute the whole feed-forward: [B, S, H]."""
        output: Tensor = self.dropout(self.lin2(self.activation(self.lin1(input))))
        return output


class TransformerBlock(nn.Module):
    """Layer of the encoder: attention, then feed-forward."""

    def __init__(self, spec: EncoderSpec, config: PretrainedConfig) -> None:
        super().__init__()
        self.attention = DistilBertSelfAttention(spec, config)
        self.sa_layer_norm = norm(spec)
        self.ffn = FeedForward(spec)
        self.output_layer_norm = norm(spec)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Mask = None,
        *,
        attentions: list[Tensor] | None = None,
        **keywords: Any,
    ) -> Tensor:
        """Run the layer: [B, S, H]. The list `attentions` gets its probabilities [B, A, S, S]."""
        mixed, probabilities = self.attention(hidden_states, attention_mask=attention_mask, **keywords)
        if attentions is not None:
            attentions.append(probabilities)
        normed: Tensor = self.sa_layer_norm(mixed + hidden_states)
        output: Tensor = self.output_layer_norm(self.ffn(normed) + normed)
        return output


class Transformer(nn.Module):
    """Layers of the encoder, one after the other."""

    gradient_checkpointing = False

    def __init__(self, spec: EncoderSpec, config: PretrainedConfig) -> None:
        super().__init__()
        self.n_layers = spec.num_hidden_layers
        self.layer = nn.ModuleList(TransformerBlock(spec, config) for _ in range(spec.num_hidden_layers))

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Mask = None,
        *,
        output_hidden_states: bool | Collection[int] = False,
        **keywords: Any,
    ) -> ModelOutput:
        """Run the layers on the output [B, S, H] of the embeddings; the arguments are those of `layers.Stack`."""
        return run_layers(
            self.layer,
            hidden_states,
            attention_mask,
            output_hidden_states=output_hidden_states,
            checkpointing=self.gradient_checkpointing and self.training,
            keywords=keywords,
        )


class DistilBertModel(PreTrainedModel):
    """DistilBERT without a head for a task: https://arxiv.org/abs/1910.01108."""

    config_class = DistilBertConfig
    base_model_prefix = "distilbert"
    can_be_decoder = False

    def _build(self, spec: EncoderSpec, *, pooler: bool) -> None:
        assert not pooler, "the family has none"
        self.embeddings = DistilBertEmbeddings(spec)
        self.transformer: nn.Module = Transformer(spec, self.config)
        self.pooler = None

    @classmethod
    def _own_name(cls, name: str) -> str:
        return to_stored(name, DISTILBERT.class_rules)

    def _encode(self, hidden: Tensor, mask: Mask, keywords: dict[str, Any]) -> ModelOutput:
        output: ModelOutput = self.transformer(hidden_states=hidden, attention_mask=mask, **keywords)
        return output

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, DistilBertEmbeddings) and self.config.sinusoidal_pos_embds:
            fill_with_sinusoids(module.position_embeddings.weight)


def fill_with_sinusoids(weight: Tensor) -> None:
    """Fill a table with sines in even columns and cosines in odd ones (Vaswani et al. 2017), computed in float64."""
    rows, width = weight.shape
    steps = torch.arange(width, dtype=torch.float64, device=weight.device) // 2 * 2 / width
    angles = torch.arange(rows, dtype=torch.float64, device=weight.device)[:, None] / 10000**steps
    weight[:, 0::2] = angles[:, 0::2].sin().to(weight.dtype)
    weight[:, 1::2] = angles[:, 1::2].cos().to(weight.dtype)
