"""Which models and precisions the kernels take; by specs, so that nothing need be built."""

from __future__ import annotations

from dataclasses import replace

import pytest

from layertap.backends.native.supports import supports
from layertap.models.positions import Disentangled, PlainPositions, RelativeBias
from layertap.models.spec import Convolution


@pytest.mark.parametrize(
    "differs",
    [
        {},
        {"hidden_act": "relu"},
        {"hidden_act": "gelu_tanh", "blocks": (0, 0, 0)},
        {"embedding_size": 16, "embedding_projection": True},
        {"type_vocab_size": 0, "pooler": False},
        {"qkv_bias": False, "intermediate_bias": False},
        {"num_key_value_heads": 4, "windows": (None, None, None)},
        {"relative": RelativeBias(buckets=32, max_distance=128)},
        {"norm_position": "pre", "first_attention_norm": False},
        {"norm": "rms", "gated": True},
        {"norm_bias": False, "embedding_norm": False},
        {"projection_first": True, "embedding_size": 16, "embedding_projection": True},
        {"rotary_thetas": (1e4,) * 3, "windows": (None, 8, None), "positions": PlainPositions(max_length=64)},
        {"num_key_value_heads": 2},
        {"relative": Disentangled(max_distance=8)},
    ],
)
def test_what_they_run(tiny_spec, differs):
    assert supports(replace(tiny_spec, **differs)) is None


@pytest.mark.parametrize(
    ("differs", "what"),
    [
        ({"convolution": Convolution(kernel_size=3, activation="gelu")}, "a convolution"),
    ],
)
def test_what_they_do_not_run_is_named(tiny_spec, differs, what):
    assert supports(replace(tiny_spec, **differs)) == what
