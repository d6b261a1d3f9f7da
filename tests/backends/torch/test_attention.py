"""Layouts, runs, and packed attention against the formula."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from layertap.backends.torch import attention  # noqa: E402 - needs torch
from layertap.backends.torch.attention import attend  # noqa: E402
from layertap.backends.torch.layout import Layout  # noqa: E402

HEADS, HEAD_SIZE = 2, 8
LENGTHS = st.lists(st.integers(1, 6), min_size=1, max_size=8)


@st.composite
def lengths_and_queries(draw):
    """Lengths, and which rows are queries (ascending, at least one)."""
    lengths = draw(LENGTHS)
    chosen = draw(st.sets(st.integers(0, sum(lengths) - 1), min_size=1))
    return lengths, np.array(sorted(chosen), dtype=np.int32)


@given(lengths_and_queries())
def test_runs_hold_every_query_once_and_in_order(case):
    lengths, rows = case
    layout = Layout.of(lengths).with_queries(rows)
    ends = np.cumsum(lengths)
    assert layout.cu_seqlens.tolist() == [0, *ends]
    owners = np.searchsorted(ends, rows, side="right")
    assert layout.queries == tuple(np.bincount(owners, minlength=len(lengths)).tolist())
    assert layout.cu_queries.tolist() == [0, *np.cumsum(layout.queries)]
    seen = []
    for run in layout.runs:
        assert run.count > 0
        assert run.queries > 0
        for i in range(run.count):
            begin = run.begin + i * run.length
            owner = int(np.searchsorted(ends, begin, side="right"))
            assert (begin, run.length) == (ends[owner] - lengths[owner], lengths[owner])
            first = run.query_begin + i * run.queries
            assert owners[first : first + run.queries].tolist() == [owner] * run.queries
            seen += range(first, first + run.queries)
    assert seen == list(range(len(rows)))


@given(LENGTHS)
def test_neighbours_of_one_length_are_one_run(lengths):
    layout = Layout.of(sorted(lengths))
    assert len(layout.runs) == len(set(lengths))
    assert sum(run.count for run in layout.runs) == len(lengths)
    assert layout.queries == layout.lengths == tuple(sorted(lengths))


def test_sequences_apart_are_runs_apart():
    # the second sequence has no query, so the first and third lie not beside each other
    layout = Layout.of([3, 3, 3]).with_queries(np.array([0, 6], dtype=np.int32))
    assert [(run.begin, run.query_begin, run.count) for run in layout.runs] == [(0, 0, 1), (6, 1, 1)]


def projections(num_rows: int, seed: int, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(num_rows, HEADS * HEAD_SIZE, generator=generator).to(dtype) * 2 for _ in range(3)]


def formula(query, key, value, lengths, rows):
    """softmax(q k' / sqrt(D)) v in float64: a sequence, a head and a query at a time."""
    ends = np.cumsum(lengths)
    result = torch.zeros(len(rows), HEADS, HEAD_SIZE, dtype=torch.float64)
    by_head = [part.double().view(len(part), HEADS, HEAD_SIZE) for part in (query, key, value)]
    for i, row in enumerate(rows):
        owner = int(np.searchsorted(ends, row, side="right"))
        own = slice(ends[owner] - lengths[owner], ends[owner])
        for head in range(HEADS):
            scores = by_head[1][own, head] @ by_head[0][i, head] / HEAD_SIZE**0.5
            result[i, head] = scores.softmax(0) @ by_head[2][own, head]
    return result.flatten(1)


@pytest.mark.parametrize("fast", [False, True])
@given(case=lengths_and_queries(), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_every_query_attends_to_its_own_sequence(fast, case, seed):
    lengths, rows = case
    query, key, value = projections(sum(lengths), seed)
    asked = query[torch.as_tensor(rows, dtype=torch.long)]
    layout = Layout.of(lengths).with_queries(rows)
    with torch.inference_mode():
        found = attend(asked, key, value, layout, num_heads=HEADS, fast=fast)
    torch.testing.assert_close(found.double(), formula(asked, key, value, lengths, rows), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fast", [False, True])
def test_projections_may_be_parts_of_one_tensor(fast):
    lengths = [4, 4, 2]
    fused = torch.cat(projections(10, 0), dim=1)
    parts = fused.chunk(3, dim=1)
    assert not parts[1].is_contiguous()
    with torch.inference_mode():
        found = attend(*parts, Layout.of(lengths), num_heads=HEADS, fast=fast)
    torch.testing.assert_close(found.double(), formula(*parts, lengths, range(10)), rtol=1e-5, atol=1e-5)


LENGTHS_AROUND_CHOICES = [1, 2, 31, 32, 33, 64, 65, 192, 193, 512]


@pytest.mark.parametrize("length", LENGTHS_AROUND_CHOICES)
def test_the_quick_kernels_agree_with_torch_at_every_length(length):
    query, key, value = projections(length * 3, length)
    layout = Layout.of([length] * 3)
    with torch.inference_mode():
        quick = attend(query, key, value, layout, num_heads=HEADS, fast=True)
        plain = attend(query, key, value, layout, num_heads=HEADS)
    torch.testing.assert_close(quick, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("length", LENGTHS_AROUND_CHOICES)
def test_the_quick_kernels_in_bfloat16(length):
    # scores of the size that trained models have; larger ones are rounded to steps that count
    query, key, value = (part / 2 for part in projections(length * 3, length, torch.bfloat16))
    layout = Layout.of([length] * 3)
    with torch.inference_mode():
        quick = attend(query, key, value, layout, num_heads=HEADS, fast=True)
        exact = attend(query.float(), key.float(), value.float(), layout, num_heads=HEADS)
    assert quick.dtype == torch.bfloat16
    cosine = torch.nn.functional.cosine_similarity(quick.float(), exact, dim=1)
    assert cosine.min() >= 0.999


@pytest.mark.parametrize("queries", [1, 3])
@pytest.mark.parametrize("scores_bytes", [1, 200, 1 << 20])
def test_products_in_any_number_of_parts(queries, scores_bytes, monkeypatch):
    monkeypatch.setattr(attention, "SCORES_BYTES", scores_bytes)
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(5, HEADS, queries, HEAD_SIZE, generator=generator)
    key, value = (torch.randn(5, HEADS, 7, HEAD_SIZE, generator=generator) for _ in range(2))
    with torch.inference_mode():
        found = attention._products(query, key, value)
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_large_scores_do_not_overflow():
    query, key, value = (part * 300 for part in projections(6, 0))
    with torch.inference_mode():
        found = attend(query, key, value, Layout.of([6]), num_heads=HEADS, fast=True)
    assert found.isfinite().all()


def test_dropout_drops_attention_weights():
    query, key, value = projections(8, 0)
    torch.manual_seed(0)
    dropped = attend(query, key, value, Layout.of([4, 4]), num_heads=HEADS, dropout=0.5)
    kept = attend(query, key, value, Layout.of([4, 4]), num_heads=HEADS)
    assert not torch.allclose(dropped, kept, atol=1e-2)
