"""The matrix products of every instruction set against numpy in float64, and their promise of the same bits."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from tests.selection import slow_except

native = pytest.importorskip(
    "layertap.backends.native._native_testing", reason="the native kernels are not built for tests"
)

VALUE = {"float32": np.float32, "bfloat16": np.uint16, "int8": np.uint8}  # bfloat16 travels as uint16
OF_VECTORS = {
    "avx2": ["float32"],
    "avx512": ["float32"],
    "avx512_vnni": ["float32", "int8"],
}
SIZES = (1, 2, 15, 16, 17, 63, 64, 65)
INNER = (1, 2, 3, 15, 16, 17, 63, 64, 65, 127, 129, 383, 384, 385, 1537)


def pairs() -> Iterator[Any]:
    for instruction_set in native.instruction_sets():
        for name in OF_VECTORS.get(instruction_set, ["float32", "bfloat16", "int8"]):
            yield pytest.param(instruction_set, name, id=f"{instruction_set}-{name}")


every_pair = pytest.mark.parametrize(("instruction_set", "name"), list(pairs()))


def up_to(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    bits = values.astype(np.float32).view(np.uint32)
    rounded = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)


def from_bfloat16(values: np.ndarray) -> np.ndarray:
    return (values.astype(np.uint32) << 16).view(np.float32)


@dataclass(frozen=True, kw_only=True)
class Operand:
    """Activations as the kernels read them, and the numbers that they stand for."""

    stored: np.ndarray  # [M up to 16, K up to 64] of the format
    row_scales: np.ndarray | None
    row_zeros: np.ndarray | None = None
    values: np.ndarray  # [M, K] float64


def operand(x: np.ndarray, name: str) -> Operand:
    rows, inner = x.shape
    stored = np.zeros((up_to(rows, 16), up_to(inner, 64)), VALUE[name])
    if name == "float32":
        stored[:rows, :inner] = x
        return Operand(stored=stored, row_scales=None, values=x.astype(np.float64))
    if name == "bfloat16":
        stored[:rows, :inner] = to_bfloat16(x)
        return Operand(stored=stored, row_scales=None, values=from_bfloat16(to_bfloat16(x)).astype(np.float64))
    low = np.minimum(x.min(axis=1), 0)
    scales = ((np.maximum(x.max(axis=1), 0) - low) / 255).astype(np.float32)
    zeros = -low / scales  # not whole numbers
    stored[:rows, :inner] = np.rint(np.clip(x / scales[:, None] + zeros[:, None], 0, 255))
    values = (stored[:rows, :inner] - zeros[:, None].astype(np.float64)) * scales[:, None]
    return Operand(stored=stored, row_scales=scales, row_zeros=zeros, values=values)


def stored_weights(packed: Any, name: str) -> np.ndarray:
    """What is in the panels [panels * 64, padded K], in values of the format."""
    group = {"float32": 1, "bfloat16": 2, "int8": 4}[name]
    values = packed.data.view(np.int8 if name == "int8" else VALUE[name])
    if packed.instruction_set.startswith("amx") and name != "float32":  # tiles of 16 x 16 groups, two to a strip
        tiles = values.reshape(packed.panels * 2, -1, 2, 16, 16, group)
        return tiles.transpose(0, 2, 4, 1, 3, 5).reshape(packed.panels * 64, -1)
    return values.reshape(packed.panels, -1, 64, group).transpose(0, 2, 1, 3).reshape(packed.panels * 64, -1)


def weights_as_held(packed: Any, name: str, columns: int, inner: int) -> np.ndarray:
    """The numbers [N, K] that packed weights stand for, in float64."""
    stored = stored_weights(packed, name)[:columns, :inner]
    if name == "int8":
        return stored * packed.scales[:, None].astype(np.float64)
    return (from_bfloat16(stored) if name == "bfloat16" else stored).astype(np.float64)


def product(packed: Any, a: Operand, rows: int, columns: int, *, out: np.ndarray | None = None, **options: Any) -> Any:
    if out is None:
        out = np.full((rows, up_to(columns, 64)), 7, options.pop("dtype", np.float32))
    asked: dict[str, Any] = {"row_begin": 0, "row_end": rows, "panel_begin": 0, "panel_end": packed.panels}
    asked.update(options)
    native.product(packed, a.stored.view(np.uint8), row_scales=a.row_scales, row_zeros=a.row_zeros, out=out, **asked)
    return out


def largest_error(found: np.ndarray, exact: np.ndarray) -> float:
    """Largest |error| over RMS."""
    return float(np.abs(found - exact).max() / np.sqrt(np.mean(exact**2)))


SEEDS = itertools.count()


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(next(SEEDS)).standard_normal(shape, dtype=np.float32)


@every_pair
@pytest.mark.parametrize("inner", slow_except(INNER, 1, 17, 63, 129, 385))
def test_equals_float64(instruction_set: str, name: str, inner: int) -> None:
    for rows in SIZES:
        for columns in (1, 63, 64, 130):
            x, weights = draw(rows, inner), draw(columns, inner)
            a = operand(x, name)
            packed = native.Packed(instruction_set, name, weights)
            held = weights_as_held(packed, name, columns, inner)
            exact, sizes = a.values @ held.T, np.abs(a.values) @ np.abs(held).T
            out = product(packed, a, rows, columns)
            assert (np.abs(out[:, :columns] - exact) <= 5e-7 * sizes).all()
            assert not out[:, columns:].any()


@every_pair
@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
def test_factors_and_where_they_are_the_output(instruction_set: str, name: str, dtype: Any) -> None:
    """What a gated feed-forward does: act(gate) is there, and the other product is multiplied with it in its place."""
    rows, inner, columns = 13, 70, 130
    x, weights = draw(rows, inner), draw(columns, inner)
    a, packed = operand(x, name), native.Packed(instruction_set, name, weights)
    bias, residual = draw(up_to(columns, 64)), draw(rows, up_to(columns, 64))
    factors = draw(rows, up_to(columns, 64))
    if dtype is np.uint16:
        factors = to_bfloat16(factors)
    plain = product(packed, a, rows, columns, bias=bias, activation="relu")
    out = product(
        packed, a, rows, columns, bias=bias, activation="relu", factors=factors, residual=residual, dtype=dtype
    )
    values = (from_bfloat16(factors) if dtype is np.uint16 else factors).astype(np.float64)
    wanted = plain * values + residual
    found = from_bfloat16(out) if dtype is np.uint16 else out
    np.testing.assert_allclose(found, wanted, rtol=2**-8 if dtype is np.uint16 else 1e-6, atol=1e-5)
    apart = product(packed, a, rows, columns, factors=factors, dtype=dtype)
    together = factors.copy()
    product(packed, a, rows, columns, out=together, factors=together)
    assert together.tobytes() == apart.tobytes()


@pytest.mark.parametrize("instruction_set", native.instruction_sets())
@pytest.mark.parametrize(("columns", "inner"), [(384, 384), (192, 1536), (128, 3072)])
def test_float32_is_as_good_as_numpy(instruction_set: str, columns: int, inner: int) -> None:
    x, weights = draw(256, inner), draw(columns, inner)
    exact = x.astype(np.float64) @ weights.astype(np.float64).T
    out = product(native.Packed(instruction_set, "float32", weights), operand(x, "float32"), 256, columns)
    rms = np.sqrt(np.mean((out - exact) ** 2))
    assert rms <= np.sqrt(np.mean((x @ weights.T - exact) ** 2)) * 1.05
    assert largest_error(out, exact) <= 3e-6


@every_pair
def test_same_bits_however_rows_and_panels_are_split(instruction_set: str, name: str) -> None:
    rows, columns, inner = 300, 200, 1100
    x = draw(rows, inner)
    packed = native.Packed(instruction_set, name, draw(columns, inner))
    a = operand(x, name)
    options = {"bias": draw(256), "activation": "gelu", "residual": draw(rows, 256)}
    whole = product(packed, a, rows, columns, **options)
    cuts = [0, 1, 2, 4, 7, 11, 16, 22, 29, 45, 62, 126, 191, 300]
    pieces = np.zeros_like(whole)
    for begin, end in itertools.pairwise(cuts):
        for panel in range(packed.panels):
            where = {"row_begin": begin, "row_end": end, "panel_begin": panel, "panel_end": panel + 1}
            product(packed, a, rows, columns, out=pieces, **options, **where)
    np.testing.assert_array_equal(pieces.view(np.uint32), whole.view(np.uint32))
    for row in (0, 5, 150, 299):  # alone in a buffer of its own
        one = operand(x[row : row + 1], name)
        alone = product(packed, one, 1, columns, **{**options, "residual": options["residual"][row : row + 1]})
        np.testing.assert_array_equal(alone[0].view(np.uint32), whole[row].view(np.uint32))


def gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * np.vectorize(math.erfc)(-x / math.sqrt(2))


ACTIVATIONS = {
    "none": lambda x: x,
    "gelu": gelu,
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "tanh": np.tanh,
}


@every_pair
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_bias_activation_residual(instruction_set: str, name: str, activation: str) -> None:
    rows, columns, inner = 19, 130, 70
    x, weights, bias, residual = draw(rows, inner), draw(columns, inner) / 3, draw(192), draw(rows, 192)
    packed = native.Packed(instruction_set, name, weights)
    a = operand(x, name)
    sums = product(packed, a, rows, columns)[:, :columns].astype(np.float64)
    exact = ACTIVATIONS[activation](sums + bias[:columns]) + residual[:, :columns]
    out = product(packed, a, rows, columns, bias=bias, activation=activation, residual=residual)
    close = 1e-6 if name != "int8" else 2e-3  # int8: activations to about 2^-10, far below the rounding of the factors
    np.testing.assert_allclose(out[:, :columns], exact, rtol=close, atol=close * 2)
    in_place = residual.copy()
    product(packed, a, rows, columns, bias=bias, activation=activation, residual=in_place, out=in_place)
    np.testing.assert_array_equal(in_place[:, :columns], out[:, :columns])
    rounded = product(packed, a, rows, columns, bias=bias, activation=activation, residual=residual, dtype=np.uint16)
    np.testing.assert_allclose(from_bfloat16(rounded)[:, :columns], exact, rtol=2**-8, atol=2e-3)


@every_pair
def test_bfloat16_is_stored_to_nearest_even(instruction_set: str, name: str) -> None:
    x, weights = draw(33, 100), draw(70, 100)
    packed = native.Packed(instruction_set, name, weights)
    a = operand(x, name)
    sums = product(packed, a, 33, 70)
    np.testing.assert_array_equal(product(packed, a, 33, 70, dtype=np.uint16), to_bfloat16(sums))


@pytest.mark.parametrize("instruction_set", native.instruction_sets())
def test_ties_and_special_values_as_bfloat16(instruction_set: str) -> None:
    bits = np.array([0x3F808000, 0x3F818000, 0x3F808001, 0x7F7FFFFF, 0x80000000, 0x7F800000, 0xFF800000], np.uint32)
    residual = np.zeros((1, 64), np.float32)
    residual[0, : len(bits)] = bits.view(np.float32)
    residual[0, len(bits)] = np.nan
    packed = native.Packed(instruction_set, "float32", np.zeros((9, 1), np.float32))
    out = product(packed, operand(draw(1, 1), "float32"), 1, 9, residual=residual, dtype=np.uint16)[0]
    assert [hex(value) for value in out[:4]] == ["0x3f80", "0x3f82", "0x3f81", "0x7f80"]
    assert [hex(value) for value in out[5:7]] == ["0x7f80", "0xff80"]
    assert np.isnan(from_bfloat16(out[7:8]))


# a row that is not finite has no int8 values; its scale carries it, in a test below
@pytest.mark.parametrize(("instruction_set", "name"), [pair for pair in pairs() if "int8" not in pair.values])
def test_a_bad_row_stays_alone(instruction_set: str, name: str) -> None:
    x, weights = draw(20, 90), draw(70, 90)
    packed = native.Packed(instruction_set, name, weights)
    options = {"bias": draw(128), "activation": "gelu"}
    clean = product(packed, operand(x, name), 20, 70, **options)
    x[7, 3], x[11, 89], x[13, 0] = np.nan, np.inf, -np.inf
    out = product(packed, operand(x, name), 20, 70, **options)
    good = [row for row in range(20) if row not in (7, 11, 13)]
    np.testing.assert_array_equal(out[good], clean[good])
    assert np.isnan(out[7, :70]).all()
    # -inf under GELU is -0; +inf stays
    assert not np.isfinite(out[[11, 13], :70]).all(axis=1).any()


@every_pair
def test_weights_that_are_not_finite_give_nan(instruction_set: str, name: str) -> None:
    weights = draw(5, 40)
    weights[2, 9] = np.nan
    out = product(native.Packed(instruction_set, name, weights), operand(draw(9, 40), name), 9, 5)
    assert np.isnan(out[:, 2]).all()
    assert np.isfinite(out[:, [0, 1, 3, 4]]).all()


@pytest.mark.parametrize("instruction_set", [p for p in native.instruction_sets() if p not in ("avx2", "avx512")])
def test_nan_scale_of_a_row_gives_nan(instruction_set: str) -> None:
    a = operand(draw(9, 40), "int8")
    assert a.row_scales is not None
    a.row_scales[4] = np.nan
    out = product(native.Packed(instruction_set, "int8", draw(5, 40)), a, 9, 5, activation="gelu")
    assert np.isnan(out[4, :5]).all()
    assert np.isfinite(np.delete(out, 4, axis=0)).all()


@every_pair
def test_packed_layout(instruction_set: str, name: str) -> None:
    columns, inner = 70, 37
    weights = draw(columns, inner)
    weights[3] = 0
    packed = native.Packed(instruction_set, name, weights)
    held = stored_weights(packed, name)
    assert held.shape == (128, {"float32": 48, "bfloat16": 64, "int8": 64}[name])
    assert not held[columns:].any()
    assert not held[:, inner:].any()
    if name == "float32":
        np.testing.assert_array_equal(held[:columns, :inner], weights)
    elif name == "bfloat16":
        np.testing.assert_array_equal(held[:columns, :inner], to_bfloat16(weights))
    else:
        scales = np.abs(weights).max(axis=1) / np.float32(127)
        np.testing.assert_array_equal(packed.scales, scales)
        found = held[:columns, :inner].astype(np.float64) * packed.scales[:, None]
        assert (np.abs(found - weights) <= 0.5001 * scales[:, None]).all()
        np.testing.assert_array_equal(packed.sums, held[:columns].astype(np.int32).sum(axis=1))


@pytest.mark.parametrize("instruction_set", [p for p in native.instruction_sets() if p not in ("avx2", "avx512")])
def test_int8_sums_do_not_saturate(instruction_set: str) -> None:
    # pairs of 255 * 127 overflow 16 bits, where older instructions add them
    inner = 4096
    stored = np.full((16, inner), 255, np.uint8)
    zeros = np.full(1, 128, np.float32)
    a = Operand(stored=stored, row_scales=np.ones(1, np.float32), row_zeros=zeros, values=np.full((1, inner), 127.0))
    out = product(native.Packed(instruction_set, "int8", np.full((1, inner), 127, np.float32)), a, 1, 1)
    assert out[0, 0] == 127 * 127 * inner


def test_refuses_what_it_cannot_do() -> None:
    best = native.instruction_sets()[0]
    with pytest.raises(ValueError, match="instruction set"):
        native.Packed("sse2", "float32", draw(2, 2))
    with pytest.raises(ValueError, match="format"):
        native.Packed(best, "float64", draw(2, 2))
    with pytest.raises(ValueError, match="neither"):
        native.Packed(best, "float32", np.zeros((0, 3), np.float32))
    packed, a = native.Packed(best, "float32", draw(65, 10)), operand(draw(3, 10), "float32")
    with pytest.raises(ValueError, match="rows"):
        product(packed, a, 3, 65, row_end=4)
    with pytest.raises(ValueError, match="panels"):
        product(packed, a, 3, 65, panel_end=3)
    with pytest.raises(ValueError, match="bias"):
        product(packed, a, 3, 65, bias=draw(65))
    with pytest.raises(ValueError, match="out"):
        product(packed, a, 3, 65, out=np.zeros((3, 65), np.float32))
    with pytest.raises(ValueError, match="activation"):
        product(packed, a, 3, 65, activation="mish")
