from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layertap.errors import OptionError
from layertap.text.encoded import EncodedText


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
