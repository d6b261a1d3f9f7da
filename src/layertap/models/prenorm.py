"""Pre-norm relatives of BERT and RoBERTa, with absolute positions and a norm after the last block.

MegatronBERT (Shoeybi et al. 2019), XLM-RoBERTa-XL (Goyal et al. 2021), RoBERTa-PreLayerNorm (Wettig et al. 2022). Their
hidden states are sums that run through the blocks; state L alone, `last_hidden_state`, is normed.
"""

from __future__ import annotations

from dataclasses import replace

from layertap.models.bert import absolute_post_norm
from layertap.models.config import ConfigReader
from layertap.models.key_rules import HEAD_KEYS, LAYER, NORM_RULES, KeyRule
from layertap.models.spec import Architecture, EncoderSpec


def _megatron_bert(config: ConfigReader) -> EncoderSpec:
    spec = absolute_post_norm(
        config,
        architecture="megatron-bert",
        positions_from_ids=False,
        layer_norm_eps=1e-12,
        type_vocab_size=2,
        pad_token_id=0,
        vocab_size=29056,
        max_position_embeddings=512,
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
    )
    return replace(spec, norm_position="pre", embedding_norm=False)


def _xlm_roberta_xl(config: ConfigReader) -> EncoderSpec:
    spec = absolute_post_norm(
        config,
        architecture="xlm-roberta-xl",
        positions_from_ids=True,
        layer_norm_eps=1e-5,
        type_vocab_size=1,
        pad_token_id=1,
        vocab_size=250880,
        max_position_embeddings=514,
        hidden_size=2560,
        num_hidden_layers=36,
        num_attention_heads=32,
        intermediate_size=10240,
    )
    return replace(spec, norm_position="pre", embedding_norm=False, output_dropout=False)


def _roberta_prelayernorm(config: ConfigReader) -> EncoderSpec:
    spec = absolute_post_norm(
        config,
        architecture="roberta-prelayernorm",
        positions_from_ids=True,
        layer_norm_eps=1e-12,
        type_vocab_size=2,
        pad_token_id=1,
        vocab_size=50265,
        max_position_embeddings=512,
    )
    return replace(spec, norm_position="pre")


MEGATRON_BERT = Architecture(
    name="megatron-bert",
    transformers_class="MegatronBertModel",
    spec=_megatron_bert,
    key_rules=(
        KeyRule("bert.*", "*"),
        KeyRule(f"{LAYER}.attention.ln.*", f"{LAYER}.attention.LayerNorm.*"),
        KeyRule(f"{LAYER}.ln.*", f"{LAYER}.LayerNorm.*"),
        KeyRule("encoder.ln.*", "encoder.final_norm.*"),
    ),
    ignored_keys=HEAD_KEYS,
)
XLM_ROBERTA_XL = Architecture(
    name="xlm-roberta-xl",
    transformers_class="XLMRobertaXLModel",
    spec=_xlm_roberta_xl,
    key_rules=(
        KeyRule("roberta.*", "*"),
        *NORM_RULES,
        KeyRule(f"{LAYER}.attention.self_attn_layer_norm.*", f"{LAYER}.attention.LayerNorm.*"),
        KeyRule("encoder.LayerNorm.*", "encoder.final_norm.*"),
    ),
    ignored_keys=HEAD_KEYS,
)
ROBERTA_PRELAYERNORM = Architecture(
    name="roberta-prelayernorm",
    transformers_class="RobertaPreLayerNormModel",
    spec=_roberta_prelayernorm,
    key_rules=(
        KeyRule("roberta_prelayernorm.*", "*"),
        *NORM_RULES,
        KeyRule(f"{LAYER}.intermediate.LayerNorm.*", f"{LAYER}.LayerNorm.*"),
        KeyRule("LayerNorm.*", "encoder.final_norm.*"),
    ),
    ignored_keys=HEAD_KEYS,
)
