"""Kernels over rows against numpy in float64: norms, rotary positions, operands, embeddings, totals."""

from __future__ import annotations

import numpy as np
import pytest

native = pytest.importorskip(
    "layertap.backends.native._native_testing", reason="the native kernels are not built for tests"
)

instruction_sets = pytest.mark.parametrize("instruction_set", native.instruction_sets())

SIZES = (1, 2, 7, 8, 9, 15, 16, 17, 31, 63, 64, 65, 127, 128, 129, 383, 384, 385, 768, 1023, 4096)


def padded(columns):
    return -(-columns // 64) * 64


def to_bfloat16(values):
    """float32 -> the bits of bfloat16, to nearest even."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(values), (bits >> 16) | 0x40, rounded).astype(np.uint16)


def from_bfloat16(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def norm(instruction_set, rows, weight, bias, eps=1e-12, *, columns=None, has_rounded=True, rms=False):
    columns = rows.shape[1] if columns is None else columns
    out = np.full((len(rows), padded(columns)), 77, dtype=np.float32)
    rounded = np.full(out.shape, 77, dtype=np.uint16) if has_rounded else None
    native.normalize(instruction_set, rows, columns, weight, bias, eps, rms, out, rounded)
    return out, rounded


def exact_norm(rows, weight, bias, eps=1e-12, *, rms=False):
    x = rows.astype(np.float64)
    if not rms:
        x = x - x.mean(1, keepdims=True)
    y = x / np.sqrt(np.square(x).mean(1, keepdims=True) + eps)
    return y * weight + (0 if bias is None else bias)


@instruction_sets
@pytest.mark.parametrize("columns", SIZES)
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("rms", [False, True])
def test_norm(instruction_set, columns, has_bias, rms):
    rows, weight = normal(5, columns) * 3 + 1, normal(columns, seed=1)
    bias = normal(columns, seed=2) if has_bias else None
    out, rounded = norm(instruction_set, rows, weight, bias, rms=rms)
    exact = exact_norm(rows, weight, bias, rms=rms)
    if columns > 2 or rms:  # of two columns, the differences are all there is
        np.testing.assert_allclose(out[:, :columns], exact, rtol=0, atol=4e-6)
    assert not out[:, columns:].any()
    np.testing.assert_array_equal(rounded, to_bfloat16(out))
    alone, nothing = norm(instruction_set, rows, weight, bias, has_rounded=False, rms=rms)
    assert nothing is None
    assert alone.tobytes() == out.tobytes()


@instruction_sets
@pytest.mark.parametrize("columns", [384, 768, 1000, 4096])
@pytest.mark.parametrize("offset", [0, 10, 1000])
def test_layer_norm_is_no_worse_than_torch(instruction_set, columns, offset):
    torch = pytest.importorskip("torch")
    rows = normal(64, columns, seed=3) * 2 + offset
    rows[:, 5] *= 30  # as real models have
    weight, bias = normal(columns, seed=4), normal(columns, seed=5)
    exact = exact_norm(rows, weight, bias, 1e-5)
    ours = norm(instruction_set, rows, weight, bias, 1e-5)[0][:, :columns]
    theirs = torch.nn.functional.layer_norm(
        torch.from_numpy(rows), (columns,), torch.from_numpy(weight), torch.from_numpy(bias), 1e-5
    ).numpy()
    assert np.square(ours - exact).mean() <= 1.1 * np.square(theirs - exact).mean()
    assert np.abs(ours - exact).max() <= 1.5 * np.abs(theirs - exact).max()


@instruction_sets
def test_layer_norm_in_place_and_of_part_of_a_row(instruction_set):
    rows, weight, bias = normal(3, 128), normal(100, seed=1), normal(100, seed=2)
    expected, _ = norm(instruction_set, np.ascontiguousarray(rows[:, :100]), weight, bias)
    out, _ = norm(instruction_set, rows, weight, bias, columns=100)
    assert out.tobytes() == expected.tobytes()
    native.normalize(instruction_set, rows, 100, weight, bias, 1e-12, False, rows, None)
    assert rows.tobytes() == expected.tobytes()


@instruction_sets
def test_layer_norm_of_what_is_not_finite_or_all_the_same(instruction_set):
    rows = normal(4, 100)
    rows[1, 3], rows[2, 99], rows[3] = np.nan, np.inf, 0.1
    ones = np.ones(100, dtype=np.float32)
    out, _ = norm(instruction_set, rows, ones, ones, 1e-12)
    assert np.isfinite(out[0]).all()
    assert np.isnan(out[1:3, :100]).all()
    assert not out[:, 100:].any()
    assert np.abs(out[3, :100] - 1).max() < 0.1


@instruction_sets
@pytest.mark.parametrize("rms", [False, True])
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("columns", [1, 100, 768])
def test_norms_whose_squares_overflow_are_nan_and_not_zero(instruction_set, rms, has_bias, columns):
    rows = normal(3, columns)
    rows[1] = np.where(np.arange(columns) % 2, 1e25, -1e25)
    rows[2, columns // 2] = 3e38
    ones = np.ones(columns, dtype=np.float32)
    out, rounded = norm(instruction_set, rows, ones, ones if has_bias else None, rms=rms)
    overflows = [1, 2] if columns > 1 or rms else []  # a single column is its own mean
    assert np.isfinite(out[0, :columns]).all()
    assert np.isnan(out[overflows, :columns]).all()
    assert np.isnan(from_bfloat16(rounded[overflows, :columns])).all()


@instruction_sets
@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
@pytest.mark.parametrize("half", [1, 6, 8, 15, 16, 17, 32, 40, 64])
def test_rotate(instruction_set, kind, half):
    heads, places = 3, np.array([4, 0, 9, 9, 30], dtype=np.int32)
    angles = np.random.default_rng(0).uniform(-4, 4, size=(31, half))
    cosines, sines = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    given = normal(len(places), heads * 2 * half + 5)
    if kind == "bfloat16":
        given = from_bfloat16(to_bfloat16(given))
    points = given[:, :-5].reshape(len(places), heads, 2, half).astype(np.float64)
    one, other = points[:, :, 0], points[:, :, 1]
    cosine, sine = np.cos(angles)[places][:, None], np.sin(angles)[places][:, None]
    turned = np.stack([one * cosine - other * sine, other * cosine + one * sine], axis=2).reshape(len(places), -1)

    def rotated(rows, own_places, first_place=0):
        rows = to_bfloat16(rows) if kind == "bfloat16" else rows.copy()
        native.rotate(instruction_set, rows, heads, cosines, sines, own_places, first_place)
        return from_bfloat16(rows) if kind == "bfloat16" else rows

    found = rotated(given, places)
    bound = 2**-8 if kind == "bfloat16" else 4e-7
    np.testing.assert_allclose(found[:, :-5], turned, rtol=bound, atol=bound)
    assert found[:, -5:].tobytes() == given[:, -5:].tobytes()
    in_order = rotated(given, None, first_place=9)
    assert in_order[0, :-5].tobytes() == rotated(given[:1], np.array([9], np.int32))[0, :-5].tobytes()
    assert in_order[3].tobytes() == rotated(given[3:4], np.array([12], np.int32))[0].tobytes()


def to_operand(instruction_set, rows, columns, format_):
    parts = {"split2": 2, "split3": 3}.get(format_, 1)
    dtype = {"float32": np.float32, "int8": np.uint8}.get(format_, np.uint16)
    out = np.full((parts, len(rows), padded(columns)), 77, dtype=dtype)
    steps = np.full((2, len(rows)), 77, dtype=np.float32) if format_ == "int8" else None
    native.to_operand(instruction_set, rows, columns, format_, out, steps)
    return out, steps


@instruction_sets
@pytest.mark.parametrize("columns", SIZES)
def test_operands(instruction_set, columns):
    rows = normal(3, columns + 3)  # more than is to be read
    seen = rows[:, :columns]
    out, _ = to_operand(instruction_set, rows, columns, "float32")
    np.testing.assert_array_equal(out[0, :, :columns], seen)
    assert not out[..., columns:].any()
    for format_, parts in (("bfloat16", 1), ("split2", 2), ("split3", 3)):
        out, _ = to_operand(instruction_set, rows, columns, format_)
        rest = seen
        for part in range(parts):
            np.testing.assert_array_equal(out[part, :, :columns], to_bfloat16(rest))
            rest = rest - from_bfloat16(to_bfloat16(rest))
        assert not out[..., columns:].any()
        assert (np.abs(rest) <= np.abs(seen) * 2.0 ** (-9 * parts + 1)).all()


@instruction_sets
@pytest.mark.parametrize("columns", SIZES)
def test_int8_operand(instruction_set, columns):
    rows = normal(7, columns + 3) * np.array([[1], [1e-20], [1e20], [0], [1], [1], [1]], dtype=np.float32)
    rows[4], rows[5] = np.abs(rows[4]), -np.abs(rows[5])
    rows[6, columns // 2] = -50
    seen = rows[:, :columns].astype(np.float64)
    out, (scales, zeros) = to_operand(instruction_set, rows, columns, "int8")
    low, high = np.minimum(seen.min(1), 0), np.maximum(seen.max(1), 0)
    np.testing.assert_allclose(scales, (high - low) / 255, rtol=2e-7)
    assert not out[0, :, columns:].any()
    assert not out[0, 3].any()
    values = scales[:, None] * (out[0, :, :columns].astype(np.float64) - zeros[:, None])
    assert (np.abs(values - seen) <= 0.5001 * scales[:, None]).all()
    assert zeros[4] == 0
    assert zeros[5] == pytest.approx(255)


@instruction_sets
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", [0, 20, 69])
def test_operands_of_what_is_not_finite(instruction_set, bad, column):
    rows = normal(2, 70)
    rows[1, column] = bad
    _, (scales, _) = to_operand(instruction_set, rows, 70, "int8")
    assert np.isfinite(scales[0])
    assert np.isnan(scales[1])
    out, _ = to_operand(instruction_set, rows, 70, "bfloat16")
    assert np.isnan(bad) == np.isnan(from_bfloat16(out[0, 1, column]))
    assert not np.isfinite(from_bfloat16(out[0, 1, column]))


@instruction_sets
def test_bfloat16_of_random_bits(instruction_set):
    bits = np.random.default_rng(0).integers(0, 2**32, (4, 4096), dtype=np.uint64).astype(np.uint32)
    ties = np.arange(4096, dtype=np.uint32)[None] * 0x8000 + 0x3F800000
    rows = np.concatenate([bits, ties]).view(np.float32)
    rows[np.abs(rows) < 2e-38] = 0  # where the instruction flushes
    out, _ = to_operand(instruction_set, rows, 4096, "bfloat16")
    expected = to_bfloat16(rows)
    numbers = ~np.isnan(rows)
    np.testing.assert_array_equal(out[0][numbers], expected[numbers])
    assert np.isnan(from_bfloat16(out[0][~numbers])).all()


@instruction_sets
@pytest.mark.parametrize("columns", SIZES)
def test_widen(instruction_set, columns):
    bits = np.random.default_rng(1).integers(0, 2**16, (3, padded(columns)), dtype=np.uint16)
    out = np.full(bits.shape, 77, dtype=np.float32)
    native.widen(instruction_set, bits, columns, out)
    np.testing.assert_array_equal(out[:, :columns], from_bfloat16(bits[:, :columns]))
    assert not out[:, columns:].any()


@instruction_sets
@pytest.mark.parametrize("columns", SIZES)
def test_totals(instruction_set, columns):
    room = np.full(columns + 20, 77, dtype=np.float32)
    total, row = room[:columns], normal(columns)

    def gather(how, values, weight=1.0):
        native.gather_row(instruction_set, how, total, values, weight)
        assert (room[columns:] == 77).all()

    gather("set", row, 0.3)
    np.testing.assert_array_equal(total, row * np.float32(0.3))
    more = normal(columns, seed=1)
    gather("add", more, 0.7)
    np.testing.assert_allclose(total, row * 0.3 + more * 0.7, rtol=1e-5, atol=1e-6)
    for how, exact in (("max", np.maximum), ("min", np.minimum)):
        a, b = normal(columns, seed=2), normal(columns, seed=3)
        a[::3], b[1::4] = np.nan, np.nan
        total[:] = a
        gather(how, b)
        np.testing.assert_array_equal(total, exact(a, b))


def stored(values, kind):
    if kind == "float32":
        return values.astype(np.float32)
    return to_bfloat16(values) if kind == "bfloat16" else values.astype(np.float16).view(np.uint16)


def read(table, kind):
    if kind == "float32":
        return table
    return from_bfloat16(table) if kind == "bfloat16" else table.view(np.float16).astype(np.float32)


@instruction_sets
@pytest.mark.parametrize("columns", SIZES)
@pytest.mark.parametrize("kind", ["float32", "bfloat16", "float16"])
def test_embed(instruction_set, columns, kind):
    random = np.random.default_rng(0)
    words, types, positions = (stored(normal(n, columns, seed=n), kind) for n in (50, 2, 30))
    ids = [random.integers(0, n, 9).astype(np.int32) for n in (50, 2, 30)]
    w, t, p = (read(table, kind)[rows] for table, rows in zip((words, types, positions), ids, strict=True))
    first_type = read(types, kind)[np.zeros(9, dtype=int)]
    for tables, given, expected in (
        ((words, types, positions), ids, (w + t) + p),
        ((words, types, positions), [ids[0], None, ids[2]], (w + first_type) + p),
        ((words, None, positions), [ids[0], None, ids[2]], w + p),
        ((words, None, None), [ids[0], None, None], w),
    ):
        out = np.full((9, padded(columns) + 64), 77, dtype=np.float32)
        native.embed(instruction_set, kind == "bfloat16", *tables, *given, columns, out)
        np.testing.assert_array_equal(out[:, :columns], expected)
        assert not out[:, columns:].any()


@instruction_sets
def test_same_bits_wherever_a_row_is(instruction_set):
    rows, weight, bias = normal(20, 133) * 4, normal(133, seed=1), normal(133, seed=2)
    whole, rounded = norm(instruction_set, rows, weight, bias)
    formats = ("float32", "bfloat16", "int8", "split2", "split3")
    operands = {format_: to_operand(instruction_set, rows, 133, format_) for format_ in formats}
    for begin, end in ((0, 1), (3, 4), (1, 18), (19, 20), (5, 12)):
        out, rounded_out = norm(instruction_set, rows[begin:end], weight, bias)
        assert out.tobytes() == whole[begin:end].tobytes()
        assert rounded_out.tobytes() == rounded[begin:end].tobytes()
        for format_ in formats:
            out, steps = to_operand(instruction_set, rows[begin:end], 133, format_)
            assert out.tobytes() == operands[format_][0][:, begin:end].tobytes()
            assert steps is None or steps.tobytes() == operands[format_][1][:, begin:end].tobytes()


def test_refused():
    rows, out = normal(2, 70), np.zeros((2, 128), dtype=np.float32)
    weight = np.ones(70, dtype=np.float32)
    with pytest.raises(ValueError, match="columns"):
        native.normalize("avx2", rows, 71, weight, None, 1e-5, False, out, None)
    with pytest.raises(ValueError, match="one a column"):
        native.normalize("avx2", rows, 70, weight[:69].copy(), None, 1e-5, False, out, None)
    with pytest.raises(ValueError, match="out"):
        native.normalize("avx2", rows, 70, weight, None, 1e-5, False, out[:, :100].copy(), None)
    with pytest.raises(ValueError, match="format 'int4' does not exist"):
        native.to_operand("avx2", rows, 70, "int4", out[None], None)
    with pytest.raises(ValueError, match="steps"):
        native.to_operand("avx2", rows, 70, "int8", out[None].astype(np.uint8), None)
    with pytest.raises(ValueError, match="beyond the table"):
        native.embed("avx2", False, rows, None, None, np.array([0, 2], dtype=np.int32), None, None, 70, out)
    with pytest.raises(ValueError, match="beyond the angles"):
        native.rotate("avx2", rows, 1, np.ones((2, 35), np.float32), np.ones((2, 35), np.float32), None, 1)
    with pytest.raises(ValueError, match="as wide as their heads"):
        native.rotate("avx2", rows, 2, np.ones((2, 35), np.float32), np.ones((2, 35), np.float32), None, 0)
    with pytest.raises(TypeError):
        native.normalize("avx2", rows, 70, weight, None, 1e-5, False, out.astype(np.float64), None)
