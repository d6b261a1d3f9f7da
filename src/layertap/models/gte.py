"""GTE of Alibaba-NLP (Zhang et al. 2024, mGTE): BERT with rotary positions and gated feed-forwards.

One forward pass under two names: `gte`, with the defaults of transformers 5, and `new`, with those of the models' own
code (`NewModel`), which writes `rope_scaling` of type `ntk`.
"""

from __future__ import annotations

from layertap.models.config import MAX_LAYERS, ConfigReader
from layertap.models.fields import ACTIVATIONS, pad_id_of, refuse_other_forms
from layertap.models.key_rules import (
    ATTENTION,
    LAYER,
    NORM_RULES,
    QKV_PARTS,
    ROTARY_RULES,
    KeyRule,
    SplitRule,
    head_keys,
)
from layertap.models.positions import PlainPositions
from layertap.models.rotary import read_rope, rotated_heads_of
from layertap.models.spec import Architecture, EncoderSpec


def _gte(config: ConfigReader) -> EncoderSpec:
    _refuse(config)
    own = config.values.get("model_type") == "new"
    hidden_size = config.size("hidden_size", 768)
    heads = rotated_heads_of(config, hidden_size, default=12)
    layers = config.size("num_hidden_layers", 12, maximum=MAX_LAYERS)
    vocab = config.size("vocab_size", 30528 if own else 250048)
    rope = read_rope(
        config,
        theta=10_000.0 if own else 160_000.0,
        head_size=hidden_size // heads,
        types=("default", "ntk") if own else ("default", "linear", "dynamic", "ntk"),
    )
    dropout = config.fraction("hidden_dropout_prob", 0.1)
    return EncoderSpec(
        architecture="gte",
        vocab_size=vocab,
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=config.size("intermediate_size", 3072),
        hidden_act=config.one_of("hidden_act", "gelu", ACTIVATIONS),
        layer_norm_eps=config.fraction("layer_norm_eps", 1e-12),
        # Up to this length a dynamic base is the stated one.
        positions=PlainPositions(max_length=config.size("max_position_embeddings", 2048 if own else 8192)),
        type_vocab_size=config.size("type_vocab_size", 1, minimum=0),
        pad_token_id=pad_id_of(config, vocab_size=vocab, default=None if own else 1),
        hidden_dropout_prob=dropout,
        intermediate_dropout_prob=dropout,
        attention_probs_dropout_prob=config.fraction("attention_probs_dropout_prob", 0.0),
        pooler=False,
        intermediate_bias=False,
        gated=True,
        rotary_thetas=(rope.theta,) * layers,
        rotary_scale=rope.scale,
    )


def _refuse(config: ConfigReader) -> None:
    """Refuses what changes the forward pass and is not computed.

    `pack_qkv` says how keys are spelled, which the key rules see for themselves; `unpad_inputs` and
    `use_memory_efficient_attention` change no number.
    """
    config.refuse_unless("position_embedding_type", ("rope", None), "only rotary positions are computed")
    config.refuse_unless("layer_norm_type", ("layer_norm", None), "only layer norms are computed")
    config.refuse_unless("logn_attention_scale", (False, None), "scores are not scaled by a logarithm of the length")
    config.refuse_unless("logn_attention_clip1", (False, None), "scores are not scaled by a logarithm of the length")
    refuse_other_forms(config)


GTE = Architecture(
    name="gte",
    transformers_class="GteModel",
    spec=_gte,
    key_rules=(
        KeyRule("gte.*", "*"),
        KeyRule("new.*", "*"),
        *NORM_RULES,
        # in front: everything of a layer is the encoder's first, so that what is unknown there is refused
        KeyRule("layers.#.*", f"{LAYER}.*"),
        # the models' own, with and without `pack_qkv`
        KeyRule(f"{LAYER}.attention.q_proj.*", f"{ATTENTION}.query.*"),
        KeyRule(f"{LAYER}.attention.k_proj.*", f"{ATTENTION}.key.*"),
        KeyRule(f"{LAYER}.attention.v_proj.*", f"{ATTENTION}.value.*"),
        KeyRule(f"{LAYER}.attention.o_proj.*", f"{LAYER}.attention.output.dense.*"),
        KeyRule(f"{LAYER}.attn_ln.*", f"{LAYER}.attention.output.LayerNorm.*"),
        KeyRule(f"{LAYER}.mlp_ln.*", f"{LAYER}.output.LayerNorm.*"),
        # those of the class in transformers
        KeyRule(f"{LAYER}.post_attention_layernorm.*", f"{LAYER}.attention.output.LayerNorm.*"),
        KeyRule(f"{LAYER}.post_mlp_layernorm.*", f"{LAYER}.output.LayerNorm.*"),
        *ROTARY_RULES,
    ),
    split_rules=(
        SplitRule(f"{LAYER}.attention.qkv_proj.*", QKV_PARTS),
        # the gate is the second half
        SplitRule(f"{LAYER}.mlp.up_gate_proj.*", (f"{LAYER}.intermediate.dense.*", f"{LAYER}.intermediate.gate.*")),
    ),
    # Poolers are parts of classifiers here.
    ignored_keys=head_keys(r"(?:gte\.|new\.)?pooler", r"(?:.*\.)?rotary_emb"),
)
