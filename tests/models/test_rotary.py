"""Rotary settings of any kind give a spec, or one of our errors."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layertap.errors import ConfigError
from layertap.models.config import ConfigReader
from layertap.models.registry import architecture

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


@pytest.mark.parametrize("name", ["modernbert", "eurobert"])
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
