from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from layertap.features.grammar import PoolOp
from layertap.features.plan import make_plan
from layertap.features.rules import Rules
from layertap.features.sources import hidden_states, last_hidden_state, pooler_output
from layertap.features.vectors import (
    dense,
    layer_norm,
    normalize,
    reduce_rows,
    to_binary,
    to_float16,
    to_int8,
    weight_sums,
)
from layertap.models.sentence import Dense, LayerNorm
from layertap.packing import Segments, simple_segments

FINITE = st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False)
VECTORS = arrays(np.float32, array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=8), elements=FINITE)


@settings(max_examples=100, deadline=None)
@given(VECTORS)
def test_normalized_vectors_have_length_one_or_zero(vectors):
    lengths = np.linalg.norm(normalize(vectors).astype(np.float64), axis=-1)
    zero = np.linalg.norm(vectors.astype(np.float64), axis=-1) < 1e-30
    np.testing.assert_allclose(lengths[~zero], 1, atol=1e-5)
    assert not normalize(np.zeros((2, 3), dtype=np.float32)).any()


def test_normalize_of_huge_and_tiny_vectors():
    vectors = np.array([[3e38, 0], [1e30, 1e30], [1e-30, 1e-30]], dtype=np.float32)
    wanted = np.array([[1, 0], [0.5**0.5, 0.5**0.5], [0.5**0.5, 0.5**0.5]])
    np.testing.assert_allclose(normalize(vectors), wanted, rtol=1e-6)


@settings(max_examples=100, deadline=None)
@given(VECTORS)
def test_int8_is_within_half_a_step(vectors):
    quantised, scale = to_int8(vectors)
    assert quantised.dtype == np.int8
    assert scale.dtype == np.float32
    assert scale.shape == vectors.shape[:-1]
    error = np.abs(quantised * scale[..., None].astype(np.float64) - vectors)
    assert (error <= 0.5001 * scale[..., None] + 1e-36).all()
    full = np.abs(quantised).max(axis=-1)
    assert ((full == 127) | (scale < 1e-30)).all()


def test_int8_of_zeros_and_of_what_is_not_finite():
    vectors = np.array([[0, 0], [np.nan, 1], [np.inf, 1]], dtype=np.float32)
    quantised, scale = to_int8(vectors)
    assert not quantised.any()
    assert scale[0] == 0
    with np.errstate(invalid="ignore"):
        assert np.isnan(quantised[1:] * scale[1:, None]).all()


def test_binary_is_packbits_of_what_is_above_zero():
    vector = np.array([[1, -1, 0, 2, -0.0, 3, -4, 5] + [-1] * 7 + [1]], dtype=np.float32)
    assert to_binary(vector).tolist() == [[0b10010101, 0b00000001]]


def test_float16_overflows_without_a_warning():
    assert to_float16(np.array([1.5, 1e6], dtype=np.float32)).tolist() == [1.5, np.inf]


def test_segments_of_several_ranges_and_none():
    value = np.arange(12, dtype=np.float32).reshape(6, 2)
    rows = Segments(
        begin=np.array([0, 4, 2], dtype=np.int32),
        end=np.array([2, 6, 2], dtype=np.int32),
        offsets=np.array([0, 2, 3, 3], dtype=np.int32),
        weights=np.arange(6, dtype=np.float32),
    )
    picked = value[[0, 1, 4, 5]]
    np.testing.assert_array_equal(reduce_rows(value, rows, "max"), [picked.max(0), [0, 0], [0, 0]])
    np.testing.assert_array_equal(reduce_rows(value, rows, "min"), [picked.min(0), [0, 0], [0, 0]])
    np.testing.assert_array_equal(reduce_rows(value, rows, "first"), [picked[0], [0, 0], [0, 0]])
    np.testing.assert_array_equal(reduce_rows(value, rows, "last"), [picked[-1], [0, 0], [0, 0]])
    weighted = (picked * np.array([[0], [1], [4], [5]])).sum(0)
    np.testing.assert_array_equal(reduce_rows(value, rows, "sum"), [weighted, [0, 0], [0, 0]])
    np.testing.assert_array_equal(weight_sums(rows), [10, 0, 0])
    assert weight_sums(simple_segments(np.array([1]), np.array([4]))).tolist() == [3]


POOLINGS = [op for op in get_args(PoolOp) if op != "cls"]


@pytest.mark.parametrize("rules", [Rules(), Rules.without("capture")], ids=["captured", "plain"])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_text_without_own_tokens_gives_zeros(naive, facts, rules, pooling):
    feature = getattr(hidden_states[1:3], pooling)(special=False).normalize
    batch = naive.batch([([5, 9], (1, 1)), ([5, 6, 9], (1, 2))])
    result = naive.run(make_plan({"v": feature}, facts, rules=rules), batch)["v"]
    assert not result[0].any()
    assert result[1].all()


def test_truncated_vectors_do_not_hold_the_whole(naive, facts):
    batch = naive.batch([([5, 6], (0, 2))])
    result = naive.run(make_plan({"v": last_hidden_state.truncate(2)}, facts), batch)["v"]
    assert result.base is None
    assert result.flags.c_contiguous


def test_the_pooler_comes_through(naive, facts):
    texts = [([5, 6, 7], (1, 2)), ([8], (0, 0))]
    result = naive.run(make_plan({"v": pooler_output}, facts), naive.batch(texts))["v"]
    wanted = np.stack([naive.oracle(pooler_output, ids, content) for ids, content in texts])
    np.testing.assert_allclose(result, wanted, rtol=1e-5)


ACTIVATIONS = {
    "identity": "Identity",
    "tanh": "Tanh",
    "relu": "ReLU",
    "gelu": "GELU",
    "sigmoid": "Sigmoid",
    "silu": "SiLU",
}


@pytest.mark.parametrize(("activation", "name"), ACTIVATIONS.items())
@pytest.mark.parametrize("residual", ["none", "identity", "matrix"])
@pytest.mark.parametrize("bias", [False, True])
def test_dense_is_torchs(activation, name, residual, bias):
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(0)
    value, weight, matrix = (random.standard_normal((6, 6), dtype=np.float32) * 3 for _ in range(3))
    shift = random.standard_normal(6, dtype=np.float32) if bias else None
    step = Dense(
        weight=weight, bias=shift, activation=activation, residual=matrix if residual == "matrix" else residual
    )
    taken = [None if array is None else torch.from_numpy(array) for array in (value, weight, shift)]
    wanted = getattr(torch.nn, name)()(torch.nn.functional.linear(*taken)).numpy()
    wanted = wanted + {"none": 0, "identity": value, "matrix": value @ matrix.T}[residual]
    found = dense(value, step)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(dense(value[2], step), wanted[2], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_of_large_numbers(activation):
    step = Dense(weight=np.eye(4, dtype=np.float32), bias=None, activation=activation)
    found = dense(np.array([[-1e4, -90.0, 90.0, 1e4]], dtype=np.float32), step)
    low, high = {"tanh": (-1, 1), "sigmoid": (0, 1), "identity": (-1e4, 1e4)}.get(activation, (0, 1e4))
    np.testing.assert_allclose(found[0, [0, -1]], [low, high], atol=1e-6)


def test_layer_norm_is_torchs():
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(0)
    value, weight, bias = (random.standard_normal(shape, dtype=np.float32) for shape in ((5, 8), (8,), (8,)))
    value[1] = 3
    states, scale, shift = map(torch.from_numpy, (value, weight, bias))
    wanted = torch.nn.functional.layer_norm(states, (8,), scale, shift)
    found = layer_norm(value, LayerNorm(weight=weight, bias=bias))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-5, atol=1e-5)
