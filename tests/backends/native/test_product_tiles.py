"""Products by AMX tiles: the emulated instructions bit by bit, and float32 as sums of bfloat16."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

native = pytest.importorskip(
    "layertap.backends.native._native_testing", reason="the native kernels are not built for tests"
)

WITH_TILES = [name for name in native.instruction_sets() if name.startswith("amx")]
with_tiles = pytest.mark.parametrize(
    "instruction_set",
    WITH_TILES or [pytest.param("", marks=pytest.mark.skip(reason="needs AMX, or AVX-512 BF16 to emulate it"))],
)
PARTS = {"bfloat16": 1, "split2": 2, "split3": 3}
every_format = pytest.mark.parametrize("name", PARTS)


def up_to(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def from_bfloat16(values: np.ndarray) -> np.ndarray:
    return (values.astype(np.uint32) << 16).view(np.float32)


def parts_of(x: np.ndarray, count: int) -> list[np.ndarray]:
    """bfloat16 matrices whose sum is nearly x: each is what the ones before it left over, rounded."""
    parts = []
    for _ in range(count):
        parts.append(to_bfloat16(x))
        x = x - from_bfloat16(parts[-1])
    return parts


def stored(x: np.ndarray, name: str, *, columns: int | None = None) -> np.ndarray:
    """Activations as bytes [parts * M up to 16, K up to 64]."""
    values = np.zeros((PARTS[name], up_to(len(x), 16), columns or up_to(x.shape[1], 64)), np.uint16)
    for part, of_part in zip(values, parts_of(x, PARTS[name]), strict=True):
        part[: len(x), : x.shape[1]] = of_part
    return values.reshape(-1, values.shape[2]).view(np.uint8)


def product(
    packed: Any, a: np.ndarray, rows: int, columns: int, *, out: np.ndarray | None = None, **options: Any
) -> np.ndarray:
    if out is None:
        out = np.full((rows, up_to(columns, 64)), 7, np.float32)
    asked = {"row_begin": 0, "row_end": rows, "panel_begin": 0, "panel_end": packed.panels, **options}
    native.product(packed, a, out=out, **asked)
    return out


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([*shape, seed]).standard_normal(shape, dtype=np.float32)


def flushed(values: np.ndarray) -> np.ndarray:
    """As float32, rounded to nearest even; below the normal numbers zero."""
    rounded: np.ndarray = values.astype(np.float32)
    return np.where(np.abs(rounded) < np.finfo(np.float32).tiny, np.copysign(np.float32(0), rounded), rounded)


def as_the_instruction(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """TDPBF16PS over K: of each 32 values the even and the odd ones are summed apart by fused multiplications, the two
    sums are added, then that to the tile. Computed in float64 and rounded after each operation: there a product of two
    bfloat16 is exact, and so is its sum with a float32 unless they are far apart."""
    inner = up_to(x.shape[1], 32)
    a, b = (np.zeros((len(of), inner), np.float32) for of in (x, weights))
    a[:, : x.shape[1]], b[:, : x.shape[1]] = from_bfloat16(to_bfloat16(x)), from_bfloat16(to_bfloat16(weights))
    a, b = flushed(a), flushed(b)
    total = np.zeros((len(a), len(b)), np.float32)
    for begin in range(0, inner, 32):
        halves = []
        for parity in (0, 1):
            half = np.zeros_like(total)
            for k in range(begin + parity, begin + 32, 2):
                half = flushed(half + a[:, k, None].astype(np.float64) * b[None, :, k])
            halves.append(half)
        total = flushed(total.astype(np.float64) + flushed(halves[0].astype(np.float64) + halves[1]))
    return total


@with_tiles
@pytest.mark.parametrize(("rows", "columns", "inner"), [(1, 1, 1), (17, 70, 33), (33, 64, 385), (40, 20, 1536)])
def test_bits_of_the_bfloat16_instruction(instruction_set: str, rows: int, columns: int, inner: int) -> None:
    x, weights = draw(rows, inner), draw(columns, inner, seed=1)
    out = product(native.Packed(instruction_set, "bfloat16", weights), stored(x, "bfloat16"), rows, columns)
    np.testing.assert_array_equal(out[:, :columns], as_the_instruction(x, weights))
    assert not out[:, columns:].any()


@with_tiles
def test_small_numbers_are_flushed(instruction_set: str) -> None:
    x, weights = np.zeros((5, 40), np.float32), np.zeros((3, 40), np.float32)
    x[0, 0], weights[0, 0] = 1e-39, 1e30  # a factor below the normal numbers
    x[1, 1], weights[1, 1] = 1e-20, 1e-20  # a product
    x[2, 2], weights[2, 2] = 1e-19, 1e-19  # a sum: no longer a normal number after the next
    x[2, 4], weights[2, 4] = 1e-19, -9.9e-20
    x[3, 3], weights[2, 3] = 1e-18, 1e-18
    out = product(native.Packed(instruction_set, "bfloat16", weights), stored(x, "bfloat16"), 5, 3)[:, :3]
    np.testing.assert_array_equal(out, as_the_instruction(x, weights))
    assert np.count_nonzero(out) == 1
    assert out[3, 2] > 9e-37


@with_tiles
@every_format
def test_bad_values_stay_in_their_row(instruction_set: str, name: str) -> None:
    x, weights = draw(50, 100), draw(70, 100, seed=1)
    packed = native.Packed(instruction_set, name, weights)
    clean = product(packed, stored(x, name), 50, 70)
    x[7, 3], x[40, 99] = np.nan, np.inf
    with np.errstate(invalid="ignore"):  # the rest of an infinity
        out = product(packed, stored(x, name), 50, 70)
    good = [row for row in range(50) if row not in (7, 40)]
    np.testing.assert_array_equal(out[good], clean[good])
    assert not np.isfinite(out[[7, 40], :70]).any()


@with_tiles
@pytest.mark.parametrize(("rows", "columns", "inner"), [(1, 1, 1), (16, 64, 64), (37, 130, 700), (300, 66, 1537)])
def test_int8_sums_are_exact(instruction_set: str, rows: int, columns: int, inner: int) -> None:
    random = np.random.default_rng(inner)
    a = np.zeros((up_to(rows, 16), up_to(inner, 64)), np.uint8)
    a[:rows, :inner] = random.integers(0, 256, (rows, inner))
    weights = random.integers(-127, 128, (columns, inner)).astype(np.float32)
    weights[:, 0] = 127  # scales of 1
    steps = {"row_scales": np.ones(rows, np.float32), "row_zeros": np.full(rows, 128, np.float32)}
    out = product(native.Packed(instruction_set, "int8", weights), a, rows, columns, **steps)
    exact = (a[:rows, :inner].astype(np.int64) - 128) @ weights.astype(np.int64).T
    np.testing.assert_array_equal(out[:, :columns], exact.astype(np.float32))


@with_tiles
@pytest.mark.parametrize("inner", [1, 2, 31, 32, 33, 63, 64, 65, 383, 384, 385, 768, 769, 3072])
def test_splits_are_close_to_float64(instruction_set: str, inner: int) -> None:
    for rows, columns in ((1, 1), (15, 63), (16, 64), (17, 65), (33, 130), (129, 32)):
        x, weights = draw(rows, inner), draw(columns, inner, seed=1)
        exact = x.astype(np.float64) @ weights.astype(np.float64).T
        sizes = np.abs(x).astype(np.float64) @ np.abs(weights).astype(np.float64).T
        for name, bound in (("split2", 3 * 2.0**-16), ("split3", 6 * 2.0**-24)):
            out = product(native.Packed(instruction_set, name, weights), stored(x, name), rows, columns)
            assert (np.abs(out[:, :columns] - exact) <= bound * sizes).all()
            assert not out[:, columns:].any()


@with_tiles
@pytest.mark.parametrize("inner", [384, 768, 3072])
def test_three_parts_are_at_least_as_good_as_float32(instruction_set: str, inner: int) -> None:
    x, weights = draw(256, inner), draw(192, inner, seed=1)
    exact = x.astype(np.float64) @ weights.astype(np.float64).T
    out = product(native.Packed(instruction_set, "split3", weights), stored(x, "split3"), 256, 192)
    numpy_rms = np.sqrt(np.mean((x @ weights.T - exact) ** 2))
    assert np.sqrt(np.mean((out - exact) ** 2)) <= 0.5 * numpy_rms
    assert np.abs(out - exact).max() <= 1.5e-6 * np.sqrt(np.mean(exact**2))


@with_tiles
@every_format
@pytest.mark.parametrize("inner", [70, 384, 1100])
def test_same_bits_however_rows_and_panels_are_split(instruction_set: str, name: str, inner: int) -> None:
    rows, columns = 300, 200
    x = draw(rows, inner)
    packed = native.Packed(instruction_set, name, draw(columns, inner, seed=1))
    a = stored(x, name)
    residual = draw(rows, 256)
    options: dict[str, Any] = {"bias": draw(256), "activation": "gelu"}
    whole = product(packed, a, rows, columns, **options, residual=residual)
    cuts = [0, 1, 3, 18, 34, 50, 67, 99, 131, 260, 261, 277, 300]
    pieces = np.zeros_like(whole)
    for begin, end in pairwise(cuts):
        for panels in ((0, 1), (1, 4)):
            where = {"row_begin": begin, "row_end": end, "panel_begin": panels[0], "panel_end": panels[1]}
            product(packed, a, rows, columns, out=pieces, **options, residual=residual, **where)
    np.testing.assert_array_equal(pieces.view(np.uint32), whole.view(np.uint32))
    for row in (0, 17, 255, 299):  # alone, in a buffer with another stride
        one = stored(x[row : row + 1], name, columns=up_to(inner, 64) + 64)
        alone = product(packed, one, 1, columns, **options, residual=residual[row : row + 1])
        np.testing.assert_array_equal(alone[0].view(np.uint32), whole[row].view(np.uint32))


@with_tiles
@every_format
def test_residual_may_be_the_output(instruction_set: str, name: str) -> None:
    # blocks of rows that overlap are computed twice; each row is stored, and the residual added, once
    rows, columns, inner = 37, 100, 90
    packed = native.Packed(instruction_set, name, draw(columns, inner, seed=1))
    a, residual = stored(draw(rows, inner), name), draw(rows, 128)
    apart = product(packed, a, rows, columns, residual=residual, row_begin=3)
    in_place = residual.copy()
    product(packed, a, rows, columns, residual=in_place, out=in_place, row_begin=3)
    np.testing.assert_array_equal(in_place[3:], apart[3:])
    np.testing.assert_array_equal(in_place[:3], residual[:3])


@with_tiles
@every_format
def test_parts_of_the_packed_weights_add_up(instruction_set: str, name: str) -> None:
    columns, inner, parts = 70, 37, PARTS[name]
    weights = draw(columns, inner)
    packed = native.Packed(instruction_set, name, weights)
    # [strip of 32 columns, step of 16 groups, part, tile of 16 columns, group, column, value of a pair]
    tiles = packed.data.view(np.uint16).reshape(packed.panels * 2, -1, parts, 2, 16, 16, 2)
    held = from_bfloat16(tiles.transpose(2, 0, 3, 5, 1, 4, 6).reshape(parts, packed.panels * 64, -1))
    assert not held[:, columns:].any()
    assert not held[:, :, inner:].any()
    expected = np.array([from_bfloat16(part) for part in parts_of(weights, parts)])
    np.testing.assert_array_equal(held[:, :columns, :inner], expected)
