"""ELECTRA (Clark et al. 2020): BERT with tables of a width of their own and without a pooler.

Discriminator and generator are the same encoder, in other widths.
"""

from __future__ import annotations

from dataclasses import replace

from layertap.models.bert import absolute_post_norm
from layertap.models.config import ConfigReader
from layertap.models.key_rules import NORM_RULES, KeyRule, head_keys
from layertap.models.spec import Architecture, EncoderSpec

# Those of transformers' ElectraConfig, which are electra-small-discriminator's.
DEFAULTS = {
    "embedding_size": 128,
    "hidden_size": 256,
    "num_attention_heads": 4,
    "intermediate_size": 1024,
}


def _electra(config: ConfigReader) -> EncoderSpec:
    config = config.with_defaults(DEFAULTS)
    spec = absolute_post_norm(
        config,
        architecture="electra",
        positions_from_ids=False,
        layer_norm_eps=1e-12,
        type_vocab_size=2,
        pad_token_id=0,
        vocab_size=30522,
        max_position_embeddings=512,
        factorised=True,
    )
    width = config.size("embedding_size")
    # A table of the hidden size needs no projection, and then there is none.
    return replace(spec, pooler=False, embedding_size=width, embedding_projection=width != spec.hidden_size)


ELECTRA = Architecture(
    name="electra",
    transformers_class="ElectraModel",
    spec=_electra,
    key_rules=(
        KeyRule("electra.*", "*"),
        KeyRule("embeddings_project.*", "embeddings.projection.*"),
        *NORM_RULES,
    ),
    ignored_keys=head_keys(
        "discriminator_predictions", "generator_predictions", "generator_lm_head", "sequence_summary"
    ),
)
