"""Windows over a text that is longer than the model: `plan_windows`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from layertap.errors import OptionError


class Window(NamedTuple):
    """A slice of a text's content tokens that runs through the model as one sequence.

    (A named tuple and not a dataclass: a text may have a million of them.)

    Attributes:
        begin, end: the content tokens [begin, end) that it sees.
        own_begin, own_end: those of them whose vectors come from it.
    """

    begin: int
    end: int
    own_begin: int
    own_end: int


def plan_windows(num_tokens: int, *, capacity: int, overlap: int, edges: npt.NDArray[np.bool_]) -> tuple[Window, ...]:
    """Lays windows over a text; one where it fits.

    Windows begin and end at word edges, but inside a word that is longer than a window, where every token is an
    edge. Neighbours share at least `overlap` tokens, or as many as the edges allow if each window is to go further
    than the one before. Each token is owned once: what two neighbours share is divided at the edge nearest to its
    middle, so a token's own window is one where it has most context, and a word that fits is owned whole. A window
    in which no token has most context would own nothing and is left out; the windows beside it may then share less
    than the overlap, and all tokens have the context that they would have with it. Takes time and memory in proportion
    to the tokens.

    Args:
        num_tokens: n, the text's own tokens.
        capacity: content tokens that a window holds.
        overlap: tokens that neighbours share, 0 .. capacity - 1.
        edges: bool [n + 1], where a window may begin or end; True at 0 and n (see `words.word_edges`).

    Raises:
        OptionError: a capacity below 1, or an overlap outside 0 .. capacity - 1.
    """
    if capacity < 1:
        raise OptionError(f"a window of {capacity} tokens of text is too small: it has to hold at least 1")
    if not 0 <= overlap < capacity:
        raise OptionError(f"overlap {overlap}: a window holds {capacity} tokens of text, so 0 to {capacity - 1} fit")
    assert len(edges) == num_tokens + 1
    assert edges[0]
    assert edges[-1]
    if num_tokens <= capacity:
        return (Window(0, num_tokens, 0, num_tokens),)
    return tuple(window for window in lay_windows(capacity, overlap, edges) if window.own_begin < window.own_end)


def lay_windows(capacity: int, overlap: int, edges: npt.NDArray[np.bool_]) -> list[Window]:
    """Return the windows of `plan_windows` over a text that is longer than one, and those that own nothing."""
    num_tokens = len(edges) - 1
    at = np.arange(num_tokens + 1)
    marked = _with_long_words_open(edges, capacity)
    before = np.maximum.accumulate(np.where(marked, at, 0))  # the last edge up to each token
    after = np.minimum.accumulate(np.where(marked, at, num_tokens)[::-1])[::-1]  # the first edge from each token on
    # where the window that begins at each token ends, and where the next one begins
    end = before[np.minimum(at + capacity, num_tokens)]
    further = after[np.minimum(end + 1, num_tokens)]
    following = np.maximum(before[np.maximum(end - overlap, 0)], after[np.maximum(further - capacity, 0)])
    begins = _chain(following, end, num_tokens)
    ends = end[begins]
    owns = _owned(begins, ends, before, after)
    return [*map(Window._make, zip(begins.tolist(), ends.tolist(), owns[:-1].tolist(), owns[1:].tolist(), strict=True))]


def _with_long_words_open(edges: npt.NDArray[np.bool_], capacity: int) -> npt.NDArray[np.bool_]:
    """Return the edges, and every token of the words that are longer than a window."""
    places = np.flatnonzero(edges)
    lengths = np.diff(places)
    inside: npt.NDArray[np.bool_] = np.repeat(lengths > capacity, lengths)
    return np.append(edges[:-1] | inside, True)


def _chain(following: npt.NDArray[np.int64], end: npt.NDArray[np.int64], num_tokens: int) -> npt.NDArray[np.int64]:
    """Begins of the windows, each leading to the next, to the first that reaches the end."""
    steps, last = following.tolist(), int(np.searchsorted(end, num_tokens))
    begins = [0]
    while begins[-1] < last:
        begins.append(steps[begins[-1]])
    return np.array(begins)


def _owned(
    begins: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    before: npt.NDArray[np.int64],
    after: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """Return int64 [windows + 1]: window i owns the tokens from entry i to entry i + 1."""
    twice = begins[1:] + ends[:-1]  # the middle of what two neighbours share, doubled
    lower, upper = before[twice // 2], after[(twice + 1) // 2]
    divided = np.where(twice - 2 * lower <= 2 * upper - twice, lower, upper)
    return np.concatenate([[0], divided, ends[-1:]])
