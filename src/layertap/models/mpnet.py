"""MPNet (Song et al. 2020): RoBERTa without token types, and one table of relative biases for all layers."""

from __future__ import annotations

from dataclasses import replace

from layertap.models.bert import absolute_post_norm
from layertap.models.config import ConfigReader
from layertap.models.key_rules import ATTENTION, HEAD_KEYS, LAYER, NORM_RULES, KeyRule
from layertap.models.positions import PositionTable, RelativeBias
from layertap.models.spec import Architecture, EncoderSpec

PADDING_ID = 1
"""Padding id of words and positions, fixed in transformers' class whatever the config says."""
BUCKETS = 32
MAX_DISTANCE = 128

NOT_READ = ("pad_token_id", "type_vocab_size")
"""Fields that transformers' class does not read; some configs carry them along from BERT's."""


def _mpnet(config: ConfigReader) -> EncoderSpec:
    # transformers makes a table of any number of rows and counts in 32 buckets all the same.
    config.refuse_unless("relative_attention_num_buckets", (BUCKETS,), f"distances are counted in {BUCKETS} buckets")
    rows = config.size("max_position_embeddings", 512, minimum=PADDING_ID + 2)
    config.size("vocab_size", 30527, minimum=PADDING_ID + 1)
    read = ConfigReader({key: value for key, value in config.values.items() if key not in NOT_READ}, config.file)
    spec = absolute_post_norm(
        read,
        architecture="mpnet",
        positions_from_ids=False,
        layer_norm_eps=1e-12,
        type_vocab_size=2,
        pad_token_id=PADDING_ID,
        vocab_size=30527,
        max_position_embeddings=512,
    )
    return replace(
        spec,
        positions=PositionTable(rows=rows, padding_id=PADDING_ID),
        type_vocab_size=0,
        relative=RelativeBias(buckets=BUCKETS, max_distance=MAX_DISTANCE),
    )


MPNET = Architecture(
    name="mpnet",
    transformers_class="MPNetModel",
    spec=_mpnet,
    key_rules=(
        KeyRule("mpnet.*", "*"),
        *NORM_RULES,
        KeyRule(f"{LAYER}.attention.attn.q.*", f"{ATTENTION}.query.*"),
        KeyRule(f"{LAYER}.attention.attn.k.*", f"{ATTENTION}.key.*"),
        KeyRule(f"{LAYER}.attention.attn.v.*", f"{ATTENTION}.value.*"),
        KeyRule(f"{LAYER}.attention.attn.o.*", f"{LAYER}.attention.output.dense.*"),
        KeyRule(f"{LAYER}.attention.LayerNorm.*", f"{LAYER}.attention.output.LayerNorm.*"),
    ),
    ignored_keys=HEAD_KEYS,
)
