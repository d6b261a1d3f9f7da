"""The functions of kernels/math.hpp against float64, over dense grids and floats of random bits."""

from __future__ import annotations

import math

import numpy as np
import pytest

native = pytest.importorskip(
    "layertap.backends.native._native_testing", reason="the native kernels are not built for tests"
)

instruction_sets = pytest.mark.parametrize("instruction_set", native.instruction_sets())


def evaluate(instruction_set, function, values):
    values = np.ascontiguousarray(values, dtype=np.float32)
    out = np.full_like(values, 77)
    native.evaluate(instruction_set, function, values, out)
    return out


def phi(x):
    """The normal distribution function, which erfc keeps precise in the tail."""
    return 0.5 * np.fromiter((math.erfc(v) for v in -x / math.sqrt(2)), dtype=np.float64, count=len(x))


def logistic(x):
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-x))


EXACT = {
    "exp": np.exp,
    "exp_rounded": np.exp,
    "exp2_rounded": np.exp2,
    "gelu": lambda x: x * phi(x),
    "gelu_tanh": lambda x: x * logistic(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)),
    "silu": lambda x: x * logistic(x),
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
}
EXACT |= {f"{name}_rounded": EXACT[name] for name in ("gelu", "gelu_tanh", "silu")}


def inputs(low, high):
    """A grid, and floats of every size: random bits."""
    bits = np.random.default_rng(5).integers(0, 2**32, 200_000, dtype=np.uint64).astype(np.uint32).view(np.float32)
    values = np.concatenate([np.linspace(low, high, 200_001, dtype=np.float32), bits[np.isfinite(bits)]])
    return values[(values >= low) & (values <= high)]


def in_ulps(found, exact):
    with np.errstate(over="ignore"):
        spacing = np.spacing(np.minimum(np.abs(exact), np.finfo(np.float32).max).astype(np.float32))
    return np.abs(found.astype(np.float64) - exact) / spacing


@instruction_sets
@pytest.mark.parametrize(
    ("function", "low", "high", "ulps"),
    [("exp", -120, 88.72, 1), ("tanh", -1e30, 1e30, 3), ("relu", -1e30, 1e30, 0), ("silu", -80, 1e30, 3)],
)
def test_ulps(instruction_set, function, low, high, ulps):
    x = inputs(low, high)
    assert in_ulps(evaluate(instruction_set, function, x), EXACT[function](x.astype(np.float64))).max() <= ulps


@instruction_sets
@pytest.mark.parametrize("function", ["gelu", "gelu_tanh"])
def test_gelu_is_float32_grade(instruction_set, function):
    x = inputs(-1e6, 1e6)
    x = x[np.abs(x) > 1e-30]  # below that, half an ulp of a subnormal result is more
    exact = EXACT[function](x.astype(np.float64))
    error = np.abs(evaluate(instruction_set, function, x) - exact)
    assert (error / np.abs(x)).max() < 2**-22.5
    # no cancelling in the negative tail: small results are as good
    tail = (x < 0) & (x > (-12.9 if function == "gelu" else -5))
    assert in_ulps(evaluate(instruction_set, function, x[tail]), exact[tail]).max() < (6 if function == "gelu" else 40)


@instruction_sets
@pytest.mark.parametrize(
    ("function", "low", "high", "bound"),
    [
        ("exp_rounded", -87, 0, 1e-4),
        ("exp2_rounded", -125, 0, 1e-4),
        ("gelu_rounded", -4.5, 1e6, 2**-10),
        ("gelu_tanh_rounded", -4.5, 1e6, 2**-12),
        ("silu_rounded", -85, 1e6, 2**-12),
    ],
)
def test_relative_error_of_rounded_forms(instruction_set, function, low, high, bound):
    x = inputs(low, high)
    x = x[np.abs(x) > 1e-30]
    exact = EXACT[function](x.astype(np.float64))
    assert (np.abs(evaluate(instruction_set, function, x) - exact) / np.abs(exact)).max() < bound


@instruction_sets
def test_rounded_tails_come_to_nothing(instruction_set):
    x = inputs(-1e30, -4.5)
    for function in ("gelu_rounded", "gelu_tanh_rounded"):
        assert np.abs(evaluate(instruction_set, function, x)).max() < 2e-5
    for function in ("exp_rounded", "exp2_rounded"):
        assert evaluate(instruction_set, function, np.array([-150, -1e30, -np.inf])).max() < 1e-38


@instruction_sets
@pytest.mark.parametrize("function", sorted(EXACT))
def test_special_values(instruction_set, function):
    nan, top, bottom, zero, minus_zero = evaluate(instruction_set, function, [np.nan, np.inf, -np.inf, 0.0, -0.0])
    assert np.isnan(nan)
    if function.startswith("exp"):
        assert bottom == 0
        assert zero == minus_zero == pytest.approx(1, abs=1e-4)
        if function == "exp":
            assert zero == 1
            assert top == np.inf
    else:
        assert top == (1 if function == "tanh" else np.inf)
        if function in ("tanh", "relu"):
            assert bottom == (-1 if function == "tanh" else 0)
        else:  # -inf times 0, as in torch: a finite result would hide the overflow
            assert np.isnan(bottom)
        assert zero == 0
        assert minus_zero == 0


@instruction_sets
def test_exp_over_and_underflows(instruction_set):
    x = np.array([88.73, 89, 1e4, 3e38, -104, -1e4, -3e38], dtype=np.float32)
    assert evaluate(instruction_set, "exp", x).tolist() == [np.inf] * 4 + [0] * 3
    subnormal = evaluate(instruction_set, "exp", np.array([-88, -95, -103], dtype=np.float32))
    assert in_ulps(subnormal, np.exp(np.array([-88.0, -95, -103]))).max() <= 1


@instruction_sets
@pytest.mark.parametrize("function", sorted(EXACT))
def test_same_bits_in_every_lane(instruction_set, function):
    x = np.random.default_rng(3).normal(scale=3, size=70).astype(np.float32)
    x = -np.abs(x) if function in ("exp_rounded", "exp2_rounded") else x
    whole = evaluate(instruction_set, function, x)
    for begin in range(20):
        for end in (begin + 1, begin + 7, begin + 17, begin + 35):
            part = evaluate(instruction_set, function, x[begin:end])
            assert part.tobytes() == whole[begin:end].tobytes()


def test_refused():
    x = np.zeros(4, dtype=np.float32)
    with pytest.raises(ValueError, match="no instruction set 'mmx'"):
        native.evaluate("mmx", "exp", x, x)
    with pytest.raises(ValueError, match="function 'log' does not exist"):
        native.evaluate("avx2", "log", x, x)
    with pytest.raises(ValueError, match="same length"):
        native.evaluate("avx2", "exp", x, x[:3].copy())


@pytest.mark.parametrize("function", ["exp", "gelu", "gelu_tanh", "silu", "tanh", "relu"])
def test_the_same_bits_on_all_sets_of_vectors(function):
    values = inputs(-1e30, 1e30)
    expected = evaluate("avx2", function, values)
    for instruction_set in native.instruction_sets():
        found = evaluate(instruction_set, function, values)
        np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
        same = found.view(np.int32) == expected.view(np.int32)
        assert (same | np.isnan(expected)).all(), instruction_set
