from __future__ import annotations

import time
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layertap.errors import OptionError
from layertap.text.windows import Window, lay_windows, plan_windows

Edges = npt.NDArray[np.bool_]

WORDS = st.lists(st.one_of(st.integers(1, 4), st.integers(1, 40)), max_size=40)


def edges_of(lengths: list[int]) -> Edges:
    edges = np.zeros(sum(lengths) + 1, dtype=bool)
    edges[np.cumsum([0, *lengths])] = True
    return edges


def words_of(edges: Edges) -> list[tuple[int, int]]:
    return list(pairwise(np.flatnonzero(edges).tolist()))


@st.composite
def plans(draw: st.DrawFn) -> tuple[Edges, int, int, tuple[Window, ...]]:
    edges = edges_of(draw(WORDS))
    capacity = draw(st.integers(1, 30))
    overlap = draw(st.integers(0, capacity - 1))
    return edges, capacity, overlap, plan_windows(len(edges) - 1, capacity=capacity, overlap=overlap, edges=edges)


@settings(max_examples=600, deadline=None)
@given(plans())
def test_every_token_is_owned_once_in_order_inside_its_window(
    plan: tuple[Edges, int, int, tuple[Window, ...]],
) -> None:
    edges, capacity, _, windows = plan
    owned = [token for window in windows for token in range(window.own_begin, window.own_end)]
    assert owned == list(range(len(edges) - 1))
    for window in windows:
        assert 0 <= window.begin <= window.own_begin <= window.own_end <= window.end < len(edges)
        assert window.end - window.begin <= capacity
        assert window.own_begin < window.own_end or len(edges) == 1
        assert all(type(number) is int for number in window)
    for one, other in pairwise(windows):
        assert one.begin < other.begin
        assert one.end < other.end


@settings(max_examples=600, deadline=None)
@given(plans())
def test_no_word_that_fits_is_cut(plan: tuple[Edges, int, int, tuple[Window, ...]]) -> None:
    edges, capacity, _, windows = plan
    cuts = {cut for window in windows for cut in window}
    for begin, end in words_of(edges):
        if end - begin <= capacity:
            assert cuts.isdisjoint(range(begin + 1, end)), (begin, end, windows)


@settings(max_examples=400, deadline=None)
@given(plans())
def test_a_tokens_own_window_gives_it_most_context(plan: tuple[Edges, int, int, tuple[Window, ...]]) -> None:
    edges, capacity, _, windows = plan

    def context(window: Window, token: float) -> float:
        return min(token - window.begin, window.end - token)

    for begin, end in words_of(edges):
        if end - begin > capacity:
            continue
        owner = next(window for window in windows if window.own_begin <= begin < window.own_end)
        others = [window for window in windows if window.begin <= begin and end <= window.end]
        # at the middle of the word, and to within a token: edges are whole tokens
        middle = (begin + end) / 2
        assert context(owner, middle) + (end - begin) / 2 >= max(context(window, middle) for window in others)


@settings(max_examples=300, deadline=None)
@given(num_tokens=st.integers(0, 120), capacity=st.integers(1, 30), data=st.data())
def test_where_every_token_is_an_edge_neighbours_share_the_overlap(
    num_tokens: int, capacity: int, data: st.DataObject
) -> None:
    overlap = data.draw(st.integers(0, capacity - 1))
    windows = plan_windows(num_tokens, capacity=capacity, overlap=overlap, edges=np.ones(num_tokens + 1, dtype=bool))
    assert all(window.end - window.begin == capacity for window in windows[:-1])
    for one, other in pairwise(windows):
        assert one.end - other.begin == overlap
        # divided in the middle
        assert abs((one.own_end - other.begin) - (one.end - one.own_end)) <= 1
    expected = 1 if num_tokens <= capacity else -(-(num_tokens - overlap) // (capacity - overlap))
    assert len(windows) == expected


@settings(max_examples=300, deadline=None)
@given(lengths=st.lists(st.integers(1, 5), min_size=1, max_size=60), capacity=st.integers(10, 30), data=st.data())
def test_short_words_leave_the_overlap_whole(lengths: list[int], capacity: int, data: st.DataObject) -> None:
    # Between two words of at most 5 tokens there is an edge every 5 tokens: so much may be shared in addition.
    overlap = data.draw(st.integers(0, capacity - 10))
    edges = edges_of(lengths)
    windows = lay_windows(capacity, overlap, edges)
    for one, other in pairwise(windows):
        assert overlap <= one.end - other.begin < overlap + 5
    # what is left out owns nothing, so every token has its context of the whole plan
    planned = plan_windows(len(edges) - 1, capacity=capacity, overlap=overlap, edges=edges)
    if len(edges) - 1 > capacity:
        assert list(planned) == [window for window in windows if window.own_begin < window.own_end]
        for one, other in pairwise(windows):
            assert 2 * (one.end - one.own_end) >= overlap - 5
            assert 2 * (one.own_end - other.begin) >= overlap - 5


def test_words_longer_than_a_window() -> None:
    # 3 short tokens, a word of 12, 3 short tokens; windows of 5: the word is cut, and only the word
    edges = edges_of([1, 1, 1, 12, 1, 1, 1])
    windows = plan_windows(18, capacity=5, overlap=2, edges=edges)
    assert windows == (
        Window(0, 5, 0, 4),
        Window(3, 8, 4, 7),
        Window(6, 11, 7, 10),
        Window(9, 14, 10, 13),
        Window(12, 17, 13, 16),
        Window(15, 18, 16, 18),
    )


def test_words_as_long_as_a_window_share_nothing() -> None:
    windows = plan_windows(12, capacity=4, overlap=3, edges=edges_of([4, 4, 4]))
    assert windows == (Window(0, 4, 0, 4), Window(4, 8, 4, 8), Window(8, 12, 8, 12))


def test_a_window_that_would_own_nothing_is_left_out() -> None:
    # what 0..13 and 1..14 share has its middle in the long word, and so has what 1..14 and 2..15 share
    edges = edges_of([1, 1, 1, 1, 9, 1, 1])
    windows = plan_windows(15, capacity=13, overlap=12, edges=edges)
    assert windows == (Window(0, 13, 0, 4), Window(2, 15, 4, 15))


def test_one_window_where_the_text_fits() -> None:
    assert plan_windows(0, capacity=1, overlap=0, edges=np.ones(1, dtype=bool)) == (Window(0, 0, 0, 0),)
    assert plan_windows(7, capacity=7, overlap=6, edges=edges_of([7])) == (Window(0, 7, 0, 7),)


@pytest.mark.parametrize(("capacity", "overlap"), [(0, 0), (-1, 0), (5, 5), (5, -1)])
def test_what_cannot_be_is_refused(capacity: int, overlap: int) -> None:
    with pytest.raises(OptionError, match="tokens of text"):
        plan_windows(3, capacity=capacity, overlap=overlap, edges=np.ones(4, dtype=bool))


@pytest.mark.parametrize("overlap", [0, 64, 509])
def test_a_million_tokens_take_no_quadratic_time(overlap: int) -> None:
    rng = np.random.default_rng(0)
    lengths = rng.geometric(0.7, size=900_000)
    edges = np.zeros(lengths.sum() + 1, dtype=bool)
    edges[np.concatenate([[0], np.cumsum(lengths)])] = True
    started = time.process_time()
    windows = plan_windows(len(edges) - 1, capacity=510, overlap=overlap, edges=edges)
    took = time.process_time() - started
    print(f"{len(edges) - 1:,} tokens, overlap {overlap}: {len(windows):,} windows in {took:.2f} s")  # noqa: T201 - quoted
    assert took < 20  # a quadratic plan would take hours
