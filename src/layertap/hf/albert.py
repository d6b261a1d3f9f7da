"""`AlbertModel` and its parts, under the names that transformers gives them; see `layers`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import Tensor, nn

from layertap.checkpoints.keys import to_stored
from layertap.hf.attending import Mask, attend
from layertap.hf.config import AlbertConfig, PretrainedConfig
from layertap.hf.layers import ACTIVATIONS, Embeddings, ModelOutput, norm, run_layers
from layertap.hf.modeling import PreTrainedModel
from layertap.models.albert import ALBERT
from layertap.models.spec import EncoderSpec


class AlbertAttention(nn.Module):
    """Attention half of a layer, with the residual and the norm."""

    is_causal = False

    def __init__(self, spec: EncoderSpec, config: PretrainedConfig) -> None:
        super().__init__()
        self.config = config
        self.num_attention_heads = spec.num_attention_heads
        self.hidden_size = spec.hidden_size
        self.attention_head_size = spec.head_size
        self.all_head_size = spec.num_attention_heads * spec.head_size
        self.scaling = spec.head_size**-0.5
        self.attention_dropout = nn.Dropout(spec.attention_probs_dropout_prob)
        self.output_dropout = nn.Dropout(spec.hidden_dropout_prob)
        self.query = nn.Linear(spec.hidden_size, spec.hidden_size)
        self.key = nn.Linear(spec.hidden_size, spec.hidden_size)
        self.value = nn.Linear(spec.hidden_size, spec.hidden_size)
        self.dense = nn.Linear(spec.hidden_size, spec.hidden_size)
        self.LayerNorm = norm(spec)

    def forward(
        self, hidden_states: Tensor, attention_mask: Mask = None, **keywords: Any
    ) -> tuple[Tensor, Tensor | None]:
        """Return the output [B, S, H] of this half, and the probabilities with eager attention."""
        context, probabilities = attend(
            self.query(hidden_states),
            self.key(hidden_states),
            self.value(hidden_states),
            attention_mask,
            num_heads=self.num_attention_heads,
            dropout=self.attention_dropout.p if self.training else 0.0,
            eager=self.config.is_eager,
            keywords=keywords,
        )
        return self.LayerNorm(hidden_states + self.output_dropout(self.dense(context))), probabilities


class AlbertLayer(nn.Module):
    """Layer of the encoder: attention, then feed-forward."""

    chunk_size_feed_forward = 0
    seq_len_dim = 1

    def __init__(self, spec: EncoderSpec, config: PretrainedConfig) -> None:
        super().__init__()
        self.config = config
        self.full_layer_layer_norm = norm(spec)
        self.attention = AlbertAttention(spec, config)
        self.ffn = nn.Linear(spec.hidden_size, spec.intermediate_size)
        self.ffn_output = nn.Linear(spec.intermediate_size, spec.hidden_size)
        self.activation = ACTIVATIONS[spec.hidden_act]()
        self.dropout = nn.Dropout(spec.hidden_dropout_prob)  # there in transformers, and not used

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Mask = None,
        *,
        attentions: list[Tensor] | None = None,
        **keywords: Any,
    ) -> Tensor:
        """Run the layer: [B, S, H]. The list `attentions` gets its probabilities [B, A, S, S]."""
        mixed, probabilities = self.attention(hidden_states, attention_mask, **keywords)
        if attentions is not None:
            attentions.append(probabilities)
        output: Tensor = self.full_layer_layer_norm(self.ff_chunk(mixed) + mixed)
        return output

    def ff_chunk(self, attention_output: Tensor) -> Tensor:
        """Compute the feed-forward without the residual and the norm: [B, S, H]."""
        output: Tensor = self.ffn_output(self.activation(self.ffn(attention_output)))
        return output


class AlbertLayerGroup(nn.Module):
    """Group of layers, which the encoder runs several times."""

    def __init__(self, spec: EncoderSpec, config: PretrainedConfig) -> None:
        super().__init__()
        self.albert_layers = nn.ModuleList([AlbertLayer(spec, config)])

    def forward(self, hidden_states: Tensor, attention_mask: Mask = None, **keywords: Any) -> Tensor:
        """Run the layers of the group: [B, S, H]."""
        for layer in self.albert_layers:
            hidden_states = layer(hidden_states, attention_mask, **keywords)
        return hidden_states


class AlbertTransformer(nn.Module):
    """Projection of the embeddings to the hidden size, and the layers."""

    gradient_checkpointing = False

    def __init__(self, spec: EncoderSpec, config: PretrainedConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding_hidden_mapping_in = nn.Linear(spec.table_size, spec.hidden_size)
        self.albert_layer_groups = nn.ModuleList(AlbertLayerGroup(spec, config) for _ in range(spec.num_blocks))

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Mask = None,
        *,
        output_hidden_states: bool | Collection[int] = False,
        **keywords: Any,
    ) -> ModelOutput:
        """Run the layers on the output [B, S, E] of the embeddings; the arguments are those of `layers.Stack`."""
        layers, groups = self.config.num_hidden_layers, self.config.num_hidden_groups
        return run_layers(
            [self.albert_layer_groups[int(i / (layers / groups))] for i in range(layers)],
            self.embedding_hidden_mapping_in(hidden_states),
            attention_mask,
            output_hidden_states=output_hidden_states,
            checkpointing=self.gradient_checkpointing and self.training,
            keywords=keywords,
        )


class AlbertModel(PreTrainedModel):
    """ALBERT without a head for a task: https://arxiv.org/abs/1909.11942."""

    config_class = AlbertConfig
    base_model_prefix = "albert"
    can_be_decoder = False

    def _build(self, spec: EncoderSpec, *, pooler: bool) -> None:
        self.embeddings = Embeddings(spec)
        self.encoder: nn.Module = AlbertTransformer(spec, self.config)
        self.pooler = nn.Linear(spec.hidden_size, spec.hidden_size) if pooler else None
        self.pooler_activation = nn.Tanh() if pooler else None

    @classmethod
    def _own_name(cls, name: str) -> str:
        return to_stored(name, ALBERT.class_rules)

    def _head(self, hidden: Tensor) -> Tensor:
        assert self.pooler is not None
        assert self.pooler_activation is not None
        pooled: Tensor = self.pooler_activation(self.pooler(hidden[:, 0]))
        return pooled
