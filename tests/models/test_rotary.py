"""What is read of rotary settings; of any kind they give a spec, or one of our errors."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layertap.errors import ConfigError, UnsupportedModelError
from layertap.models.config import ConfigReader
from layertap.models.registry import architecture
from layertap.models.rotary import Rope, read_rope

ALL = ("default", "linear", "dynamic", "ntk")


def rope_of(types=ALL, **fields: object) -> Rope:
    return read_rope(ConfigReader(fields), theta=1000.0, head_size=64, types=types)


def test_the_base_from_either_place():
    assert rope_of() == Rope(theta=1000.0)
    assert rope_of(rope_theta=5000) == Rope(theta=5000.0)
    assert rope_of(rope_parameters={"rope_type": "default", "rope_theta": 5e5}) == Rope(theta=5e5)
    assert rope_of(rope_theta=5e5, rope_parameters={"rope_theta": 5e5, "partial_rotary_factor": 1.0}) == Rope(theta=5e5)
    assert rope_of(rope_theta=7.0, rope_scaling=None, rope_parameters={}) == Rope(theta=7.0)


def test_scaling():
    assert rope_of(rope_scaling={"type": "linear", "factor": 4.0}) == Rope(theta=1000.0, scale=4.0)
    assert rope_of(rope_parameters={"rope_type": "dynamic", "factor": 2.0}) == Rope(theta=1000.0, dynamic=True)
    found = rope_of(rope_theta=20000, rope_scaling={"type": "ntk", "factor": 8.0, "mixed_b": None})
    assert found.theta == 160_000.0
    assert found.scale == pytest.approx(8 ** (1 / 32), rel=1e-15)
    assert rope_of(rope_scaling={"type": "ntk", "factor": 1}) == Rope(theta=1000.0)


def test_ntk_leaves_the_lowest_frequency_divided_by_the_factor_and_a_bit():
    """The frequencies in the words of the original: 1 / (base * s)^(2i / D) / s^(2 / D)."""
    found = rope_of(rope_theta=500_000.0, rope_scaling={"type": "ntk", "factor": 2.0})
    for i in (0, 7, 31):
        expected = 1 / ((500_000.0 * 2.0) ** (2 * i / 64)) / 2.0 ** (2 / 64)
        assert found.theta ** (-2 * i / 64) / found.scale == pytest.approx(expected, rel=1e-12)
    last = found.theta ** (-62 / 64) / found.scale
    assert math.isclose(last, 500_000.0 ** (-62 / 64) / 2, rel_tol=1e-12)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"rope_scaling": {"type": "yarn", "factor": 2}}, "rope_scaling: type is 'yarn': of rotary scaling"),
        ({"rope_parameters": {"rope_type": "llama3"}}, "rope_parameters: rope_type is 'llama3'"),
        ({"rope_parameters": {"rope_type": ["x"]}}, "rope_type is"),
        ({"rope_scaling": {"type": "ntk", "factor": 2, "mixed_b": 0.5}}, "rope_scaling: mixed_b is 0.5"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor is 0.5"),
        ({"rope_parameters": {"attention_factor": 1.2}}, "attention_factor is 1.2"),
        ({"rope_parameters": {"factor": 2.0}}, "factor is 2.0: a factor has a meaning only with a type"),
    ],
)
def test_other_angles_are_refused_by_name(fields, says):
    with pytest.raises(UnsupportedModelError, match=says):
        rope_of(**fields)


def test_a_family_takes_only_what_its_own_code_computes():
    with pytest.raises(UnsupportedModelError, match="this family computes default, ntk"):
        rope_of(types=("default", "ntk"), rope_scaling={"type": "linear", "factor": 2.0})


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"rope_parameters": 3}, "rope_parameters: expected an object, found 3"),
        ({"rope_scaling": [1]}, "rope_scaling: expected an object"),
        ({"rope_theta": "x"}, "rope_theta: expected a number"),
        ({"rope_theta": 0}, "rope_theta: expected a number"),
        ({"rope_parameters": {"rope_theta": float("nan")}}, "rope_parameters: rope_theta: expected a number"),
        ({"rope_theta": 10.0, "rope_parameters": {"rope_theta": 20.0}}, "rope_theta: expected that of rope_parameters"),
        ({"rope_scaling": {"type": "linear"}}, "factor: expected a number from 1, found nothing"),
        ({"rope_scaling": {"type": "linear", "factor": 0.5}}, "factor: expected a number"),
        (
            {"rope_parameters": {"rope_type": "linear", "type": "ntk", "factor": 2}},
            "type: expected what rope_type says",
        ),
        (
            {"rope_scaling": {"type": "linear", "factor": 2}, "rope_parameters": {"rope_type": "default"}},
            "rope_scaling: expected nothing beside rope_parameters",
        ),
    ],
)
def test_impossible_settings(fields, says):
    with pytest.raises(ConfigError, match=says):
        rope_of(**fields)


VALUE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 20000),
    st.floats(),
    st.sampled_from(["default", "linear", "full_attention", "sliding_attention", "absolute"]),
)
SETTINGS = st.dictionaries(
    st.sampled_from(["rope_type", "type", "rope_theta", "factor", "partial_rotary_factor", "mscale"]),
    VALUE | st.lists(VALUE, max_size=2),
    max_size=3,
)
NESTED = st.dictionaries(
    st.sampled_from(["full_attention", "sliding_attention", "rope_theta", "rope_type"]), VALUE | SETTINGS, max_size=3
)
FIELDS = [
    "attention_bias",
    "global_attn_every_n_layers",
    "global_rope_theta",
    "head_dim",
    "hidden_size",
    "is_causal",
    "layer_types",
    "local_attention",
    "local_rope_theta",
    "mlp_dropout",
    "norm_bias",
    "num_attention_heads",
    "num_key_value_heads",
    "pad_token_id",
    "partial_rotary_factor",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "sliding_window",
]


@pytest.mark.parametrize("name", ["modernbert", "eurobert", "gte", "nomic_bert"])
@settings(max_examples=150, deadline=None)
@given(
    fields=st.dictionaries(
        st.sampled_from(FIELDS), VALUE | SETTINGS | NESTED | st.lists(VALUE, min_size=4, max_size=4), max_size=4
    )
)
def test_any_config_gives_a_spec_or_one_of_our_errors(name, fields):
    try:
        spec = architecture(name).spec(ConfigReader({"num_hidden_layers": 4, **fields}))
    except ConfigError:  # the one kind of error that is allowed
        return
    assert len(spec.rotary_thetas) == 4
    assert all(theta >= 1 for theta in spec.rotary_thetas)
    assert spec.head_size % 2 == 0
    assert spec.parameters()
