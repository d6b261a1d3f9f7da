"""EuroBERT (Boizard et al. 2025): Llama's blocks, attending in both directions."""

from __future__ import annotations

from layertap.errors import ConfigError
from layertap.models.bert import ACTIVATIONS, head_keys
from layertap.models.config import MAX_LAYERS, ConfigReader
from layertap.models.rotary import heads_of, pad_id_of, refuse_other_forms, theta_of, top_theta_of
from layertap.models.spec import Architecture, EncoderSpec, KeyRule, PlainPositions


def _spec(config: ConfigReader) -> EncoderSpec:
    refuse_other_forms(config)
    hidden_size = config.size("hidden_size", 768)
    vocab_size = config.size("vocab_size", 128_256)
    layers = config.size("num_hidden_layers", 12, maximum=MAX_LAYERS)
    heads = heads_of(config, hidden_size=hidden_size, default=12)
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
        layer_norm_eps=config.number("rms_norm_eps", 1e-5, low=0.0, high=1.0),
        positions=PlainPositions(max_length=config.size("max_position_embeddings", 8192)),
        type_vocab_size=0,
        pad_token_id=pad_id_of(config, vocab_size=vocab_size, default=128_001),
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=config.number("attention_dropout", 0.0, low=0.0, high=1.0),
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
        rotary_thetas=(_theta(config),) * layers,
    )


def _key_value_heads(config: ConfigReader, heads: int) -> int:
    if config.values.get("num_key_value_heads") is None:
        return heads
    found = config.size("num_key_value_heads")
    if heads % found:
        raise config.fail("num_key_value_heads", f"a divisor of num_attention_heads ({heads})")
    return found


def _theta(config: ConfigReader) -> float:
    old, new = (config.values.get(name) or None for name in ("rope_scaling", "rope_parameters"))
    if old is not None and new is not None:
        raise ConfigError(f"{config.file}: rope_scaling: expected nothing beside rope_parameters, found both")
    theta = top_theta_of(config, "rope_theta", 10_000.0)
    return theta_of(config, "rope_parameters" if old is None else "rope_scaling", new if old is None else old, theta)


_LAYER = "encoder.layer.#"

EUROBERT = Architecture(
    name="eurobert",
    transformers_class="EuroBertModel",
    spec=_spec,
    key_rules=(
        KeyRule("model.*", "*"),
        KeyRule("embed_tokens.*", "embeddings.word_embeddings.*"),
        KeyRule("norm.*", "encoder.final_norm.*"),
        # Everything of a layer is the encoder's first, so that what is unknown there is refused.
        KeyRule("layers.#.*", f"{_LAYER}.*"),
        KeyRule(f"{_LAYER}.input_layernorm.*", f"{_LAYER}.attention.LayerNorm.*"),
        KeyRule(f"{_LAYER}.self_attn.q_proj.*", f"{_LAYER}.attention.self.query.*"),
        KeyRule(f"{_LAYER}.self_attn.k_proj.*", f"{_LAYER}.attention.self.key.*"),
        KeyRule(f"{_LAYER}.self_attn.v_proj.*", f"{_LAYER}.attention.self.value.*"),
        KeyRule(f"{_LAYER}.self_attn.o_proj.*", f"{_LAYER}.attention.output.dense.*"),
        KeyRule(f"{_LAYER}.post_attention_layernorm.*", f"{_LAYER}.LayerNorm.*"),
        KeyRule(f"{_LAYER}.mlp.gate_proj.*", f"{_LAYER}.intermediate.gate.*"),
        KeyRule(f"{_LAYER}.mlp.up_proj.*", f"{_LAYER}.intermediate.dense.*"),
        KeyRule(f"{_LAYER}.mlp.down_proj.*", f"{_LAYER}.output.dense.*"),
    ),
    ignored_keys=head_keys("dense"),
)
