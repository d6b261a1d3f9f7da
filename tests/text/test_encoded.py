from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layertap.errors import OptionError, UsageError
from layertap.text.encoded import EncodedText
from layertap.text.windows import Window


def encoded(prefix: int, own: int, suffix: int) -> EncodedText:
    ids = np.arange(prefix + own + suffix, dtype=np.int32)
    return EncodedText(input_ids=ids, content=(prefix, prefix + own), typed_specials=3, replaced_surrogates=2)


SHAPES = {"prefix": st.integers(0, 3), "own": st.integers(0, 40), "suffix": st.integers(0, 3)}


@settings(max_examples=200, deadline=None)
@given(**SHAPES, room=st.integers(1, 50))
def test_limited_keeps_the_template_and_the_left_of_the_text(prefix: int, own: int, suffix: int, room: int) -> None:
    text = encoded(prefix, own, suffix)
    short = text.limited(prefix + suffix + room)
    kept = min(own, room)
    assert short.input_ids.tolist() == [*range(prefix + kept), *range(prefix + own, prefix + own + suffix)]
    assert short.input_ids.dtype == np.int32
    assert short.content == (prefix, prefix + kept)
    assert short.cut_tokens == own - kept
    assert (short.typed_specials, short.replaced_surrogates) == (3, 2)
    assert len(text) == prefix + own + suffix


@settings(max_examples=100, deadline=None)
@given(**SHAPES, rooms=st.tuples(st.integers(1, 50), st.integers(1, 50)))
def test_limiting_twice_is_limiting_to_the_smaller(prefix: int, own: int, suffix: int, rooms: tuple[int, int]) -> None:
    text = encoded(prefix, own, suffix)
    specials = prefix + suffix
    twice = text.limited(specials + rooms[0]).limited(specials + rooms[1])
    once = text.limited(specials + min(rooms))
    assert twice.input_ids.tolist() == once.input_ids.tolist()
    assert (twice.content, twice.cut_tokens) == (once.content, once.cut_tokens)


def test_a_text_that_fits_is_not_copied() -> None:
    text = encoded(1, 3, 1)
    assert text.limited(5) is text


@pytest.mark.parametrize("own", [0, 1, 9])
@pytest.mark.parametrize("max_length", [-1, 0, 2])
def test_a_limit_without_room_for_the_text_is_refused_whatever_the_text(own: int, max_length: int) -> None:
    with pytest.raises(OptionError, match=f"max_length {max_length} is too small.* adds 2 special.*at least 3"):
        encoded(1, own, 1).limited(max_length)


@settings(max_examples=100, deadline=None)
@given(**SHAPES, room=st.integers(1, 50))
def test_the_left_side_cuts_the_beginning(prefix: int, own: int, suffix: int, room: int) -> None:
    short = encoded(prefix, own, suffix).limited(prefix + suffix + room, "left")
    kept = min(own, room)
    assert short.input_ids.tolist() == [*range(prefix), *range(prefix + own - kept, prefix + own + suffix)]
    assert (short.content, short.cut_tokens) == ((prefix, prefix + kept), own - kept)


def test_an_unknown_side_is_refused() -> None:
    with pytest.raises(OptionError, match="side 'top'"):
        encoded(1, 3, 1).limited(5, "top")  # type: ignore[arg-type]


def with_everything(prefix: int, own: int, suffix: int) -> EncodedText:
    text = encoded(prefix, own, suffix)
    rows = text.input_ids
    return replace(text, token_type_ids=rows + 1, word_ids=rows + 2, offsets=np.stack([rows, rows + 3], axis=1))


@settings(max_examples=100, deadline=None)
@given(**SHAPES, cuts=st.tuples(st.integers(0, 40), st.integers(0, 40)))
def test_a_window_is_its_tokens_inside_the_template(prefix: int, own: int, suffix: int, cuts: tuple[int, int]) -> None:
    begin, end = (min(cut, own) for cut in sorted(cuts))
    text = with_everything(prefix, own, suffix)
    found = text.windowed(Window(begin, end, begin, end))
    assert found.input_ids.tolist() == [
        *range(prefix),
        *range(prefix + begin, prefix + end),
        *range(prefix + own, prefix + own + suffix),
    ]
    assert found.content == (prefix, prefix + end - begin)
    assert found.token_type_ids is not None
    assert found.word_ids is not None
    assert found.offsets is not None
    assert (found.token_type_ids - 1).tolist() == (found.word_ids - 2).tolist() == found.input_ids.tolist()
    assert found.offsets.tolist() == [[row, row + 3] for row in found.input_ids.tolist()]
    assert (found.typed_specials, found.replaced_surrogates, found.cut_tokens) == (3, 2, 0)


def test_a_pair_has_no_windows() -> None:
    pair = replace(encoded(1, 3, 4), pair_content=(5, 7))
    with pytest.raises(UsageError, match="a pair of texts has no windows"):
        pair.windowed(Window(0, 1, 0, 1))
