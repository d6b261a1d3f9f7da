"""Blocks of few sizes: nothing lost, rows as in one piece, and a bounded number of shapes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from layertap.backends.torch.attention import SCORES_BYTES, _heads_together  # noqa: E402 - after the skip
from layertap.backends.torch.blocks import ROWS, by_rows, pieces  # noqa: E402


@given(st.integers(1, 100_000))
def test_pieces_add_up_and_have_few_sizes(total: int) -> None:
    sizes = pieces(total, ROWS)
    assert sum(sizes) == total
    assert all(size in ROWS or size < ROWS[-1] for size in sizes)


@given(st.integers(1, 5000))
def test_rows_are_as_in_one_piece(rows: int) -> None:
    left, right = torch.arange(rows * 2.0).view(rows, 2), torch.ones(rows, 2)
    torch.testing.assert_close(by_rows(torch.add, left, right), left + right, rtol=0, atol=0)


@given(st.integers(1, 300), st.integers(1, 16), st.integers(1, 1 << 21))
def test_heads_together_cover_all_within_the_budget(sequences: int, heads: int, bytes_a_head: int) -> None:
    sizes = _heads_together(sequences, heads, bytes_a_head)
    assert sum(sizes) == sequences * heads
    assert all(size * bytes_a_head <= SCORES_BYTES or size == 1 for size in sizes)
    assert len(set(sizes)) <= 3
