"""ModernBERT (Warner et al. 2024): pre-norm, rotary, gated, most layers within a window.

Configs come in two spellings. transformers 4 has `global_attn_every_n_layers`, `global_rope_theta` and
`local_rope_theta`, transformers 5 has `layer_types` and `rope_parameters`; where a file holds both, the latter count,
as in transformers 5.
"""

from __future__ import annotations

from collections.abc import Mapping

from layertap.errors import UnsupportedModelError
from layertap.models.config import MAX_LAYERS, ConfigReader, short
from layertap.models.fields import ACTIVATIONS, pad_id_of, refuse_other_forms
from layertap.models.key_rules import ATTENTION, LAYER, QKV_PARTS, KeyRule, SplitRule, head_keys
from layertap.models.positions import PlainPositions
from layertap.models.rotary import base_of, rope_of, rotated_heads_of
from layertap.models.spec import Architecture, EncoderSpec

GLOBAL, LOCAL = "full_attention", "sliding_attention"


def _modernbert(config: ConfigReader) -> EncoderSpec:
    refuse_other_forms(config)
    # What training code wrote there; neither version of transformers reads it.
    config.refuse_unless(
        "position_embedding_type", ("absolute", "sans_pos", "rope", None), "only rotary positions are computed"
    )
    hidden_size = config.size("hidden_size", 768)
    vocab_size = config.size("vocab_size", 50368)
    layers = config.size("num_hidden_layers", 22, maximum=MAX_LAYERS)
    is_global = _global_layers(config, layers)
    heads = rotated_heads_of(config, hidden_size, default=12)
    global_theta, local_theta = _thetas(config, hidden_size // heads)
    window = _window(config)
    attention_bias = config.flag("attention_bias", False)
    mlp_bias = config.flag("mlp_bias", False)
    attention_dropout = config.fraction("attention_dropout", 0.0)
    return EncoderSpec(
        architecture="modernbert",
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=config.size("intermediate_size", 1152),
        hidden_act=config.one_of("hidden_activation", "gelu", ACTIVATIONS),
        layer_norm_eps=config.fraction("norm_eps", 1e-5),
        positions=PlainPositions(max_length=config.size("max_position_embeddings", 8192)),
        type_vocab_size=0,
        pad_token_id=pad_id_of(config, vocab_size=vocab_size, default=50283),
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=attention_dropout,
        pooler=False,
        norm_bias=config.flag("norm_bias", False),
        norm_position="pre",
        first_attention_norm=False,
        qkv_bias=attention_bias,
        attention_output_bias=attention_bias,
        intermediate_bias=mlp_bias,
        output_bias=mlp_bias,
        gated=True,
        rotary_thetas=tuple(global_theta if everywhere else local_theta for everywhere in is_global),
        windows=tuple(None if everywhere else window for everywhere in is_global),
        embedding_dropout_prob=config.fraction("embedding_dropout", 0.0),
        attention_output_dropout_prob=attention_dropout,
        intermediate_dropout_prob=config.fraction("mlp_dropout", 0.0),
    )


def _global_layers(config: ConfigReader, layers: int) -> list[bool]:
    """Return for each layer whether every token attends to every other."""
    stated = config.values.get("layer_types")
    if stated is None:
        every = config.size("global_attn_every_n_layers", 3)
        return [i % every == 0 for i in range(layers)]
    if not isinstance(stated, list) or len(stated) != layers or any(kind not in (GLOBAL, LOCAL) for kind in stated):
        raise config.fail("layer_types", f"{layers} times {GLOBAL} or {LOCAL}, one for each layer")
    return [kind == GLOBAL for kind in stated]


def _window(config: ConfigReader) -> int:
    """Return the largest distance in a local layer: half of `local_attention`, itself included."""
    window = config.size("local_attention", 128) // 2
    # transformers 5 takes it as another name of the same number
    config.refuse_unless("sliding_window", (window,), f"expected half of local_attention, {window}")
    return window


def _thetas(config: ConfigReader, head_size: int) -> tuple[float, float]:
    """Return the rotary bases of global and of local layers."""

    def said(field: str, settings: object, theta: float) -> float:
        return rope_of(config, field, settings, theta=theta, head_size=head_size, types=("default",)).theta

    global_theta = base_of(config, "global_rope_theta", 160_000.0)
    has_no_local = "local_rope_theta" in config.values and config.values["local_rope_theta"] is None
    local_theta = global_theta if has_no_local else base_of(config, "local_rope_theta", 10_000.0)
    nested = config.values.get("rope_parameters")
    if nested is not None:
        if not isinstance(nested, Mapping):
            raise config.fail("rope_parameters", f"an object with {GLOBAL} and {LOCAL}")
        unknown = next((name for name in nested if name not in (GLOBAL, LOCAL)), None)
        if unknown is not None:
            raise UnsupportedModelError(
                f"{config.file}: rope_parameters: expected {GLOBAL} and {LOCAL}, found {short(unknown)}"
            )
        global_theta = said(f"rope_parameters.{GLOBAL}", nested.get(GLOBAL), global_theta)
        local_theta = said(f"rope_parameters.{LOCAL}", nested.get(LOCAL), local_theta)
    scaling = config.values.get("rope_scaling")  # which transformers 5 lays over both
    return said("rope_scaling", scaling, global_theta), said("rope_scaling", scaling, local_theta)


MODERNBERT = Architecture(
    name="modernbert",
    transformers_class="ModernBertModel",
    spec=_modernbert,
    key_rules=(
        KeyRule("model.*", "*"),
        KeyRule("embeddings.tok_embeddings.*", "embeddings.word_embeddings.*"),
        KeyRule("embeddings.norm.*", "embeddings.LayerNorm.*"),
        KeyRule("final_norm.*", "encoder.final_norm.*"),
        # in front: everything of a layer is the encoder's first, so that what is unknown there is refused
        KeyRule("layers.#.*", f"{LAYER}.*"),
        KeyRule(f"{LAYER}.attn_norm.*", f"{LAYER}.attention.LayerNorm.*"),
        KeyRule(f"{LAYER}.attn.Wqkv.*", f"{ATTENTION}.qkv.*"),
        KeyRule(f"{LAYER}.attn.Wo.*", f"{LAYER}.attention.output.dense.*"),
        KeyRule(f"{LAYER}.mlp_norm.*", f"{LAYER}.LayerNorm.*"),
        KeyRule(f"{LAYER}.mlp.Wi.*", f"{LAYER}.intermediate.both.*"),
        KeyRule(f"{LAYER}.mlp.Wo.*", f"{LAYER}.output.dense.*"),
    ),
    ignored_keys=head_keys("head", "decoder"),
    split_rules=(
        SplitRule(f"{ATTENTION}.qkv.*", QKV_PARTS),
        # the gate is the first half
        SplitRule(f"{LAYER}.intermediate.both.*", (f"{LAYER}.intermediate.gate.*", f"{LAYER}.intermediate.dense.*")),
    ),
)
