"""Words of a text, and the tokens that lie under them.

Everything is character ranges [begin, end) of the text and row ranges [begin, end) of its tokens; nothing is ever
found by comparing strings. Shape letters: W words (or spans), T tokens, n content tokens.
"""

from __future__ import annotations

import re
from itertools import chain

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int32]


def whitespace_words(text: str) -> IntArray:
    """Return int32 [W, 2], the runs of characters other than white space: the words of `str.split()`."""
    letters = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<U1")
    space = np.ones(len(text) + 2, dtype=bool)
    space[1:-1] = np.char.isspace(letters)
    return np.flatnonzero(space[1:] != space[:-1]).astype(np.int32).reshape(-1, 2)


def pattern_words(text: str, pattern: re.Pattern[str]) -> IntArray:
    """Return int32 [W, 2], the pattern's matches, without empty ones."""
    matches = chain.from_iterable(match.span() for match in pattern.finditer(text))
    ranges = np.fromiter(matches, dtype=np.int32).reshape(-1, 2)
    return ranges[ranges[:, 0] < ranges[:, 1]]


def rows_under(ranges: IntArray, offsets: IntArray) -> IntArray:
    """Return the tokens whose characters overlap each range: from the first such token to the last.

    A token may belong to several ranges; one without characters (the template's, or one that stands for a space
    that is not in the text) belongs to none.

    Args:
        ranges: int32 [W, 2], characters; in any order, overlapping or not.
        offsets: int32 [T, 2], the characters under each token, in any order.

    Returns:
        int32 [W, 2], rows [begin, end) of `offsets`; (0, 0) where no token overlaps, as for an empty range.
    """
    rows = np.flatnonzero(offsets[:, 0] < offsets[:, 1])
    begins, ends = offsets[rows, 0], offsets[rows, 1]
    if (begins[1:] < begins[:-1]).any() or (ends[1:] < ends[:-1]).any():
        first, last = _extremes(ranges, begins, ends)
    else:
        first = np.searchsorted(ends, ranges[:, 0], side="right")
        last = np.searchsorted(begins, ranges[:, 1], side="left") - 1
    overlapping = (first <= last) & (ranges[:, 0] < ranges[:, 1])
    under = np.zeros((len(ranges), 2), dtype=np.int32)
    under[overlapping, 0] = rows[first[overlapping]]
    under[overlapping, 1] = rows[last[overlapping]] + 1
    return under


def _extremes(
    ranges: IntArray, begins: IntArray, ends: IntArray
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Find the first and last token over each range of an unordered text; first > last if there is none.

    The tokens' ends cut the text into cells; each cell knows its first and last token, and a table of doubling
    widths answers for any run of cells with two entries.
    """
    cuts, inverse = np.unique(np.concatenate([begins, ends]), return_inverse=True)
    low, high = inverse[: len(begins)], inverse[len(begins) :]
    widths = high - low
    tokens = np.repeat(np.arange(len(begins)), widths)
    cells = np.arange(len(tokens)) - np.repeat(np.cumsum(widths) - widths, widths) + np.repeat(low, widths)
    first = np.full(len(cuts) - 1, len(begins))
    last = np.full(len(cuts) - 1, -1)
    np.minimum.at(first, cells, tokens)
    np.maximum.at(last, cells, tokens)
    # the run of cells under each range; a range outside all of them gets an empty run
    begin = np.maximum(np.searchsorted(cuts, ranges[:, 0], side="right") - 1, 0)
    end = np.minimum(np.searchsorted(cuts, ranges[:, 1], side="left"), len(first))
    return _of_runs(np.minimum, first, begin, end, len(begins)), _of_runs(np.maximum, last, begin, end, -1)


def _of_runs(
    operation: np.ufunc,
    values: npt.NDArray[np.int64],
    begin: npt.NDArray[np.int64],
    end: npt.NDArray[np.int64],
    empty: int,
) -> npt.NDArray[np.int64]:
    """Return the operation (minimum or maximum) over `values[begin:end]` of each run; `empty` for an empty run."""
    result = np.full(len(begin), empty)
    lengths = end - begin
    width = 1
    while True:
        chosen = (lengths >= width) & (lengths < 2 * width)
        left, right = begin[chosen], end[chosen] - width
        result[chosen] = operation(values[left], values[right])
        if 2 * width > lengths.max(initial=0):
            return result
        values = operation(values[:-width], values[width:])
        width *= 2


def rows_of_words(word_ids: IntArray, num_words: int) -> IntArray:
    """Return the tokens of each given word.

    Args:
        word_ids: int32 [T], ascending but for the -1 of tokens that belong to no word.
        num_words: W; words at the end may have no token.

    Returns:
        int32 [W, 2], rows [begin, end) of `word_ids`; (0, 0) for a word without a token.
    """
    rows = np.flatnonzero(word_ids >= 0)
    words = word_ids[rows]
    first = np.searchsorted(words, np.arange(num_words), side="left")
    last = np.searchsorted(words, np.arange(num_words), side="right") - 1
    overlapping = first <= last
    under = np.zeros((num_words, 2), dtype=np.int32)
    under[overlapping, 0] = rows[first[overlapping]]
    under[overlapping, 1] = rows[last[overlapping]] + 1
    return under


def word_edges(rows: IntArray, num_tokens: int) -> npt.NDArray[np.bool_]:
    """Return the places where a text may be cut without cutting a word.

    Args:
        rows: int32 [W, 2], the content tokens of each word (`rows_under`, `rows_of_words`), counted from the first
            content token; in any order, overlapping or not, (0, 0) for a word without a token.
        num_tokens: n, content tokens.

    Returns:
        bool [n + 1], whether an edge may stand before content token i; True at 0 and n.
    """
    rows = rows[rows[:, 0] < rows[:, 1]]
    opened = np.bincount(rows[:, 0] + 1, minlength=num_tokens + 2)
    closed = np.bincount(rows[:, 1], minlength=num_tokens + 2)
    free: npt.NDArray[np.bool_] = np.cumsum(opened - closed)[: num_tokens + 1] == 0
    return free
