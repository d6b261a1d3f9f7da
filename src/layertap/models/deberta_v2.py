"""DeBERTa v2 and v3, mDeBERTa (He et al. 2021, 2023): attention that is disentangled into content and position."""

from __future__ import annotations

from layertap.models.bert import refuse_other_forwards
from layertap.models.config import ConfigReader
from layertap.models.fields import ACTIVATIONS, heads_of, pad_id_of
from layertap.models.key_rules import ATTENTION, NORM_RULES, KeyRule, head_keys
from layertap.models.positions import Disentangled, PlainPositions, PositionTable
from layertap.models.spec import Architecture, Convolution, EncoderSpec

TERMS = ("c2p", "p2c")
CONVOLUTION_ACTIVATIONS = {**ACTIVATIONS, "tanh": "tanh"}


def _deberta_v2(config: ConfigReader) -> EncoderSpec:
    refuse_other_forwards(config)
    hidden_size = config.size("hidden_size", 1536)
    heads = heads_of(config, hidden_size, default=24)
    config.refuse_unless("attention_head_size", (hidden_size // heads,), "heads divide the hidden size evenly")
    vocab = config.size("vocab_size", 128100)
    table_size = config.size("embedding_size", hidden_size)
    rows = config.size("max_position_embeddings", 512)
    return EncoderSpec(
        architecture="deberta-v2",
        vocab_size=vocab,
        hidden_size=hidden_size,
        num_hidden_layers=config.size("num_hidden_layers", 24),
        num_attention_heads=heads,
        intermediate_size=config.size("intermediate_size", 6144),
        hidden_act=config.one_of("hidden_act", "gelu", ACTIVATIONS),
        layer_norm_eps=config.fraction("layer_norm_eps", 1e-7),
        positions=(
            PositionTable(rows=rows) if config.flag("position_biased_input", True) else PlainPositions(max_length=rows)
        ),
        type_vocab_size=config.size("type_vocab_size", 0, minimum=0),
        pad_token_id=pad_id_of(config, vocab_size=vocab, default=0),
        hidden_dropout_prob=config.fraction("hidden_dropout_prob", 0.1),
        attention_probs_dropout_prob=config.fraction("attention_probs_dropout_prob", 0.1),
        # ContextPooler belongs to the heads for tasks
        pooler=False,
        embedding_size=None if table_size == hidden_size else table_size,
        embedding_projection=table_size != hidden_size,
        projection_first=table_size != hidden_size,
        relative=_relative(config, rows),
        convolution=_convolution(config),
    )


def _relative(config: ConfigReader, rows: int) -> Disentangled | None:
    terms = _terms(config)
    norm = config.values.get("norm_rel_ebd", "none")
    if norm not in ("none", "layer_norm"):
        raise config.fail("norm_rel_ebd", "one of none, layer_norm")
    if not config.flag("relative_attention", False):
        # Without vectors of distances transformers still divides by the number of terms, and keeps their norm.
        config.refuse_unless("pos_att_type", (None, [], ""), "it says how relative_attention scores, which is off")
        config.refuse_unless("norm_rel_ebd", ("none",), "it norms what relative_attention has, which is off")
        return None
    if not terms:
        raise config.fail("pos_att_type", f"some of {', '.join(TERMS)}, as relative_attention is on")
    reach = config.size("max_relative_positions", -1, minimum=-(2**31))
    reach = rows if reach < 1 else reach
    buckets = config.size("position_buckets", -1, minimum=-(2**31))
    if buckets > 0 and not 1 <= buckets // 2 < reach - 1:
        raise config.fail(
            "position_buckets", f"at least 2, and half of it below the greatest distance ({reach - 1}), or none"
        )
    return Disentangled(
        max_distance=reach,
        buckets=buckets if buckets > 0 else None,
        content_to_position="c2p" in terms,
        position_to_content="p2c" in terms,
        shared_projections=config.flag("share_att_key", False),
        norm=norm == "layer_norm",
    )


def _terms(config: ConfigReader) -> tuple[str, ...]:
    """Read the terms `c2p|p2c` or `["c2p", "p2c"]`."""
    value = config.values.get("pos_att_type")
    if isinstance(value, str):
        value = [term.strip() for term in value.lower().split("|") if term.strip()]
    if value is None:
        return ()
    if not isinstance(value, list) or not all(term in TERMS for term in value):
        raise config.fail("pos_att_type", f"some of {', '.join(TERMS)}")
    return tuple(value)


def _convolution(config: ConfigReader) -> Convolution | None:
    kernel = config.size("conv_kernel_size", 0, minimum=-(2**31))
    if kernel < 1:
        return None
    if kernel % 2 == 0:
        raise config.fail("conv_kernel_size", "an odd number, or 0")
    config.refuse_unless("conv_groups", (1,), "only convolutions over all columns are computed")
    return Convolution(kernel_size=kernel, activation=config.one_of("conv_act", "tanh", CONVOLUTION_ACTIVATIONS))


DEBERTA_V2 = Architecture(
    name="deberta-v2",
    transformers_class="DebertaV2Model",
    spec=_deberta_v2,
    key_rules=(
        KeyRule("deberta.*", "*"),
        *NORM_RULES,
        KeyRule("embeddings.embed_proj.*", "embeddings.projection.*"),
        KeyRule(f"{ATTENTION}.query_proj.*", f"{ATTENTION}.query.*"),
        KeyRule(f"{ATTENTION}.key_proj.*", f"{ATTENTION}.key.*"),
        KeyRule(f"{ATTENTION}.value_proj.*", f"{ATTENTION}.value.*"),
    ),
    # v3's heads: replaced tokens, and the generator's words
    ignored_keys=head_keys("pooler", "mask_predictions", "lm_predictions"),
    # for the generator's last layers, which are not in the encoder
    spare_names=frozenset({"embeddings.position_embeddings.weight"}),
)
