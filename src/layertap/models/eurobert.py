"""EuroBERT (Boizard et al. 2025): Llama's blocks, attending in both directions."""

from __future__ import annotations

from layertap.models.config import MAX_LAYERS, ConfigReader
from layertap.models.fields import ACTIVATIONS, pad_id_of, refuse_other_forms
from layertap.models.key_rules import LAYER, ROTARY_RULES, KeyRule, head_keys
from layertap.models.positions import PlainPositions
from layertap.models.rotary import read_rope, rotated_heads_of
from layertap.models.spec import Architecture, EncoderSpec


def _eurobert(config: ConfigReader) -> EncoderSpec:
    refuse_other_forms(config)
    hidden_size = config.size("hidden_size", 768)
    vocab_size = config.size("vocab_size", 128_256)
    layers = config.size("num_hidden_layers", 12, maximum=MAX_LAYERS)
    heads = rotated_heads_of(config, hidden_size, default=12)
    rope = read_rope(config, theta=10_000.0, head_size=hidden_size // heads, types=("default",))
    attention_bias = config.flag("attention_bias", False)
    mlp_bias = config.flag("mlp_bias", False)
    return EncoderSpec(
        architecture="eurobert",
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=config.size("intermediate_size", 3072),
        hidden_act=config.one_of("hidden_act", "silu", ACTIVATIONS),
        layer_norm_eps=config.fraction("rms_norm_eps", 1e-5),
        positions=PlainPositions(max_length=config.size("max_position_embeddings", 8192)),
        type_vocab_size=0,
        pad_token_id=pad_id_of(config, vocab_size=vocab_size, default=128_001),
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=config.fraction("attention_dropout", 0.0),
        pooler=False,
        embedding_norm=False,
        norm="rms",
        norm_position="pre",
        qkv_bias=attention_bias,
        attention_output_bias=attention_bias,
        intermediate_bias=mlp_bias,
        output_bias=mlp_bias,
        gated=True,
        num_key_value_heads=_key_value_heads(config, heads),
        rotary_thetas=(rope.theta,) * layers,
    )


def _key_value_heads(config: ConfigReader, heads: int) -> int:
    if config.values.get("num_key_value_heads") is None:
        return heads
    key_value_heads = config.size("num_key_value_heads")
    if heads % key_value_heads:
        raise config.fail("num_key_value_heads", f"a divisor of num_attention_heads ({heads})")
    return key_value_heads


EUROBERT = Architecture(
    name="eurobert",
    transformers_class="EuroBertModel",
    spec=_eurobert,
    key_rules=(
        KeyRule("model.*", "*"),
        KeyRule("embed_tokens.*", "embeddings.word_embeddings.*"),
        KeyRule("norm.*", "encoder.final_norm.*"),
        # in front: everything of a layer is the encoder's first, so that what is unknown there is refused
        KeyRule("layers.#.*", f"{LAYER}.*"),
        KeyRule(f"{LAYER}.input_layernorm.*", f"{LAYER}.attention.LayerNorm.*"),
        KeyRule(f"{LAYER}.post_attention_layernorm.*", f"{LAYER}.LayerNorm.*"),
        *ROTARY_RULES,
    ),
    ignored_keys=head_keys("dense"),
)
