"""NomicBERT (Nussbaum et al. 2024): BERT with rotary positions and gated feed-forwards without biases.

Configs come in two spellings, and on the hub in both at once: that of transformers 5, and that of the models' own
code, which is GPT-2's (`n_embd`, `n_layer`, ...) with other defaults. Keys come in two spellings, too. In its own the
family also has feed-forwards without a gate, and biases (nomic-xlm-2048); transformers 5 has no class for those.
"""

from __future__ import annotations

from typing import Any

from layertap.models.config import MAX_LAYERS, ConfigReader
from layertap.models.fields import ACTIVATIONS, DECODER, pad_id_of, refuse_other_forms
from layertap.models.key_rules import (
    LAYER,
    NORM_RULES,
    QKV_PARTS,
    ROTARY_RULES,
    KeyRule,
    SplitRule,
    head_keys,
)
from layertap.models.positions import PlainPositions
from layertap.models.rotary import LARGEST, Rope, base_of, read_rope, rotated_heads_of
from layertap.models.spec import Activation, Architecture, EncoderSpec

# Fields of the own spelling alone: a config that states one of them means that spelling's defaults.
OWN = ("n_embd", "n_layer", "n_head", "n_inner", "activation_function", "rotary_emb_fraction")

# activation_function -> the activation, and whether it is a gate's
OWN_ACTIVATIONS: dict[str, tuple[Activation, bool]] = {
    "swiglu": ("silu", True),
    "geglu": ("gelu", True),
    "gelu": ("gelu", False),
}
OWN_MULTIPLE = 256
"""Widths of gated feed-forwards are rounded up to a multiple of it, in the own spelling."""


class _Fields:
    """The fields of a config in either spelling."""

    def __init__(self, config: ConfigReader) -> None:
        self.config = config
        self.own = any(field in config.values for field in OWN)

    def default(self, value: Any, own: Any) -> Any:
        """Return a default, which is another one in the own spelling."""
        return own if self.own else value


def _nomic_bert(config: ConfigReader) -> EncoderSpec:
    _refuse(config)
    fields = _Fields(config)
    hidden_size = config.size(config.name_of("n_embd", "hidden_size"), 768)
    layers = config.size(config.name_of("n_layer", "num_hidden_layers"), 12, maximum=MAX_LAYERS)
    heads = rotated_heads_of(config, hidden_size, default=12, field=config.name_of("n_head", "num_attention_heads"))
    config.refuse_unless("num_heads_kv", (heads, None), "only as many heads of keys as of queries are computed")
    activation, gated = _activation(fields)
    rope = _rope(fields, hidden_size // heads)
    vocab = _vocab_size(fields)
    qkv_bias = config.flag("qkv_proj_bias", fields.own)
    dropout = fields.default(0.0, 0.1)
    return EncoderSpec(
        architecture="nomic_bert",
        vocab_size=vocab,
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=_intermediate_size(fields, hidden_size, gated),
        hidden_act=activation,
        layer_norm_eps=config.fraction(
            config.name_of("layer_norm_epsilon", "layer_norm_eps"), fields.default(1e-12, 1e-5)
        ),
        positions=PlainPositions(max_length=_max_length(fields, rope)),
        type_vocab_size=config.size("type_vocab_size", 2, minimum=0),
        pad_token_id=pad_id_of(config, vocab_size=vocab, default=fields.default(0, None)),
        hidden_dropout_prob=config.fraction(config.name_of("resid_pdrop", "hidden_dropout_prob"), dropout),
        attention_probs_dropout_prob=config.fraction(
            config.name_of("attn_pdrop", "attention_probs_dropout_prob"), dropout
        ),
        pooler=False,
        qkv_bias=qkv_bias,
        attention_output_bias=qkv_bias,
        intermediate_bias=config.flag("mlp_fc1_bias", fields.own),
        output_bias=config.flag("mlp_fc2_bias", fields.own),
        gated=gated,
        rotary_thetas=(rope.theta,) * layers,
        rotary_scale=rope.scale,
    )


def _refuse(config: ConfigReader) -> None:
    """Refuses what changes the forward pass and is not computed."""
    experts = "mixtures of experts (nomic-embed-text-v2-moe) are not supported"
    config.refuse_unless("num_experts", (0, None), experts)
    config.refuse_unless("moe_every_n_layers", (0, None), experts)
    config.refuse_unless("prenorm", (False, None), "only norms after each half of a block are computed")
    config.refuse_unless("parallel_block", (False, None), "attention and feed-forward side by side are not supported")
    config.refuse_unless("use_rms_norm", (False, None), "only layer norms are computed")
    config.refuse_unless("causal", (False, None), DECODER)
    refuse_other_forms(config)
    config.refuse_unless("rotary_emb_interleaved", (False, None), "only halves of a head are rotated")
    config.refuse_unless("rotary_emb_scale_base", (None,), "scaled rotary positions (XPos) are not supported")
    config.refuse_unless("rotary_head_dim", (False, None), "rotation along the heads is not supported")
    config.refuse_unless("rotary_emb_fraction", (1, None), "only heads that are rotated whole are supported")


def _activation(fields: _Fields) -> tuple[Activation, bool]:
    config = fields.config
    if not fields.own:
        activation: Activation = config.one_of("hidden_act", "silu", ACTIVATIONS)
        return activation, True
    if "rotary_emb_fraction" not in config.values:  # its own default is 0: a table of learned positions
        raise config.fail("rotary_emb_fraction", "1.0")
    own: tuple[Activation, bool] = config.one_of("activation_function", "", OWN_ACTIVATIONS)
    if "hidden_act" in config.values and config.one_of("hidden_act", "", ACTIVATIONS) != own[0]:
        raise config.fail("hidden_act", f"that of activation_function ({own[0]})")
    return own


def _intermediate_size(fields: _Fields, hidden_size: int, gated: bool) -> int:
    config = fields.config
    if not fields.own:
        return config.size("intermediate_size", 3072)
    inner = config.size("n_inner") if config.values.get("n_inner") is not None else None
    if gated:
        inner = hidden_size * 8 // 3 if inner is None else inner
        inner = -(-inner // OWN_MULTIPLE) * OWN_MULTIPLE
    elif inner is None:
        inner = 4 * hidden_size
    if config.size("intermediate_size", inner) != inner:
        raise config.fail("intermediate_size", f"what n_inner comes to ({inner})")
    return inner


def _vocab_size(fields: _Fields) -> int:
    config = fields.config
    vocab = config.size("vocab_size", fields.default(30528, 50257))
    multiple = config.size("pad_vocab_size_multiple", 1) if fields.own else 1
    return -(-vocab // multiple) * multiple


def _rope(fields: _Fields, head_size: int) -> Rope:
    config = fields.config
    rope = read_rope(
        config,
        theta=fields.default(1000.0, 10_000.0),
        head_size=head_size,
        types=("default", "linear", "dynamic"),
    )
    if config.values.get("rotary_emb_base") is None:
        return rope
    theta = base_of(config, "rotary_emb_base", rope.theta)
    others = (config.values, *(config.values.get(name) or {} for name in ("rope_parameters", "rope_scaling")))
    if any(other.get("rope_theta") is not None for other in others) and rope.theta != theta:
        raise config.fail("rotary_emb_base", f"rope_theta ({rope.theta})")
    return Rope(theta=theta, scale=rope.scale, dynamic=rope.dynamic)


def _max_length(fields: _Fields, rope: Rope) -> int:
    """Return the longest sequence whose numbers do not depend on the rest of its batch.

    Scaling that begins beyond a length (dynamic NTK) follows the longest sequence of a batch, and in the models' own
    code of all batches so far; up to that length it does nothing.
    """
    config = fields.config
    if "n_positions" in config.values:
        limit = config.size("n_positions")
    else:
        limit = config.size("max_position_embeddings", fields.default(2048, 1024))
    if rope.dynamic:
        limit = min(limit, config.size("max_position_embeddings", 2048))
    if config.values.get("rotary_scaling_factor") is not None:
        config.number("rotary_scaling_factor", 0.0, low=0.0, high=LARGEST)
        limit = min(limit, config.size("max_trained_positions", 2048))
    return limit


NOMIC_BERT = Architecture(
    name="nomic_bert",
    transformers_class="NomicBertModel",
    spec=_nomic_bert,
    key_rules=(
        KeyRule("nomic_bert.*", "*"),
        KeyRule("bert.*", "*"),
        *NORM_RULES,
        # in front: everything of a layer is the encoder's first, so that what is unknown there is refused
        KeyRule("layers.#.*", f"{LAYER}.*"),
        KeyRule("encoder.layers.#.*", f"{LAYER}.*"),
        # the models' own
        KeyRule("emb_ln.*", "embeddings.LayerNorm.*"),
        KeyRule(f"{LAYER}.attn.out_proj.*", f"{LAYER}.attention.output.dense.*"),
        KeyRule(f"{LAYER}.norm1.*", f"{LAYER}.attention.output.LayerNorm.*"),
        KeyRule(f"{LAYER}.norm2.*", f"{LAYER}.output.LayerNorm.*"),
        KeyRule(f"{LAYER}.mlp.fc1.*", f"{LAYER}.intermediate.dense.*"),
        KeyRule(f"{LAYER}.mlp.fc11.*", f"{LAYER}.intermediate.dense.*"),
        KeyRule(f"{LAYER}.mlp.fc12.*", f"{LAYER}.intermediate.gate.*"),
        KeyRule(f"{LAYER}.mlp.fc2.*", f"{LAYER}.output.dense.*"),
        # those of the class in transformers
        KeyRule(f"{LAYER}.post_attention_layernorm.*", f"{LAYER}.attention.output.LayerNorm.*"),
        KeyRule(f"{LAYER}.post_mlp_layernorm.*", f"{LAYER}.output.LayerNorm.*"),
        *ROTARY_RULES,
    ),
    split_rules=(SplitRule(f"{LAYER}.attn.Wqkv.*", QKV_PARTS),),
    # Poolers are parts of classifiers here.
    ignored_keys=head_keys(r"(?:nomic_bert\.|bert\.)?pooler", r"(?:.*\.)?rotary_emb"),
)
