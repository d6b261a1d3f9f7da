"""DistilBERT (Sanh et al. 2019): BERT without token types and pooler, under names of its own."""

from __future__ import annotations

from layertap.models.bert import ACTIVATIONS, NORM_RULES, head_keys, refuse_other_forwards
from layertap.models.config import ConfigReader
from layertap.models.spec import Architecture, EncoderSpec, KeyRule, PositionTable

LAYER = "transformer.layer.#."


def _distilbert(config: ConfigReader) -> EncoderSpec:
    # `sinusoidal_pos_embds` says how the position table was initialised; it is stored as any other.
    refuse_other_forwards(config)
    hidden_size = _size(config, "dim", "hidden_size", 768)
    heads = _size(config, "n_heads", "num_attention_heads", 12)
    if hidden_size % heads:
        raise config.fail("n_heads", f"a divisor of dim ({hidden_size})")
    vocab = config.size("vocab_size", 30522)
    pad = config.optional_id("pad_token_id", 0)
    if pad is not None and pad >= vocab:
        raise config.fail("pad_token_id", f"an id below vocab_size ({vocab})")
    return EncoderSpec(
        architecture="distilbert",
        vocab_size=vocab,
        hidden_size=hidden_size,
        num_hidden_layers=_size(config, "n_layers", "num_hidden_layers", 6),
        num_attention_heads=heads,
        intermediate_size=config.size("hidden_dim", 3072),
        hidden_act=config.one_of("activation", "gelu", ACTIVATIONS),
        layer_norm_eps=1e-12,
        positions=PositionTable(rows=config.size("max_position_embeddings", 512)),
        type_vocab_size=0,
        pad_token_id=pad,
        hidden_dropout_prob=config.number("dropout", 0.1, low=0.0, high=1.0),
        attention_probs_dropout_prob=config.number("attention_dropout", 0.1, low=0.0, high=1.0),
        pooler=False,
        attention_output_dropout_prob=0.0,
    )


def _size(config: ConfigReader, own: str, general: str, default: int) -> int:
    """A size under the family's own name, or under the one that transformers takes for it too."""
    if general not in config.values:
        return config.size(own, default)
    found = config.size(general)
    if own in config.values and config.size(own) != found:
        raise config.fail(own, f"the same as {general} ({found}), or one of the two only")
    return found


DISTILBERT = Architecture(
    name="distilbert",
    transformers_class="DistilBertModel",
    spec=_distilbert,
    key_rules=(
        KeyRule("distilbert.*", "*"),
        KeyRule(LAYER + "attention.q_lin.*", "encoder.layer.#.attention.self.query.*"),
        KeyRule(LAYER + "attention.k_lin.*", "encoder.layer.#.attention.self.key.*"),
        KeyRule(LAYER + "attention.v_lin.*", "encoder.layer.#.attention.self.value.*"),
        KeyRule(LAYER + "attention.out_lin.*", "encoder.layer.#.attention.output.dense.*"),
        KeyRule(LAYER + "sa_layer_norm.*", "encoder.layer.#.attention.output.LayerNorm.*"),
        KeyRule(LAYER + "ffn.lin1.*", "encoder.layer.#.intermediate.dense.*"),
        KeyRule(LAYER + "ffn.lin2.*", "encoder.layer.#.output.dense.*"),
        KeyRule(LAYER + "output_layer_norm.*", "encoder.layer.#.output.LayerNorm.*"),
        *NORM_RULES,
    ),
    ignored_keys=head_keys("vocab_transform", "vocab_layer_norm", "vocab_projector", "pre_classifier"),
)
