"""ALBERT (Lan et al. 2020): BERT with narrow tables, and layers that share groups of weights."""

from __future__ import annotations

from dataclasses import replace

from layertap.models.bert import absolute_post_norm
from layertap.models.config import MAX_LAYERS, ConfigReader
from layertap.models.key_rules import ATTENTION, LAYER, NORM_RULES, KeyRule, head_keys
from layertap.models.spec import Architecture, EncoderSpec

# Those of transformers' AlbertConfig, which are albert-xxlarge's.
DEFAULTS = {
    "embedding_size": 128,
    "hidden_size": 4096,
    "num_attention_heads": 64,
    "intermediate_size": 16384,
    "hidden_act": "gelu_new",
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


def _albert(config: ConfigReader) -> EncoderSpec:
    config = config.with_defaults(DEFAULTS)
    config.refuse_unless("inner_group_num", (1, None), "a group of several layers is not supported")
    layers = config.size("num_hidden_layers", 12, maximum=MAX_LAYERS)
    groups = config.size("num_hidden_groups", 1)
    if groups > layers:
        raise config.fail("num_hidden_groups", f"at most num_hidden_layers ({layers})")
    spec = absolute_post_norm(
        config,
        architecture="albert",
        positions_from_ids=False,
        layer_norm_eps=1e-12,
        type_vocab_size=2,
        pad_token_id=0,
        vocab_size=30000,
        max_position_embeddings=512,
        factorised=True,
    )
    return replace(
        spec,
        embedding_size=config.size("embedding_size"),
        embedding_projection=True,
        # In floating point, as transformers has it: where groups do not divide layers, rounding decides.
        blocks=tuple(int(i / (layers / groups)) for i in range(layers)),
        output_dropout=False,
    )


STORED = "encoder.albert_layer_groups.#.albert_layers.0"

ALBERT = Architecture(
    name="albert",
    transformers_class="AlbertModel",
    spec=_albert,
    key_rules=(
        KeyRule("albert.*", "*"),
        KeyRule("encoder.embedding_hidden_mapping_in.*", "embeddings.projection.*"),
        KeyRule(f"{STORED}.attention.query.*", f"{ATTENTION}.query.*"),
        KeyRule(f"{STORED}.attention.key.*", f"{ATTENTION}.key.*"),
        KeyRule(f"{STORED}.attention.value.*", f"{ATTENTION}.value.*"),
        KeyRule(f"{STORED}.attention.dense.*", f"{LAYER}.attention.output.dense.*"),
        KeyRule(f"{STORED}.attention.LayerNorm.*", f"{LAYER}.attention.output.LayerNorm.*"),
        KeyRule(f"{STORED}.ffn.*", f"{LAYER}.intermediate.dense.*"),
        KeyRule(f"{STORED}.ffn_output.*", f"{LAYER}.output.dense.*"),
        KeyRule(f"{STORED}.full_layer_layer_norm.*", f"{LAYER}.output.LayerNorm.*"),
        # The pooler is a plain dense layer; its tanh stands apart.
        KeyRule("pooler.weight", "pooler.dense.weight"),
        KeyRule("pooler.bias", "pooler.dense.bias"),
        *NORM_RULES,
    ),
    ignored_keys=head_keys("predictions", "sop_classifier"),
)
