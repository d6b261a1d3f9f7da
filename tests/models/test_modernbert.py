"""What ModernBERT's configs and keys say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from layertap.checkpoints.keys import parts_of
from layertap.errors import ConfigError, UnsupportedModelError
from layertap.models.config import ConfigReader
from layertap.models.modernbert import MODERNBERT
from layertap.models.positions import PlainPositions
from layertap.models.registry import architecture_of
from layertap.models.spec import EncoderSpec

LARGE = Path(__file__).parents[2].parent / "shared/data/tokenizers/modernbert-large/config.json"
GLOBAL, LOCAL = "full_attention", "sliding_attention"


def spec_of(**fields: object) -> EncoderSpec:
    return MODERNBERT.spec(ConfigReader({"num_hidden_layers": 4, **fields}))


def thetas(global_theta: float, local_theta: float) -> dict[str, object]:
    return {
        GLOBAL: {"rope_type": "default", "rope_theta": global_theta},
        LOCAL: {"rope_type": "default", "rope_theta": local_theta},
    }


def test_the_two_spellings_say_the_same():
    old = spec_of(global_attn_every_n_layers=2, global_rope_theta=500.0, local_rope_theta=20.0)
    new = spec_of(layer_types=[GLOBAL, LOCAL, GLOBAL, LOCAL], rope_parameters=thetas(500.0, 20.0))
    assert old == new
    assert old.windows == (None, 64, None, 64)
    assert old.rotary_thetas == (500.0, 20.0, 500.0, 20.0)


def test_the_newer_spelling_counts_where_both_stand():
    both = spec_of(
        global_attn_every_n_layers=2,
        global_rope_theta=500.0,
        local_rope_theta=20.0,
        layer_types=[LOCAL, LOCAL, GLOBAL, LOCAL],
        rope_parameters=thetas(7.0, 8.0),
    )
    assert both.windows == (64, 64, None, 64)
    assert both.rotary_thetas == (8.0, 8.0, 7.0, 8.0)


def test_what_the_newer_spelling_leaves_out_is_in_the_older():
    half = spec_of(rope_parameters={GLOBAL: {"rope_type": "default"}}, global_rope_theta=500.0, local_rope_theta=20.0)
    assert half.rotary_thetas == (500.0, 20.0, 20.0, 500.0)
    assert spec_of(rope_parameters={GLOBAL: None, LOCAL: {}}) == spec_of(rope_parameters=None) == spec_of()
    assert spec_of().rotary_thetas == (160_000.0, 10_000.0, 10_000.0, 160_000.0)


def test_no_local_base_is_the_global_one_as_in_transformers_4():
    assert spec_of(global_rope_theta=500.0, local_rope_theta=None).rotary_thetas == (500.0,) * 4


def test_a_rope_scaling_that_scales_nothing_lies_over_both_kinds_of_layers():
    transformers = pytest.importorskip("transformers")
    scaling = {"rope_type": "default", "rope_theta": 77.0}
    assert spec_of(rope_scaling=None) == spec_of()
    assert spec_of(rope_scaling={"type": "default"}) == spec_of()
    assert spec_of(rope_scaling=scaling).rotary_thetas == (77.0,) * 4
    theirs = transformers.ModernBertConfig(num_hidden_layers=4, rope_scaling=scaling).to_dict()
    assert spec_of(**theirs) == spec_of(rope_scaling=scaling)


@pytest.mark.parametrize(("stated", "window"), [(128, 64), (9, 4), (1, 0)])
def test_a_window_is_half_of_local_attention_on_each_side(stated, window):
    assert spec_of(local_attention=stated).windows == (None, window, window, None)
    assert spec_of(local_attention=stated, sliding_window=window).windows == (None, window, window, None)


@pytest.mark.skipif(not LARGE.is_file(), reason="the real config is not beside the project")
def test_the_real_config_of_modernbert_large():
    config = json.loads(LARGE.read_text(encoding="utf-8"))
    reader = ConfigReader(config)
    assert architecture_of(reader) is MODERNBERT
    spec = MODERNBERT.spec(reader)
    assert (spec.num_hidden_layers, spec.hidden_size, spec.intermediate_size, spec.head_size) == (28, 1024, 2624, 64)
    assert spec.windows == tuple(64 if i % 3 else None for i in range(28))
    assert spec.rotary_thetas == tuple(10_000.0 if i % 3 else 160_000.0 for i in range(28))
    assert spec.positions == PlainPositions(max_length=8192)
    assert (spec.pad_token_id, spec.layer_norm_eps, spec.hidden_act) == (50283, 1e-5, "gelu")
    assert (spec.norm_bias, spec.qkv_bias, spec.output_bias, spec.pooler) == (False, False, False, False)
    transformers = pytest.importorskip("transformers")
    theirs = transformers.ModernBertConfig.from_pretrained(LARGE.parent).to_dict()
    assert "layer_types" in theirs
    assert "global_rope_theta" not in theirs
    assert MODERNBERT.spec(ConfigReader(theirs)) == spec


@pytest.mark.parametrize(
    ("flag", "with_bias"),
    [
        ("norm_bias", {"embeddings.LayerNorm", "attention.LayerNorm", "LayerNorm", "final_norm"}),
        ("attention_bias", {"query", "key", "value", "attention.output.dense"}),
        ("mlp_bias", {"intermediate.gate", "intermediate.dense", "output.dense"}),
    ],
)
def test_flags_of_biases(flag, with_bias):
    def biases(**fields: object) -> set[str]:
        return {name for name in spec_of(num_hidden_layers=2, **fields).parameters() if name.endswith(".bias")}

    assert biases() == set()
    found = biases(**{flag: True})
    assert found
    assert all(any(name.endswith(f"{part}.bias") for part in with_bias) for name in found)
    assert all(any(name.endswith(f"{part}.bias") for name in found) for part in with_bias)


def test_the_first_block_has_no_norm_before_attention():
    names = spec_of().parameters()
    assert "encoder.layer.0.attention.LayerNorm.weight" not in names
    assert "encoder.layer.1.attention.LayerNorm.weight" in names


@pytest.mark.parametrize("prefix", ["", "model."])
def test_keys(prefix):
    def parts(key: str) -> tuple[str, ...]:
        return parts_of(prefix + key, MODERNBERT.key_rules, MODERNBERT.split_rules)

    at = "encoder.layer.11"
    assert parts("embeddings.tok_embeddings.weight") == ("embeddings.word_embeddings.weight",)
    assert parts("embeddings.norm.weight") == ("embeddings.LayerNorm.weight",)
    assert parts("layers.11.attn.Wqkv.weight") == tuple(
        f"{at}.attention.self.{name}.weight" for name in ("query", "key", "value")
    )
    # the half that the activation is applied to comes first
    assert parts("layers.11.mlp.Wi.bias") == (f"{at}.intermediate.gate.bias", f"{at}.intermediate.dense.bias")
    assert parts("layers.11.mlp.Wo.weight") == (f"{at}.output.dense.weight",)
    assert parts("layers.11.attn.Wo.weight") == (f"{at}.attention.output.dense.weight",)
    assert parts("final_norm.weight") == ("encoder.final_norm.weight",)


@pytest.mark.parametrize("key", ["head.dense.weight", "head.norm.weight", "decoder.bias", "classifier.weight"])
def test_heads_are_set_aside(key):
    assert MODERNBERT.ignored_keys.fullmatch(key)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        (
            "rope_scaling",
            {"rope_type": "yarn", "factor": 4.0},
            "rope_scaling: rope_type is 'yarn': of rotary scaling, this family computes default",
        ),
        ("rope_scaling", {"type": "linear", "factor": 2.0}, "rope_scaling: type is 'linear'"),
        (
            "rope_parameters",
            {GLOBAL: {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
            "rope_parameters.full_attention: rope_type is 'dynamic'",
        ),
        (
            "rope_parameters",
            {"rope_type": "default", "rope_theta": 1e4},
            "rope_parameters: expected full_attention and sliding_attention, found 'rope_type'",
        ),
        (
            "rope_parameters",
            {LOCAL: {"partial_rotary_factor": 0.5}},
            "rope_parameters.sliding_attention: partial_rotary_factor is 0.5: only a base",
        ),
        ("rope_parameters", {LOCAL: {"mscale": 2}}, "rope_parameters.sliding_attention: mscale is 2: only a base"),
        ("partial_rotary_factor", 0.25, "partial_rotary_factor is 0.25"),
        ("position_embedding_type", "alibi", "position_embedding_type is 'alibi'"),
        ("sliding_window", 128, "sliding_window is 128: expected half of local_attention, 64"),
        ("head_dim", 32, "head_dim is 32"),
        ("is_causal", True, "is_causal is True"),
        ("is_decoder", True, "is_decoder is True"),
        ("add_cross_attention", True, "add_cross_attention is True"),
        ("quantization_config", {"bits": 4}, "quantization_config is"),
    ],
)
def test_what_changes_the_forward_is_refused_by_name(field, value, says):
    with pytest.raises(UnsupportedModelError, match=f"^config.json: {says}"):
        spec_of(**{field: value})


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("layer_types", [GLOBAL] * 3, "4 times full_attention or sliding_attention"),
        ("layer_types", [GLOBAL, LOCAL, LOCAL, "chunked_attention"], "4 times"),
        ("layer_types", 3, "4 times"),
        ("global_attn_every_n_layers", 0, "a whole number from 1"),
        ("local_attention", 0, "a whole number from 1"),
        ("global_rope_theta", None, "a number"),
        ("local_rope_theta", "10000", "a number"),
        ("rope_parameters", [], "an object with full_attention"),
        ("rope_parameters", {GLOBAL: 1e4}, "an object"),
        ("rope_scaling", "linear", "an object"),
        ("num_attention_heads", 768, "a divisor of hidden_size"),
        ("num_attention_heads", 7, "a divisor of hidden_size"),
        ("norm_bias", 1, "true or false"),
        ("hidden_activation", "quick_gelu", "one of gelu"),
        ("norm_eps", -1, "a number"),
        ("mlp_dropout", 2, "a number"),
        ("pad_token_id", 50368, "an id below vocab_size"),
        ("num_hidden_layers", 10**9, "a whole number from 1 to 10000"),
    ],
)
def test_impossible_values_name_expected_and_found(field, value, expected):
    with pytest.raises(ConfigError, match=f"^config.json: {field}[.a-z_]*: expected {expected}.*, found "):
        spec_of(**{field: value})


@pytest.mark.parametrize(
    "fields",
    [
        {"position_embedding_type": "absolute", "layer_norm_eps": 1e-5},
        {"position_embedding_type": "sans_pos", "is_causal": False},
        {"classifier_pooling": "mean", "classifier_dropout": 0.1, "classifier_activation": "silu"},
        {"decoder_bias": False, "sparse_prediction": True, "reference_compile": None, "deterministic_flash_attn": True},
        {"tie_word_embeddings": False, "initializer_cutoff_factor": 3.0, "gradient_checkpointing": True},
    ],
)
def test_what_the_encoder_does_not_use_is_harmless(fields):
    assert spec_of(**fields) == spec_of()


def test_the_decoder_is_refused():
    for config in ({"model_type": "modernbert-decoder"}, {"architectures": ["ModernBertDecoderForCausalLM"]}):
        with pytest.raises(UnsupportedModelError, match="attends to the left only"):
            architecture_of(ConfigReader(config))
