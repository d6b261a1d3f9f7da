from __future__ import annotations

import re
import sys

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layertap.text.words import pattern_words, rows_of_words, rows_under, whitespace_words, word_edges

Ranges = list[tuple[int, int]]


def int_rows(rows: Ranges) -> npt.NDArray[np.int32]:
    return np.array(rows, dtype=np.int32).reshape(-1, 2)


# --- words of a text -------------------------------------------------------------------------------------------------

SPACES = "".join(filter(str.isspace, map(chr, range(sys.maxunicode + 1))))


def test_white_space_is_that_of_python() -> None:
    # every character there is, each between two letters
    text = "".join(f"a{chr(code)}" for code in range(sys.maxunicode + 1))
    words = [text[begin:end] for begin, end in whitespace_words(text).tolist()]
    assert words == text.split()


@settings(max_examples=300, deadline=None)
@given(st.text(st.one_of(st.sampled_from(f"ab.{SPACES}\0\ud800\U0001f926\u200d\u200b"), st.characters())))
def test_whitespace_words_are_those_of_split(text: str) -> None:
    ranges = whitespace_words(text)
    assert ranges.dtype == np.int32
    assert [text[begin:end] for begin, end in ranges.tolist()] == text.split()


@settings(max_examples=200, deadline=None)
@given(st.text("ab1 .\u4f60\U0001f926"), st.sampled_from([r"\w+|[^\w\s]", r"\S+", r"[a-z]*", r"", r"(?=a)|b", "."]))
def test_pattern_words_are_the_matches(text: str, pattern: str) -> None:
    ranges = pattern_words(text, re.compile(pattern))
    assert ranges.dtype == np.int32
    assert ranges.shape[1:] == (2,)
    expected = [match for match in re.findall(pattern, text) if match]
    assert [text[begin:end] for begin, end in ranges.tolist()] == expected


# --- tokens under words ----------------------------------------------------------------------------------------------


def naive_rows_under(ranges: Ranges, offsets: Ranges) -> Ranges:
    """Character by character."""
    rows: Ranges = []
    for begin, end in ranges:
        wanted = set(range(begin, end))
        found = [row for row, (low, high) in enumerate(offsets) if not wanted.isdisjoint(range(low, high))]
        rows.append((found[0], found[-1] + 1) if found else (0, 0))
    return rows


RANGES = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)).map(lambda pair: (min(pair), max(pair))))


@settings(max_examples=500, deadline=None)
@given(ranges=RANGES, offsets=RANGES)
def test_rows_under_any_offsets(ranges: Ranges, offsets: Ranges) -> None:
    found = rows_under(int_rows(ranges), int_rows(offsets))
    assert found.dtype == np.int32
    assert list(map(tuple, found.tolist())) == naive_rows_under(ranges, offsets)


@settings(max_examples=500, deadline=None)
@given(ranges=RANGES, begins=st.lists(st.integers(0, 30)), ends=st.data())
def test_rows_under_offsets_that_follow_the_text(ranges: Ranges, begins: list[int], ends: st.DataObject) -> None:
    begins.sort()
    lengths = ends.draw(st.lists(st.integers(0, 3), min_size=len(begins), max_size=len(begins)))
    highs = np.maximum.accumulate(np.array(begins, dtype=int) + np.array(lengths, dtype=int)) if begins else []
    # zero-width tokens anywhere between them, as the template's (0, 0)
    offsets = [(low, int(high)) if length else (0, 0) for low, high, length in zip(begins, highs, lengths, strict=True)]
    found = rows_under(int_rows(ranges), int_rows(offsets))
    assert list(map(tuple, found.tolist())) == naive_rows_under(ranges, offsets)


def test_rows_under_by_example() -> None:
    # [CLS] gon na ! [SEP] over "gonna !"; the words overlap, one is past the end, one is the space
    offsets = int_rows([(0, 0), (0, 3), (3, 5), (6, 7), (0, 0)])
    words = int_rows([(3, 5), (0, 5), (2, 4), (5, 6), (9, 12), (4, 4), (0, 7)])
    assert rows_under(words, offsets).tolist() == [[2, 3], [1, 3], [1, 3], [0, 0], [0, 0], [0, 0], [1, 4]]


def test_a_token_that_goes_back_is_found() -> None:
    offsets = int_rows([(4, 6), (0, 2), (2, 4), (0, 1)])
    assert rows_under(int_rows([(0, 1), (2, 3), (5, 9), (6, 9)]), offsets).tolist() == [[1, 4], [2, 3], [0, 1], [0, 0]]


# --- given words and edges -------------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(counts=st.lists(st.integers(0, 3)), outside=st.tuples(st.integers(0, 2), st.integers(0, 2)))
def test_rows_of_words(counts: list[int], outside: tuple[int, int]) -> None:
    before, after = outside
    ids = [-1] * before + [word for word, count in enumerate(counts) for _ in range(count)] + [-1] * after
    found = rows_of_words(np.array(ids, dtype=np.int32), len(counts))
    assert found.dtype == np.int32
    assert found.tolist() == [
        [ids.index(word), ids.index(word) + count] if count else [0, 0] for word, count in enumerate(counts)
    ]


@settings(max_examples=300, deadline=None)
@given(num_tokens=st.integers(0, 20), ranges=RANGES)
def test_word_edges(num_tokens: int, ranges: Ranges) -> None:
    rows = [(begin, end) for begin, end in ranges if end <= num_tokens]
    edges = word_edges(int_rows(rows), num_tokens)
    assert edges.dtype == np.bool_
    assert edges.tolist() == [
        not any(begin < i < end for begin, end in rows if begin < end) for i in range(num_tokens + 1)
    ]
    assert edges[0]
    assert edges[-1]


@pytest.mark.parametrize("num_tokens", [0, 3])
def test_without_words_every_token_is_an_edge(num_tokens: int) -> None:
    assert word_edges(int_rows([(0, 0)] * 2), num_tokens).tolist() == [True] * (num_tokens + 1)
