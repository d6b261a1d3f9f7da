"""DistilBERT (Sanh et al. 2019): BERT without token types and pooler, under names of its own."""

from __future__ import annotations

from layertap.models.bert import refuse_other_forwards
from layertap.models.config import ConfigReader
from layertap.models.fields import ACTIVATIONS, heads_of, pad_id_of
from layertap.models.key_rules import ATTENTION, LAYER, NORM_RULES, KeyRule, head_keys
from layertap.models.positions import PositionTable
from layertap.models.spec import Architecture, EncoderSpec


def _distilbert(config: ConfigReader) -> EncoderSpec:
    # `sinusoidal_pos_embds` says how the position table was initialised; it is stored as any other.
    refuse_other_forwards(config)
    width = config.name_of("dim", "hidden_size")
    hidden_size = config.size(width, 768)
    vocab = config.size("vocab_size", 30522)
    return EncoderSpec(
        architecture="distilbert",
        vocab_size=vocab,
        hidden_size=hidden_size,
        num_hidden_layers=config.size(config.name_of("n_layers", "num_hidden_layers"), 6),
        num_attention_heads=heads_of(
            config, hidden_size, default=12, field=config.name_of("n_heads", "num_attention_heads"), width=width
        ),
        intermediate_size=config.size("hidden_dim", 3072),
        hidden_act=config.one_of("activation", "gelu", ACTIVATIONS),
        layer_norm_eps=1e-12,
        positions=PositionTable(rows=config.size("max_position_embeddings", 512)),
        type_vocab_size=0,
        pad_token_id=pad_id_of(config, vocab_size=vocab, default=0),
        hidden_dropout_prob=config.fraction("dropout", 0.1),
        attention_probs_dropout_prob=config.fraction("attention_dropout", 0.1),
        pooler=False,
        attention_output_dropout_prob=0.0,
    )


STORED = "transformer.layer.#"

DISTILBERT = Architecture(
    name="distilbert",
    transformers_class="DistilBertModel",
    spec=_distilbert,
    key_rules=(
        KeyRule("distilbert.*", "*"),
        KeyRule(f"{STORED}.attention.q_lin.*", f"{ATTENTION}.query.*"),
        KeyRule(f"{STORED}.attention.k_lin.*", f"{ATTENTION}.key.*"),
        KeyRule(f"{STORED}.attention.v_lin.*", f"{ATTENTION}.value.*"),
        KeyRule(f"{STORED}.attention.out_lin.*", f"{LAYER}.attention.output.dense.*"),
        KeyRule(f"{STORED}.sa_layer_norm.*", f"{LAYER}.attention.output.LayerNorm.*"),
        KeyRule(f"{STORED}.ffn.lin1.*", f"{LAYER}.intermediate.dense.*"),
        KeyRule(f"{STORED}.ffn.lin2.*", f"{LAYER}.output.dense.*"),
        KeyRule(f"{STORED}.output_layer_norm.*", f"{LAYER}.output.LayerNorm.*"),
        *NORM_RULES,
    ),
    ignored_keys=head_keys("vocab_transform", "vocab_layer_norm", "vocab_projector", "pre_classifier"),
)
