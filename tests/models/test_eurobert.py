"""What EuroBERT's configs and keys say."""

from __future__ import annotations

import pytest

from layertap.checkpoints.keys import parts_of
from layertap.errors import ConfigError, UnsupportedModelError
from layertap.models.config import ConfigReader
from layertap.models.eurobert import EUROBERT
from layertap.models.registry import architecture_of
from layertap.models.spec import EncoderSpec

# as the official repositories state it
OFFICIAL = {
    "architectures": ["EuroBertForMaskedLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "auto_map": {
        "AutoConfig": "configuration_eurobert.EuroBertConfig",
        "AutoModel": "modeling_eurobert.EuroBertModel",
        "AutoModelForMaskedLM": "modeling_eurobert.EuroBertForMaskedLM",
        "AutoModelForSequenceClassification": "modeling_eurobert.EuroBertForSequenceClassification",
        "AutoModelForTokenClassification": "modeling_eurobert.EuroBertForTokenClassification",
    },
    "clf_pooling": "late",
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_dropout": 0.0,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "mask_token_id": 128002,
    "max_position_embeddings": 8192,
    "mlp_bias": False,
    "model_type": "eurobert",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "num_key_value_heads": 12,
    "pad_token_id": 128001,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 250000,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "vocab_size": 128256,
}


def spec_of(**fields: object) -> EncoderSpec:
    return EUROBERT.spec(ConfigReader({"num_hidden_layers": 3, **fields}))


def test_an_official_config_with_its_code_is_the_native_family():
    reader = ConfigReader(OFFICIAL)
    assert architecture_of(reader) is EUROBERT
    spec = EUROBERT.spec(reader)
    assert spec.rotary_thetas == (250_000.0,) * 12
    assert (spec.norm, spec.norm_position, spec.embedding_norm, spec.gated) == ("rms", "pre", False, True)
    assert (spec.hidden_act, spec.layer_norm_eps, spec.positions.max_length) == ("silu", 1e-5, 8192)
    assert spec.windows == ()
    assert not any(name.endswith("bias") for name in spec.parameters())
    transformers = pytest.importorskip("transformers")
    theirs = transformers.EuroBertConfig(**{k: v for k, v in OFFICIAL.items() if k != "auto_map"}).to_dict()
    assert EUROBERT.spec(ConfigReader(theirs)) == spec


def test_other_code_is_not_a_twin():
    for name in ("modeling_eurobert.EuroBertForRetrieval", "modeling.JinaEmbeddingsV5Model"):
        with pytest.raises(UnsupportedModelError, match="auto_map: expected no code of the model's own"):
            architecture_of(ConfigReader({"model_type": "eurobert", "auto_map": {"AutoModel": name}}))


def test_the_two_spellings_of_the_rotary_base():
    new = spec_of(rope_parameters={"rope_type": "default", "rope_theta": 500.0})
    assert new == spec_of(rope_theta=500.0) == spec_of(rope_theta=500.0, rope_scaling=None, rope_parameters={})
    assert new == spec_of(rope_theta=500.0, rope_parameters={"rope_theta": 500.0})
    assert new == spec_of(rope_theta=500.0, rope_scaling={"type": "default"})
    assert new.rotary_thetas == (500.0,) * 3


def test_shared_keys_and_values():
    spec = spec_of(num_attention_heads=12, num_key_value_heads=4)
    assert spec.parameters()["encoder.layer.0.attention.self.key.weight"] == (256, 768)
    assert spec_of(num_key_value_heads=None) == spec_of(num_key_value_heads=12)


def test_flags_of_biases():
    names = {name for name in spec_of(attention_bias=True, mlp_bias=True).parameters() if name.endswith(".bias")}
    parts = ("query", "key", "value", "attention.output.dense", "gate", "intermediate.dense", "output.dense")
    assert all(any(name.endswith(f"{part}.bias") for name in names) for part in parts)
    assert not any("orm" in name for name in names)
    assert spec_of(attention_bias=True).intermediate_bias is False
    assert spec_of(mlp_bias=True).qkv_bias is False


@pytest.mark.parametrize("prefix", ["", "model."])
def test_keys(prefix):
    def name(key: str) -> str:
        (found,) = parts_of(prefix + key, EUROBERT.key_rules, EUROBERT.split_rules)
        return found

    at = "encoder.layer.10"
    assert name("embed_tokens.weight") == "embeddings.word_embeddings.weight"
    assert name("layers.10.input_layernorm.weight") == f"{at}.attention.LayerNorm.weight"
    assert name("layers.10.self_attn.o_proj.weight") == f"{at}.attention.output.dense.weight"
    assert name("layers.10.post_attention_layernorm.weight") == f"{at}.LayerNorm.weight"
    assert name("layers.10.mlp.gate_proj.weight") == f"{at}.intermediate.gate.weight"
    assert name("layers.10.mlp.up_proj.weight") == f"{at}.intermediate.dense.weight"
    assert name("layers.10.mlp.down_proj.weight") == f"{at}.output.dense.weight"
    assert name("norm.weight") == "encoder.final_norm.weight"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (
            {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
            "rope_scaling: type is 'dynamic': of rotary scaling, this family computes default",
        ),
        ({"rope_parameters": {"rope_type": "llama3"}}, "rope_parameters: rope_type is 'llama3'"),
        ({"rope_parameters": {"full_attention": {}}}, "rope_parameters: full_attention is {}: only a base"),
        ({"head_dim": 128}, "head_dim is 128"),
        ({"is_causal": True}, "is_causal is True"),
    ],
)
def test_what_changes_the_forward_is_refused_by_name(fields, says):
    with pytest.raises(UnsupportedModelError, match=f"^config.json: {says}"):
        spec_of(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"num_key_value_heads": 5},
        {"num_key_value_heads": 0},
        {"rope_theta": 0},
        {"rope_theta": None},
        {"rope_theta": 9.0, "rope_parameters": {"rope_theta": 500.0}},
        {"rope_scaling": {"type": "default"}, "rope_parameters": {"rope_theta": 7.0}},
        {"hidden_size": 12, "num_attention_heads": 12},
        {"rms_norm_eps": "small"},
    ],
)
def test_impossible_values_name_expected_and_found(fields):
    with pytest.raises(ConfigError, match=r"^config.json: [a-z_]+: expected .*, found "):
        spec_of(**fields)
