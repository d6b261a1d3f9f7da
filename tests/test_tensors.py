from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layertap.tensors import CHUNK, TensorView

NUMPY = {"F64": np.float64, "F32": np.float32, "F16": np.float16}


def view_of(values, dtype: str) -> TensorView:
    """A view of float32 values stored in `dtype`; BF16 is truncated."""
    array = np.asarray(values, dtype=np.float32)
    if dtype == "BF16":
        data = (array.view(np.uint32) >> 16).astype("<u2")
    else:
        with np.errstate(over="ignore"):
            data = array.astype(NUMPY[dtype])
    return TensorView(dtype, array.shape, memoryview(data.tobytes()))


@given(st.lists(st.floats(width=16), min_size=1, max_size=9), st.sampled_from(["F64", "F32", "F16"]))
def test_what_is_stored_comes_back(values, dtype):
    view = view_of(values, dtype)
    assert view.size == len(values)
    np.testing.assert_array_equal(view.to_float32(), np.array(values, dtype=np.float32))
    assert view.to_float32().dtype == np.float32
    assert view.is_finite() == bool(np.isfinite(values).all())


@given(st.lists(st.floats(width=32), min_size=1, max_size=9))
def test_bfloat16_is_the_upper_half_of_float32(values):
    view = view_of(values, "BF16")
    expected = (np.array(values, dtype=np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)
    np.testing.assert_array_equal(view.to_float32(), expected)
    assert view.is_finite() == bool(np.isfinite(expected).all())


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [0, CHUNK - 1, CHUNK, CHUNK + 4])
def test_one_bad_number_is_found_in_any_chunk(dtype, bad, where):
    values = np.zeros(CHUNK + 5, dtype=np.float32)
    assert view_of(values, dtype).is_finite()
    values[where] = bad
    assert not view_of(values, dtype).is_finite()


def test_a_double_beyond_float32_is_not_finite():
    view = TensorView("F64", (2,), memoryview(np.array([1.0, 1e300]).tobytes()))
    assert not view.is_finite()
    assert np.isinf(view.to_float32()).tolist() == [False, True]


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (2, 3), (1, 2, 3)])
def test_shapes_are_kept(dtype, shape):
    values = np.arange(int(np.prod(shape)), dtype=np.float32).reshape(shape)
    view = view_of(values, dtype)
    assert view.to_float32().shape == shape
    assert view.size == values.size
    assert view.is_finite()
    np.testing.assert_array_equal(view.to_float32(), values)


def test_float32_is_not_copied_where_aligned_and_is_aligned_always():
    stored = np.zeros(9, dtype=np.uint8)
    begin = -stored.ctypes.data % 4
    aligned = TensorView("F32", (1,), memoryview(stored)[begin : begin + 4])
    assert np.shares_memory(aligned.to_float32(), stored)
    odd = TensorView("F32", (1,), memoryview(stored)[begin + 1 : begin + 5])
    assert odd.to_float32().flags.aligned
