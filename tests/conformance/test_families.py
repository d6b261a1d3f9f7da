"""Every family against transformers. A new one is a row here; `docs/families.md` is generated from the rows.

pytest tests/conformance                                                 small models
pytest tests/conformance -m '' --write-families docs/families.md         both sizes, and the documentation
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from layertap.models.registry import ARCHITECTURES
from layertap.testing.families import FamilyRow
from layertap.testing.scores import family_table
from layertap.testing.suite import RealSizeModels, SmallModels

DOCUMENT = Path(__file__).parents[2] / "docs/families.md"

SMALL: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-5,
}
BASE: dict[str, Any] = {
    "vocab_size": 5000,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
}
ROBERTA_BASE = BASE | {"max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
MPNET_SMALL = {key: value for key, value in SMALL.items() if key != "type_vocab_size"}
SUM = "words + token types + positions"
SUM_NORMED = f"{SUM}, normed"
ROTARY_SMALL: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "pad_token_id": 3,
}
TYPES_NORMED = "words + token types, normed"
PROJECTED = SUM_NORMED + ", projected"
DEBERTA = {
    "relative_attention": True,
    "max_relative_positions": -1,
    "pos_att_type": "p2c|c2p",
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    "position_biased_input": False,
    "type_vocab_size": 0,
    "layer_norm_eps": 1e-7,
}
CONVOLUTION = {"conv_kernel_size": 3, "conv_act": "gelu"}
DEBERTA_BASE = BASE | DEBERTA | {"max_position_embeddings": 512, "position_buckets": 256}
# The paper's own form: a vector for every distance, projections of its own, absolute positions beside it.
DEBERTA_PLAIN = {
    "share_att_key": False,
    "norm_rel_ebd": "none",
    "position_buckets": -1,
    "position_biased_input": True,
    "type_vocab_size": 2,
}

ROWS = [
    FamilyRow(
        name="BERT",
        model_type="bert",
        config_class="BertConfig",
        model_class="BertModel",
        head_class="BertForMaskedLM",
        small=SMALL,
        real_size=BASE | {"max_position_embeddings": 512, "type_vocab_size": 2, "layer_norm_eps": 1e-12},
        pooler=True,
        token_types=True,
        normed="all",
        first_state=SUM_NORMED,
        limit=512,
    ),
    *(
        FamilyRow(
            name=name,
            model_type=model_type,
            config_class=f"{prefix}Config",
            model_class=f"{prefix}Model",
            head_class=f"{prefix}ForMaskedLM",
            small=SMALL | {"pad_token_id": 1},
            real_size=ROBERTA_BASE,
            pooler=True,
            token_types=True,
            normed="all",
            first_state=SUM_NORMED,
            limit=512,
        )
        for name, model_type, prefix in (
            ("RoBERTa", "roberta", "Roberta"),
            ("XLM-R", "xlm-roberta", "XLMRoberta"),
            ("CamemBERT", "camembert", "Camembert"),
        )
    ),
    FamilyRow(
        name="DistilBERT",
        model_type="distilbert",
        config_class="DistilBertConfig",
        model_class="DistilBertModel",
        head_class="DistilBertForMaskedLM",
        small={
            "vocab_size": 60,
            "dim": 32,
            "n_layers": 3,
            "n_heads": 4,
            "hidden_dim": 64,
            "max_position_embeddings": 40,
        },
        real_size={"vocab_size": 5000, "dim": 768, "n_layers": 6, "n_heads": 12, "hidden_dim": 3072},
        pooler=False,
        token_types=False,
        normed="all",
        first_state="words + positions, normed",
        limit=512,
    ),
    FamilyRow(
        name="ELECTRA",  # small, discriminator
        model_type="electra",
        config_class="ElectraConfig",
        model_class="ElectraModel",
        head_class="ElectraForPreTraining",
        small=SMALL | {"embedding_size": 12},
        real_size={"vocab_size": 5000},
        pooler=False,
        token_types=True,
        normed="1 to L",
        first_state=PROJECTED,
        limit=512,
    ),
    FamilyRow(
        name="ELECTRA base",
        model_type="electra",
        config_class="ElectraConfig",
        model_class="ElectraModel",
        head_class="ElectraForPreTraining",
        small=SMALL | {"embedding_size": 32},
        real_size=BASE | {"embedding_size": 768},
        pooler=False,
        token_types=True,
        normed="all",
        first_state=SUM_NORMED,
        limit=512,
    ),
    FamilyRow(
        name="ELECTRA generator",  # of base: tables wider than the layers
        model_type="electra",
        config_class="ElectraConfig",
        model_class="ElectraModel",
        head_class="ElectraForMaskedLM",
        small=SMALL | {"embedding_size": 48, "hidden_size": 16, "intermediate_size": 24},
        real_size=BASE
        | {"embedding_size": 768, "hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024},
        pooler=False,
        token_types=True,
        normed="1 to L",
        first_state=PROJECTED,
        limit=512,
    ),
    FamilyRow(
        name="ALBERT",
        model_type="albert",
        config_class="AlbertConfig",
        model_class="AlbertModel",
        head_class="AlbertForPreTraining",
        small=SMALL | {"embedding_size": 12},
        real_size=BASE | {"embedding_size": 128},
        pooler=True,
        token_types=True,
        normed="1 to L",
        first_state=PROJECTED,
        limit=512,
    ),
    FamilyRow(
        name="ALBERT, groups",
        model_type="albert",
        config_class="AlbertConfig",
        model_class="AlbertModel",
        head_class="AlbertForMaskedLM",
        small=SMALL | {"embedding_size": 32, "num_hidden_layers": 5, "num_hidden_groups": 3, "hidden_act": "gelu"},
        real_size=BASE | {"embedding_size": 128, "num_hidden_groups": 3},
        pooler=True,
        token_types=True,
        normed="1 to L",
        first_state=PROJECTED,
        limit=512,
    ),
    FamilyRow(
        name="MPNet",
        model_type="mpnet",
        config_class="MPNetConfig",
        model_class="MPNetModel",
        head_class="MPNetForMaskedLM",
        small=MPNET_SMALL,
        real_size=BASE | {"max_position_embeddings": 514, "layer_norm_eps": 1e-5},
        pooler=True,
        token_types=False,
        normed="all",
        first_state="words + positions, normed",
        limit=512,
    ),
    FamilyRow(
        name="MegatronBERT",
        model_type="megatron-bert",
        config_class="MegatronBertConfig",
        model_class="MegatronBertModel",
        head_class="MegatronBertForMaskedLM",
        small=SMALL,
        real_size={"vocab_size": 5000},
        pooler=True,
        token_types=True,
        normed="L",
        first_state=SUM,
        limit=512,
    ),
    FamilyRow(
        name="XLM-R-XL",
        model_type="xlm-roberta-xl",
        config_class="XLMRobertaXLConfig",
        model_class="XLMRobertaXLModel",
        head_class="XLMRobertaXLForMaskedLM",
        small=SMALL | {"pad_token_id": 1},
        real_size={"vocab_size": 5000, "num_hidden_layers": 4},
        blocks=36,
        pooler=True,
        token_types=True,
        normed="L",
        first_state=SUM,
        limit=512,
    ),
    FamilyRow(
        name="RoBERTa-PreLayerNorm",
        model_type="roberta-prelayernorm",
        config_class="RobertaPreLayerNormConfig",
        model_class="RobertaPreLayerNormModel",
        head_class="RobertaPreLayerNormForMaskedLM",
        small=SMALL | {"pad_token_id": 1},
        real_size=ROBERTA_BASE,
        pooler=True,
        token_types=True,
        normed="0 and L",
        first_state=SUM_NORMED,
        limit=512,
    ),
    FamilyRow(
        name="ModernBERT",
        model_type="modernbert",
        config_class="ModernBertConfig",
        model_class="ModernBertModel",
        head_class="ModernBertForMaskedLM",
        small=ROTARY_SMALL | {"local_attention": 9},
        real_size={"vocab_size": 5000, "pad_token_id": 3},
        pooler=False,
        token_types=False,
        normed="0 and L",
        first_state="words, normed",
        limit=8192,
    ),
    FamilyRow(
        name="ModernBERT, biases",
        model_type="modernbert",
        config_class="ModernBertConfig",
        model_class="ModernBertModel",
        head_class="ModernBertForMaskedLM",
        small=ROTARY_SMALL
        | {
            "local_attention": 4,
            "global_attn_every_n_layers": 2,
            "global_rope_theta": 500.0,
            "local_rope_theta": 20.0,
            "norm_bias": True,
            "attention_bias": True,
            "mlp_bias": True,
            "hidden_activation": "gelu_pytorch_tanh",
            "norm_eps": 2e-5,
        },
        # as large as ModernBERT-large, and written as transformers 4 does
        real_size={
            "vocab_size": 5000,
            "pad_token_id": 3,
            "hidden_size": 1024,
            "intermediate_size": 2624,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "norm_bias": True,
            "attention_bias": True,
            "mlp_bias": True,
            "global_attn_every_n_layers": 3,
            "global_rope_theta": 160_000.0,
            "local_rope_theta": 10_000.0,
        },
        pooler=False,
        token_types=False,
        normed="0 and L",
        first_state="words, normed",
        limit=8192,
    ),
    FamilyRow(
        name="EuroBERT",
        model_type="eurobert",
        config_class="EuroBertConfig",
        model_class="EuroBertModel",
        head_class="EuroBertForMaskedLM",
        small=ROTARY_SMALL | {"num_hidden_layers": 4, "num_key_value_heads": 2, "rope_theta": 300.0},
        # EuroBERT-210m
        real_size={"vocab_size": 5000, "pad_token_id": 3, "rope_theta": 250_000.0},
        pooler=False,
        token_types=False,
        normed="L",
        first_state="words",
        limit=8192,
    ),
    FamilyRow(
        name="NomicBERT",
        model_type="nomic_bert",
        config_class="NomicBertConfig",
        model_class="NomicBertModel",
        head_class="NomicBertForMaskedLM",
        small=SMALL,
        real_size=BASE | {"max_position_embeddings": 8192, "type_vocab_size": 2, "layer_norm_eps": 1e-12},
        pooler=False,
        token_types=True,
        normed="all",
        first_state=TYPES_NORMED,
        limit=8192,
    ),
    *(
        FamilyRow(
            name=name,
            model_type="gte",
            config_class="GteConfig",
            model_class="GteModel",
            head_class="GteForMaskedLM",
            small=SMALL | {"type_vocab_size": types, "rope_parameters": rope},
            real_size=BASE | {"max_position_embeddings": 8192, "type_vocab_size": types, "rope_parameters": rope},
            exact=True,
            pooler=False,
            token_types=types > 1,
            normed="all",
            first_state=first_state,
            limit=8192,
        )
        for name, types, rope, first_state in (
            ("GTE", 1, {"rope_type": "default", "rope_theta": 160_000.0}, TYPES_NORMED),
            # gte-base-en-v1.5, whose `ntk` of factor 2 is what transformers calls linear, with another base
            (
                "GTE, scaled angles",
                0,
                {"rope_type": "linear", "rope_theta": 1e6, "factor": 2 ** (2 / 64)},
                "words, normed",
            ),
        )
    ),
    *(
        FamilyRow(
            name=name,
            model_type="deberta-v2",
            config_class="DebertaV2Config",
            model_class="DebertaV2Model",
            head_class="DebertaV2ForMaskedLM",
            small=SMALL | DEBERTA | {"position_buckets": 8} | small,
            # v2's own models have 24 layers of 1,536 columns and more
            real_size=DEBERTA_BASE | real_size,
            pooler=False,
            token_types=types,
            normed="all",
            first_state=first_state,
            limit=512,
        )
        for name, small, real_size, types, first_state in (
            ("DeBERTa-v3", {}, {}, False, "words, normed"),
            ("DeBERTa-v2", CONVOLUTION, CONVOLUTION, False, "words, normed"),
            (
                "DeBERTa-v2, distances",
                DEBERTA_PLAIN | {"embedding_size": 12, "max_relative_positions": 9},
                DEBERTA_PLAIN | {"embedding_size": 384},
                True,
                "words + token types + positions, projected, normed",
            ),
        )
    ),
]


class TestSmall(SmallModels):
    rows = ROWS


@pytest.mark.real_size
class TestRealSize(RealSizeModels):
    rows = ROWS


def test_every_architecture_has_a_row():
    assert {row.model_type for row in ROWS} == set(ARCHITECTURES)
    assert len({row.name for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_the_row_is_true(row):
    assert row.config(row.small).model_type == row.model_type
    assert row.spec(row.real_size).positions.max_length == row.limit
    assert row.spec(row.small).num_hidden_layers >= 3
    assert row.spec(row.real_size).pooler == row.pooler


def test_the_documentation_is_up_to_date():
    assert family_table(ROWS) in DOCUMENT.read_text(encoding="utf-8"), (
        "docs/families.md says something else: pytest tests/conformance -m '' --write-families docs/families.md"
    )
