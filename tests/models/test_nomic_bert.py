from __future__ import annotations

import pytest

from layertap.errors import ConfigError, UnsupportedModelError
from layertap.models.config import ConfigReader
from layertap.models.registry import architecture, architecture_of
from layertap.models.spec import EncoderSpec

# What the model's own code reads in config.json of nomic-embed-text-v1.5.
OWN = {
    "activation_function": "swiglu",
    "architectures": ["NomicBertModel"],
    "attn_pdrop": 0.0,
    "auto_map": {
        "AutoConfig": "nomic-ai/nomic-bert-2048--configuration_hf_nomic_bert.NomicBertConfig",
        "AutoModel": "nomic-ai/nomic-bert-2048--modeling_hf_nomic_bert.NomicBertModel",
        "AutoModelForMaskedLM": "nomic-ai/nomic-bert-2048--modeling_hf_nomic_bert.NomicBertForPreTraining",
    },
    "causal": False,
    "dense_seq_output": True,
    "embd_pdrop": 0.0,
    "fused_bias_fc": True,
    "fused_dropout_add_ln": True,
    "layer_norm_epsilon": 1e-12,
    "max_trained_positions": 2048,
    "mlp_fc1_bias": False,
    "mlp_fc2_bias": False,
    "model_type": "nomic_bert",
    "n_embd": 768,
    "n_head": 12,
    "n_inner": 3072,
    "n_layer": 12,
    "n_positions": 8192,
    "pad_vocab_size_multiple": 64,
    "parallel_block": False,
    "prenorm": False,
    "qkv_proj_bias": False,
    "resid_pdrop": 0.0,
    "rotary_emb_base": 1000,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None,
    "rotary_scaling_factor": None,
    "scale_attn_weights": True,
    "type_vocab_size": 2,
    "use_flash_attn": True,
    "use_rms_norm": False,
    "use_xentropy": True,
    "vocab_size": 30528,
}
# Beside it, what transformers 5 reads.
BOTH = OWN | {
    "hidden_act": "silu",
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 2048,
    "hidden_dropout_prob": 0.0,
    "rope_parameters": {"rope_theta": 1000.0, "rope_type": "default"},
    "pad_token_id": 0,
}


def spec_of(base: dict[str, object] = OWN, **fields: object) -> EncoderSpec:
    return architecture_of(ConfigReader(base | fields)).spec(ConfigReader(base | fields))


def test_the_hubs_config():
    assert architecture_of(ConfigReader(OWN)) is architecture("nomic_bert")
    spec = spec_of()
    assert (spec.hidden_size, spec.num_hidden_layers, spec.num_attention_heads) == (768, 12, 12)
    assert (spec.intermediate_size, spec.vocab_size, spec.type_vocab_size) == (3072, 30528, 2)
    assert (spec.hidden_act, spec.gated, spec.norm_position, spec.layer_norm_eps) == ("silu", True, "post", 1e-12)
    assert not any((spec.qkv_bias, spec.attention_output_bias, spec.intermediate_bias, spec.output_bias, spec.pooler))
    assert (spec.rotary_thetas, spec.rotary_scale) == ((1000.0,) * 12, 1.0)
    assert (spec.hidden_dropout_prob, spec.attention_probs_dropout_prob) == (0.0, 0.0)
    assert spec.positions.max_length == 8192
    assert spec.pad_token_id is None


def test_both_spellings_at_once_are_one_model():
    assert spec_of(BOTH, pad_token_id=None) == spec_of()
    assert spec_of(BOTH).pad_token_id == 0


def test_the_spelling_of_transformers():
    new = {key: value for key, value in BOTH.items() if key not in OWN or key in ("model_type", "vocab_size")}
    spec = spec_of(new)
    assert spec.positions.max_length == 2048
    assert spec_of(new, max_position_embeddings=8192) == spec_of(BOTH)


def test_its_own_defaults_are_those_of_gpt2_and_of_its_code():
    own = {"model_type": "nomic_bert", "n_embd": 768, "rotary_emb_fraction": 1.0, "activation_function": "swiglu"}
    spec = spec_of(own)
    assert all((spec.qkv_bias, spec.attention_output_bias, spec.intermediate_bias, spec.output_bias))
    assert (spec.layer_norm_eps, spec.rotary_thetas[0], spec.vocab_size) == (1e-5, 10_000.0, 50257)
    assert (spec.hidden_dropout_prob, spec.positions.max_length) == (0.1, 1024)
    assert spec.intermediate_size == 2048  # 8/3 of the width


@pytest.mark.parametrize(
    ("fields", "width"),
    [
        ({"n_inner": 3000}, 3072),  # the gated feed-forward's is rounded up
        ({"n_inner": 1}, 256),
        ({"n_inner": None, "n_embd": 384}, 1024),
        ({"n_inner": 3000, "activation_function": "gelu"}, 3000),
        ({"n_inner": None, "activation_function": "gelu"}, 3072),
    ],
)
def test_widths_of_feed_forwards(fields, width):
    assert spec_of(**fields).intermediate_size == width


@pytest.mark.parametrize(
    ("function", "activation", "gated"), [("swiglu", "silu", True), ("geglu", "gelu", True), ("gelu", "gelu", False)]
)
def test_activations(function, activation, gated):
    spec = spec_of(activation_function=function)
    assert (spec.hidden_act, spec.gated) == (activation, gated)


def test_the_vocabulary_is_padded_to_a_multiple():
    assert spec_of(vocab_size=30522).vocab_size == 30528
    assert spec_of({"model_type": "nomic_bert"}, vocab_size=30522, pad_vocab_size_multiple=64).vocab_size == 30522


def test_limits():
    assert spec_of(n_positions=4096).positions.max_length == 4096
    # Scaled angles depend on the longest sequence of a batch: up to the trained length they are not scaled.
    assert spec_of(rotary_scaling_factor=2).positions.max_length == 2048
    assert spec_of(rotary_scaling_factor=2, max_trained_positions=512).positions.max_length == 512
    assert spec_of(rotary_scaling_factor=2, n_positions=1024).positions.max_length == 1024
    new = {"model_type": "nomic_bert", "max_position_embeddings": 512}
    rope = {"rope_theta": 1000.0, "rope_type": "dynamic", "factor": 2.0}
    assert spec_of(new, rope_parameters=rope) == spec_of(new)
    assert spec_of(new, rope_parameters=rope, n_positions=9).positions.max_length == 9


def test_linear_scaling():
    rope = {"rope_theta": 1000.0, "rope_type": "linear", "factor": 4.0}
    assert spec_of({"model_type": "nomic_bert"}, rope_parameters=rope).rotary_scale == 4.0


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("num_experts", 8, "mixtures of experts"),
        ("moe_every_n_layers", 2, "mixtures of experts"),
        ("prenorm", True, "after each half"),
        ("parallel_block", True, "side by side"),
        ("use_rms_norm", True, "layer norms"),
        ("causal", True, "to the left only"),
        ("is_decoder", True, "to the left only"),
        ("quantization_config", {}, "quantised"),
        ("rotary_emb_fraction", 0.5, "rotated whole"),
        ("rotary_emb_fraction", 0.0, "rotated whole"),
        ("rotary_emb_interleaved", True, "halves of a head"),
        ("rotary_emb_scale_base", 512, "XPos"),
        ("rotary_head_dim", True, "along the heads"),
        ("num_heads_kv", 4, "heads of keys"),
        ("head_dim", 32, "heads of another width"),
        ("rope_parameters", {"rope_type": "yarn", "factor": 2.0}, "yarn"),
    ],
)
@pytest.mark.parametrize("base", [OWN, BOTH], ids=["own", "both"])
def test_what_is_not_computed_is_refused(base, field, value, says):
    with pytest.raises(UnsupportedModelError, match=f"config.json: {field}.* is .*{says}"):
        spec_of(base, **{field: value})


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"hidden_size": 512}, r"hidden_size: expected what n_embd says \(768\), found 512"),
        ({"num_hidden_layers": 3}, "num_hidden_layers: expected what n_layer says"),
        ({"intermediate_size": 1000}, r"intermediate_size: expected what n_inner comes to \(3072\), found 1000"),
        ({"hidden_act": "gelu"}, r"hidden_act: expected that of activation_function \(silu\)"),
        ({"rope_parameters": {"rope_theta": 10.0}}, r"rotary_emb_base: expected rope_theta \(10.0\), found 1000"),
        ({"rope_theta": 10.0}, r"rotary_emb_base: expected rope_theta \(10.0\), found 1000"),
        (
            {"activation_function": "gelu_new"},
            "activation_function: expected one of swiglu, geglu, gelu, found 'gelu_new'",
        ),
        ({"activation_function": "glu"}, "activation_function: expected one of"),
        ({"n_head": 7}, "n_head: expected a divisor of hidden_size"),
        ({"n_head": 768}, "n_head: expected .* that gives an even width"),
        ({"n_layer": 10**6}, "n_layer: expected a whole number from 1 to 10000"),
        ({"qkv_proj_bias": None}, "qkv_proj_bias: expected true or false"),
        ({"n_positions": 0}, "n_positions: expected a whole number from 1"),
        ({"rotary_scaling_factor": "2"}, "rotary_scaling_factor: expected a number"),
        ({"pad_token_id": 30528}, "pad_token_id: expected an id below vocab_size"),
    ],
)
def test_impossible_values(fields, says):
    with pytest.raises(ConfigError, match=says):
        spec_of(**fields)


def test_learned_positions_are_what_its_own_spelling_means_by_default():
    with pytest.raises(ConfigError, match=r"rotary_emb_fraction: expected 1.0, found nothing"):
        spec_of({"model_type": "nomic_bert", "n_embd": 768})


def test_code_of_another_family_is_refused():
    with pytest.raises(UnsupportedModelError, match="auto_map"):
        spec_of(auto_map={"AutoModel": "x--modeling.NewModel"})
    with pytest.raises(UnsupportedModelError, match="auto_map"):
        spec_of(auto_map={"AutoModel": "x--modeling.NomicVisionModel"})
