from __future__ import annotations

import pytest

from layertap.errors import ConfigError, UnsupportedModelError
from layertap.models.config import ConfigReader
from layertap.models.registry import architecture, architecture_of
from layertap.models.spec import EncoderSpec

CODE = "Alibaba-NLP/new-impl--modeling"
# gte-base-en-v1.5 as its own code reads it
ENGLISH = {
    "architectures": ["NewModel"],
    "attention_probs_dropout_prob": 0.0,
    "auto_map": {
        "AutoConfig": "Alibaba-NLP/new-impl--configuration.NewConfig",
        "AutoModel": f"{CODE}.NewModel",
        "AutoModelForMaskedLM": f"{CODE}.NewForMaskedLM",
        "AutoModelForMultipleChoice": f"{CODE}.NewForMultipleChoice",
        "AutoModelForQuestionAnswering": f"{CODE}.NewForQuestionAnswering",
        "AutoModelForSequenceClassification": f"{CODE}.NewForSequenceClassification",
        "AutoModelForTokenClassification": f"{CODE}.NewForTokenClassification",
    },
    "classifier_dropout": None,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-12,
    "layer_norm_type": "layer_norm",
    "logn_attention_clip1": False,
    "logn_attention_scale": False,
    "max_position_embeddings": 8192,
    "model_type": "new",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pack_qkv": True,
    "pad_token_id": 0,
    "position_embedding_type": "rope",
    "rope_scaling": {"factor": 2.0, "type": "ntk"},
    "rope_theta": 500000,
    "type_vocab_size": 0,
    "unpad_inputs": False,
    "use_memory_efficient_attention": False,
    "vocab_size": 30528,
}


def spec_of(base: dict[str, object] = ENGLISH, **fields: object) -> EncoderSpec:
    return architecture_of(ConfigReader(base | fields)).spec(ConfigReader(base | fields))


def test_the_hubs_config():
    assert architecture_of(ConfigReader(ENGLISH)) is architecture("gte")
    spec = spec_of()
    assert (spec.architecture, spec.type_vocab_size, spec.positions.max_length) == ("gte", 0, 8192)
    assert (spec.hidden_act, spec.gated, spec.norm, spec.norm_position) == ("gelu", True, "layer", "post")
    assert (spec.qkv_bias, spec.attention_output_bias, spec.intermediate_bias, spec.output_bias) == (
        True,
        True,
        False,
        True,
    )
    assert spec.rotary_thetas == (1e6,) * 12
    assert spec.rotary_scale == pytest.approx(2 ** (1 / 32))
    assert not spec.pooler


def test_dropout_is_in_the_feed_forward_too():
    spec = spec_of(hidden_dropout_prob=0.25)
    assert (spec.hidden_dropout_prob, spec.intermediate_dropout_prob) == (0.25, 0.25)


def test_the_multilingual_one():
    spec = spec_of(rope_theta=20000, rope_scaling={"factor": 8.0, "type": "ntk"}, type_vocab_size=1, vocab_size=250048)
    assert spec.rotary_thetas[0] == 160_000.0
    assert spec.rotary_scale == pytest.approx(8 ** (1 / 32))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("unpad_inputs", True),
        ("use_memory_efficient_attention", True),
        ("pack_qkv", False),
        ("classifier_dropout", 0.3),
        ("initializer_range", 0.5),
    ],
)
def test_fields_that_change_no_number(field, value):
    assert spec_of(**{field: value}) == spec_of()


def test_defaults_follow_the_name():
    own, theirs = spec_of({"model_type": "new"}), spec_of({"model_type": "gte"})
    assert (own.rotary_thetas[0], own.positions.max_length, own.vocab_size) == (10_000.0, 2048, 30528)
    assert (theirs.rotary_thetas[0], theirs.positions.max_length, theirs.vocab_size) == (160_000.0, 8192, 250048)
    assert (own.pad_token_id, theirs.pad_token_id) == (None, 1)


def test_the_same_code_under_the_other_name():
    """As snowflake-arctic-embed-m-v2.0 has it."""
    code = {"AutoModel": "modeling_hf_alibaba_nlp_gte.GteModel", "AutoConfig": "configuration.GteConfig"}
    spec = spec_of(model_type="gte", architectures=["GteModel"], auto_map=code, rope_theta=160000, rope_scaling=None)
    assert (spec.rotary_thetas[0], spec.rotary_scale) == (160_000.0, 1.0)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("position_embedding_type", "absolute", "rotary positions"),
        ("layer_norm_type", "rms_norm", "layer norms"),
        ("logn_attention_scale", True, "logarithm of the length"),
        ("logn_attention_clip1", True, "logarithm of the length"),
        ("is_decoder", True, "to the left only"),
        ("add_cross_attention", True, "second input"),
        ("quantization_config", {}, "quantised"),
        ("head_dim", 32, "heads of another width"),
        ("rope_scaling", {"type": "linear", "factor": 2.0}, "default, ntk"),
        ("rope_scaling", {"type": "ntk", "factor": 2.0, "mixed_b": 0.6}, "a base and a factor"),
    ],
)
def test_what_is_not_computed_is_refused(field, value, says):
    with pytest.raises(UnsupportedModelError, match=f"config.json: {field}.* is .*{says}"):
        spec_of(**{field: value})


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"num_attention_heads": 7}, "num_attention_heads: expected a divisor of hidden_size"),
        ({"num_attention_heads": 768}, "that gives an even width"),
        ({"num_hidden_layers": 10**6}, "num_hidden_layers: expected a whole number from 1 to 10000"),
        ({"hidden_act": "glu"}, "hidden_act: expected one of"),
        ({"pad_token_id": 30528}, "pad_token_id: expected an id below"),
        ({"type_vocab_size": -1}, "type_vocab_size: expected a whole number from 0"),
    ],
)
def test_impossible_values(fields, says):
    with pytest.raises(ConfigError, match=says):
        spec_of(**fields)


def test_code_of_another_family_is_refused():
    with pytest.raises(UnsupportedModelError, match="auto_map"):
        spec_of(auto_map={"AutoModel": "x--modeling.NomicBertModel"})
