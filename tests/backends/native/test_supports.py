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
    ],
)
def test_the_line_of_bert(tiny_spec, differs):
    assert supports(replace(tiny_spec, **differs)) is None


@pytest.mark.parametrize(
    ("differs", "what"),
    [
        ({"norm_position": "pre"}, "norms before attention and feed-forward"),
        ({"norm": "rms"}, "root-mean-square norms"),
        ({"norm_bias": False}, "norms without a bias"),
        ({"embedding_norm": False}, "embeddings without a norm"),
        ({"projection_first": True}, "a norm behind the projection of the embeddings"),
        ({"rotary_thetas": (1e4,) * 3}, "rotary positions"),
        ({"relative": Disentangled(max_distance=8)}, "disentangled attention"),
        ({"windows": (None, 8, None)}, "attention windows"),
        ({"num_key_value_heads": 2}, "keys and values that heads share"),
        ({"gated": True}, "gated feed-forwards"),
        ({"convolution": Convolution(kernel_size=3, activation="gelu")}, "a convolution"),
        ({"positions": PlainPositions(max_length=64)}, "positions without a table"),
    ],
)
def test_what_departs_from_it_is_named(tiny_spec, differs, what):
    assert supports(replace(tiny_spec, **differs)) == what
