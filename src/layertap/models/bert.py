"""BERT (Devlin et al. 2019), and what the whole post-norm, absolute-position line shares."""

from __future__ import annotations

from layertap.models.config import ConfigReader
from layertap.models.fields import ACTIVATIONS, heads_of, pad_id_of, refuse_other_forms
from layertap.models.key_rules import HEAD_KEYS, NORM_RULES, KeyRule
from layertap.models.positions import PositionTable
from layertap.models.spec import Architecture, EncoderSpec


def refuse_other_forwards(config: ConfigReader) -> None:
    """Refuses what a config may ask of any encoder of this line and no backend computes."""
    refuse_other_forms(config)
    config.refuse_unless(
        "position_embedding_type", ("absolute", None), "only absolute positions are computed for this family"
    )
    config.refuse_unless("pruned_heads", ({}, None), "pruned attention heads are not supported")
    # Jina v3, which calls itself xlm-roberta, states these.
    config.refuse_unless("rotary_emb_base", (None,), "rotary positions are not computed for this family")
    config.refuse_unless("lora_adaptations", (None,), "adapters chosen by a task are not supported")
    # MosaicBERT and DNABERT-2 call themselves bert and state this.
    config.refuse_unless("alibi_starting_size", (None,), "ALiBi instead of position embeddings is not supported")


def absolute_post_norm(
    config: ConfigReader,
    *,
    architecture: str,
    positions_from_ids: bool,
    layer_norm_eps: float,
    type_vocab_size: int,
    pad_token_id: int,
    vocab_size: int,
    max_position_embeddings: int,
    hidden_size: int = 768,
    num_hidden_layers: int = 12,
    num_attention_heads: int = 12,
    intermediate_size: int = 3072,
    factorised: bool = False,
) -> EncoderSpec:
    """Return the spec of a BERT-like config; the keyword values are the defaults of the family's config class.

    Args:
        config: the model's.
        architecture: the family's row.
        positions_from_ids: positions are counted from the padding id, as in RoBERTa.
        layer_norm_eps, type_vocab_size, pad_token_id, vocab_size, max_position_embeddings: defaults.
        hidden_size, num_hidden_layers, num_attention_heads, intermediate_size: defaults.
        factorised: the family has tables of another width (`embedding_size`), which the caller reads.
    """
    refuse_other_forwards(config)
    width = config.size("hidden_size", hidden_size)
    if not factorised:
        config.refuse_unless("embedding_size", (width, None), "a factorised embedding table is not supported")
    heads = heads_of(config, width, default=num_attention_heads)
    rows = config.size("max_position_embeddings", max_position_embeddings)
    vocab = config.size("vocab_size", vocab_size)
    pad = pad_id_of(config, vocab_size=vocab, default=pad_token_id)
    if positions_from_ids:
        if pad is None:
            raise config.fail("pad_token_id", "an id, since positions are counted from it")
        if rows <= pad + 1:
            raise config.fail("max_position_embeddings", f"more than pad_token_id + 1 ({pad + 1})")
    return EncoderSpec(
        architecture=architecture,
        vocab_size=vocab,
        hidden_size=width,
        num_hidden_layers=config.size("num_hidden_layers", num_hidden_layers),
        num_attention_heads=heads,
        intermediate_size=config.size("intermediate_size", intermediate_size),
        hidden_act=config.one_of("hidden_act", "gelu", ACTIVATIONS),
        layer_norm_eps=config.fraction("layer_norm_eps", layer_norm_eps),
        positions=PositionTable(rows=rows, padding_id=pad if positions_from_ids else None),
        type_vocab_size=config.size("type_vocab_size", type_vocab_size),
        pad_token_id=pad,
        hidden_dropout_prob=config.fraction("hidden_dropout_prob", 0.1),
        attention_probs_dropout_prob=config.fraction("attention_probs_dropout_prob", 0.1),
    )


def _bert(config: ConfigReader) -> EncoderSpec:
    return absolute_post_norm(
        config,
        architecture="bert",
        positions_from_ids=False,
        layer_norm_eps=1e-12,
        type_vocab_size=2,
        pad_token_id=0,
        vocab_size=30522,
        max_position_embeddings=512,
    )


BERT = Architecture(
    name="bert",
    transformers_class="BertModel",
    spec=_bert,
    key_rules=(KeyRule("bert.*", "*"), *NORM_RULES),
    ignored_keys=HEAD_KEYS,
)
