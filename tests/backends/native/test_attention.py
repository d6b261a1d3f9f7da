"""Attention of one head against numpy in float64; the same bits in every block."""

from __future__ import annotations

import numpy as np
import pytest

native = pytest.importorskip(
    "layertap.backends.native._native_testing", reason="the native kernels are not built for tests"
)

FORMATS = [(name, "float32") for name in native.instruction_sets()]
FORMATS += [(name, "bfloat16") for name in native.instruction_sets() if name in ("avx512_bf16", "amx", "amx_emulated")]
formats = pytest.mark.parametrize(("instruction_set", "precision"), FORMATS)

KEYS = [1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 63, 64, 65, 100, 128, 129, 255, 256, 257, 383, 384, 385]
HEAD_SIZES = [1, 2, 3, 7, 8, 15, 16, 17, 24, 31, 32, 33, 48, 63, 64, 65, 96, 128, 129, 512]


def to_bfloat16(x):
    """Rounded to nearest even, as uint16."""
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bfloat16(x):
    return (x.astype(np.uint32) << 16).view(np.float32)


def widened(x):
    return from_bfloat16(x) if x.dtype == np.uint16 else x


def packed(precision, num_keys, head_size, seed=0, size=1.0, heads=3):
    """Queries, keys, values: the middle head of rows as a model holds them; what is around them must not be read."""
    random = np.random.default_rng([seed, num_keys, head_size])
    rows = np.full((num_keys, 3, heads, head_size), np.nan, dtype=np.float32)
    rows[:, :, heads // 2] = size * random.standard_normal((num_keys, 3, head_size))
    if precision == "bfloat16":
        rows = to_bfloat16(rows)
    return [rows[:, i, heads // 2] for i in range(3)]


def attention(instruction_set, queries, keys, values, scale=None, probabilities=False, **terms):
    out = np.full_like(np.ascontiguousarray(queries), 77)
    maps = np.full((len(queries), len(keys)), 77, dtype=np.float32) if probabilities else None
    scale = queries.shape[1] ** -0.5 if scale is None else scale
    native.attention(instruction_set, queries, keys, values, scale=scale, out=out, probabilities=maps, **terms)
    return (out, maps) if probabilities else out


def softmax(scores):
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def exact(queries, keys, values, scale=None, added=0.0):
    queries, keys, values = (widened(x).astype(np.float64) for x in (queries, keys, values))
    scale = queries.shape[1] ** -0.5 if scale is None else scale
    probabilities = softmax(scale * queries @ keys.T + added)
    return probabilities @ values, probabilities


def check(instruction_set, precision, num_keys, head_size):
    q, k, v = packed(precision, num_keys, head_size)
    expected, expected_maps = exact(q, k, v)
    found, maps = attention(instruction_set, q, k, v, probabilities=True)
    error = np.abs(widened(found) - expected).max()
    if precision == "float32":
        assert error < 3e-6 * np.sqrt(np.mean(np.square(v)))
        np.testing.assert_allclose(maps, expected_maps, rtol=2e-5, atol=1e-12)
    else:
        # half an ulp of the output, and the probabilities' rounding
        assert (np.abs(widened(found) - expected) <= 2**-8 * np.abs(expected) + 2**-8).all()
        np.testing.assert_allclose(maps, expected_maps, rtol=2e-5, atol=1e-12)
    np.testing.assert_array_equal(found, attention(instruction_set, q, k, v))


@formats
@pytest.mark.parametrize("head_size", [32, 64, 5])
@pytest.mark.parametrize("num_keys", KEYS)
def test_any_number_of_keys(instruction_set, precision, num_keys, head_size):
    check(instruction_set, precision, num_keys, head_size)


@formats
@pytest.mark.parametrize("head_size", HEAD_SIZES)
@pytest.mark.parametrize("num_keys", [1, 19, 40])
def test_any_head_size(instruction_set, precision, num_keys, head_size):
    check(instruction_set, precision, num_keys, head_size)


@formats
def test_very_many_keys(instruction_set, precision):
    q, k, v = packed(precision, 10_000, 32, heads=1)
    found = attention(instruction_set, q[4_000:4_015], k, v)
    expected, _ = exact(q[4_000:4_015], k, v)
    assert np.abs(widened(found) - expected).max() < (1e-6 if precision == "float32" else 1e-3)


@formats
@pytest.mark.parametrize("head_size", [32, 64, 17])
@pytest.mark.parametrize("num_keys", [1, 13, 40, 65, 128])
def test_same_bits_for_any_subset_of_queries(instruction_set, precision, num_keys, head_size):
    q, k, v = packed(precision, num_keys, head_size)
    whole, maps = attention(instruction_set, q, k, v, probabilities=True)
    random = np.random.default_rng(1)
    for count in {1, 2, 3, 5, 6, 7, 11, 12, 13, 15, 16, 17, 31, 33, num_keys} & set(range(num_keys + 1)):
        rows = np.sort(random.choice(num_keys, count, replace=False))
        some, some_maps = attention(instruction_set, np.ascontiguousarray(q[rows]), k, v, probabilities=True)
        np.testing.assert_array_equal(some, whole[rows])
        np.testing.assert_array_equal(some_maps, maps[rows])
    for row in range(num_keys):
        np.testing.assert_array_equal(attention(instruction_set, q[row : row + 1], k, v), whole[row : row + 1])


@formats
def test_more_queries_than_keys(instruction_set, precision):
    _, k, v = packed(precision, 5, 32)
    q, _, _ = packed(precision, 50, 32)
    found = attention(instruction_set, q, k, v)
    expected, _ = exact(q, k, v)
    assert np.abs(widened(found) - expected).max() < (1e-5 if precision == "float32" else 2e-2)


@formats
def test_no_queries(instruction_set, precision):
    q, k, v = packed(precision, 5, 32)
    assert attention(instruction_set, q[:0], k, v).shape == (0, 32)


@formats
def test_writes_its_columns_alone(instruction_set, precision):
    for head_size in (5, 32, 40):
        q, k, v = packed(precision, 21, head_size)
        out = np.full((21, 3, head_size), 77, dtype=q.dtype)
        native.attention(instruction_set, q, k, v, scale=0.5, out=out[:, 1])
        assert (out[:, [0, 2]] == 77).all()
        np.testing.assert_array_equal(out[:, 1], attention(instruction_set, q, k, v, scale=0.5))


@formats
@pytest.mark.parametrize("size", [1e2, 1e4, 1e9, 1e15])
def test_large_scores_do_not_overflow(instruction_set, precision, size):
    q, k, v = packed(precision, 37, 32, size=size)
    v = packed(precision, 37, 32, seed=1)[2]
    found = widened(attention(instruction_set, q, k, v))
    assert np.isfinite(found).all()
    if size > 1e4:  # one key is all
        winner = (widened(q).astype(np.float64) @ widened(k).astype(np.float64).T).argmax(-1)
        np.testing.assert_array_equal(found, widened(v)[winner])


@formats
@pytest.mark.parametrize("num_keys", [1, 6, 16, 29, 64])
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_not_finite(instruction_set, precision, num_keys, bad):
    """A score of +inf or NaN spoils its row and no other; one of -inf is a key that is not seen."""
    q, k, v = (widened(x).copy() for x in packed(precision, num_keys, 32))
    q[:, 3] = 1
    k[:, 3] = 1
    q[-1, 3] = bad
    as_format = to_bfloat16 if precision == "bfloat16" else np.ascontiguousarray
    found = widened(attention(instruction_set, as_format(q), as_format(k), as_format(v)))
    assert np.isnan(found[-1]).all()  # its scores are all +inf, all -inf or all NaN
    assert np.isfinite(found[:-1]).all()
    q[-1, 3] = 1
    k[-1, 3] = bad
    found = widened(attention(instruction_set, as_format(q), as_format(k), as_format(v)))
    if bad == -np.inf and num_keys > 1:
        k, v = k[:-1], v[:-1]
        expected, _ = exact(q, k, v)
        assert np.abs(found - expected).max() < (1e-5 if precision == "float32" else 3e-2)
    else:
        assert np.isnan(found).all()


@formats
def test_equal_scores_are_a_mean(instruction_set, precision):
    q, k, v = packed(precision, 64, 32)
    q = np.zeros_like(np.ascontiguousarray(q))
    found, maps = attention(instruction_set, q, k, v, probabilities=True)
    assert (maps == 1 / 64).all()
    assert np.abs(widened(found) - widened(v).astype(np.float64).mean(0)).max() < (
        1e-6 if precision == "float32" else 1e-3
    )


@pytest.mark.skipif("avx512_bf16" not in native.instruction_sets(), reason="no bfloat16 on this processor")
def test_bfloat16_is_close_to_exact():
    for num_keys in (40, 128, 512):
        q, k, v = packed("bfloat16", num_keys, 32)
        expected, _ = exact(q, k, v)
        found = from_bfloat16(attention("avx512_bf16", q, k, v))
        cosine = (found * expected).sum(-1) / np.linalg.norm(found, axis=-1) / np.linalg.norm(expected, axis=-1)
        assert cosine.min() > 0.99998


@formats
@pytest.mark.parametrize("window", [0, 1, 7, 16, 64])
@pytest.mark.parametrize("num_keys", [1, 8, 17, 40, 130])
def test_bias_by_distance_and_window(instruction_set, precision, num_keys, window):
    q, k, v = packed(precision, num_keys, 32)
    random = np.random.default_rng(num_keys)
    places = np.arange(num_keys)
    distance = places[None] - places[:, None]
    seen = np.where(np.abs(distance) <= (window or num_keys), 0, -np.inf)
    for bias in (None, 3 * random.standard_normal(2 * num_keys - 1) - 500):
        added = seen if bias is None else seen + bias.astype(np.float32)[num_keys - 1 + distance]
        terms = {"window": window, "distance_bias": None if bias is None else bias.astype(np.float32)}
        found, maps = attention(instruction_set, q, k, v, probabilities=True, **terms)
        expected, expected_maps = exact(q, k, v, added=added)
        np.testing.assert_allclose(maps, expected_maps, rtol=2e-4, atol=1e-12)
        if precision == "float32":
            np.testing.assert_allclose(found, expected, rtol=0, atol=2e-4)  # scores of 500 are rounded to 6e-5
        else:
            assert (np.abs(widened(found) - expected) <= 2**-8 * np.abs(expected) + 2**-7).all()
        rows = np.sort(random.choice(num_keys, (num_keys + 1) // 2, replace=False)).astype(np.int32)
        some = attention(instruction_set, np.ascontiguousarray(q[rows]), k, v, query_rows=rows, **terms)
        np.testing.assert_array_equal(some, found[rows])
        later = attention(
            instruction_set, np.ascontiguousarray(q[num_keys // 2 :]), k, v, query_offset=num_keys // 2, **terms
        )
        np.testing.assert_array_equal(later, found[num_keys // 2 :])


COLUMNS = {
    "one a distance": lambda distances: distances + len(distances) // 2 + 3,
    "shared far out": lambda distances: (
        40 + (np.sign(distances) * np.ceil(6 * np.log1p(np.abs(distances)))).astype(int)
    ),
    "few": lambda distances: np.clip(distances, -2, 1) + 2,
    "far from each other": lambda distances: 5 * (distances + len(distances) // 2) + (distances > 3),
}


@formats
@pytest.mark.parametrize("of", ["queries", "keys", "queries and keys"])
@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("num_keys", [1, 8, 17, 40, 130])
def test_products_with_distances(instruction_set, precision, num_keys, columns, of):
    q, k, v = packed(precision, num_keys, 32)
    random = np.random.default_rng(num_keys)
    own = COLUMNS[columns](np.arange(1 - num_keys, num_keys)).astype(np.int32)
    stride = int(own[-1]) + 1
    of_query, of_key = (8 * random.standard_normal((num_keys, stride)).astype(np.float32) for _ in range(2))
    places = np.arange(num_keys)
    column = own[places[None] - places[:, None] + num_keys - 1]
    added = np.zeros((num_keys, num_keys))
    terms = {"distance_columns": own}
    if "queries" in of:
        terms["query_distances"] = of_query
        added += np.take_along_axis(of_query, column, axis=1)
    if "keys" in of:
        terms["key_distances"] = of_key
        added += np.take_along_axis(of_key, column.T, axis=1).T
    found, maps = attention(instruction_set, q, k, v, probabilities=True, **terms)
    expected, expected_maps = exact(q, k, v, added=added * 32**-0.5)
    np.testing.assert_allclose(maps, expected_maps, rtol=4e-5, atol=1e-12)
    if precision == "float32":
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    else:
        assert (np.abs(widened(found) - expected) <= 2**-8 * np.abs(expected) + 2**-7).all()

    def some(rows, **places):
        if "queries" in of:
            places["query_distances"] = of_query[rows]
        return attention(instruction_set, np.ascontiguousarray(q[rows]), k, v, **(terms | places))

    for count in {1, 2, 5, (num_keys + 1) // 2} & set(range(num_keys + 1)):
        rows = np.sort(random.choice(num_keys, count, replace=False))
        np.testing.assert_array_equal(some(rows, query_rows=rows.astype(np.int32)), found[rows])
    later = np.arange(num_keys // 2, num_keys)
    np.testing.assert_array_equal(some(later, query_offset=num_keys // 2), found[later])
    np.testing.assert_array_equal(some(later, query_rows=later.astype(np.int32)), found[later])


def test_refuses():
    q, k, v = packed("float32", 5, 32)
    name = native.instruction_sets()[-1]
    out = np.zeros((5, 32), dtype=np.float32)
    with pytest.raises(ValueError, match="as many values as keys"):
        native.attention(name, q, k, v[:3], scale=1, out=out)
    with pytest.raises(ValueError, match="one head size"):
        native.attention(name, q, k[:, :8], v, scale=1, out=out)
    with pytest.raises(ValueError, match="contiguous"):
        native.attention(name, q[:, ::2], k[:, ::2], v[:, ::2], scale=1, out=out[:, ::2])
    with pytest.raises(ValueError, match="2 keys - 1"):
        native.attention(name, q, k, v, scale=1, out=out, distance_bias=np.zeros(5, dtype=np.float32))
    products = {"query_distances": np.zeros((5, 20), np.float32), "distance_columns": np.arange(9, dtype=np.int32)}
    for bad, why in (
        ({"distance_columns": np.arange(8, dtype=np.int32)}, "2 keys - 1"),
        ({"distance_columns": np.arange(12, 21, dtype=np.int32)}, "ascending columns that are there"),
        ({"distance_columns": np.arange(9, dtype=np.int32)[::-1].copy()}, "ascending columns"),
        ({"query_distances": np.zeros((4, 20), np.float32)}, "queries or keys, columns"),
        ({"key_distances": np.zeros((5, 21), np.float32)}, "queries or keys, columns"),
        ({"window": 1}, "without a bias or a window"),
        ({"query_offset": 1}, "places of keys"),
    ):
        with pytest.raises(ValueError, match=why):
            native.attention(name, q, k, v, scale=1, out=out, **(products | bad))
    with pytest.raises(ValueError, match="places of keys"):
        native.attention(name, q, k, v, scale=1, out=out, window=1, query_rows=np.full(5, 5, dtype=np.int32))
    with pytest.raises(ValueError, match="at least one key"):
        native.attention(name, q, k[:0], v[:0], scale=1, out=out)
