from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layertap.errors import FeatureError
from layertap.features.indexing import LayerSlice, resolve, selection_of
from layertap.features.parse import parse
from layertap.features.sources import hidden_states, last_hidden_state, pooler_output


@given(
    st.integers(1, 8), st.none() | st.integers(-9, 9), st.none() | st.integers(-9, 9), st.sampled_from([None, 1, 2, -1])
)
def test_a_slice_selects_what_python_selects_or_is_refused(n, start, stop, step):
    wanted = tuple(range(n)[start:stop:step])
    inside = all(bound is None or -n <= bound <= n for bound in (start, stop))
    if wanted and inside:
        assert resolve(LayerSlice(start, stop, step), n) == wanted
    else:
        with pytest.raises(FeatureError):
            resolve(LayerSlice(start, stop, step), n)


def test_lists_keep_their_order():
    assert resolve((6, 0, -2), 7) == (6, 0, 5)
    assert resolve(-1, 7) == (6,)


@pytest.mark.parametrize(
    ("selection", "answer"),
    [
        (7, r"7 is out of range; this model's layers are 0 \(embedding output\) to 6 \(last\), or -1 to -7"),
        (-8, "-8 is out of range"),
        ((0, 12), "12 is out of range"),
        ((6, -1), "layer 6 more than once"),
        (LayerSlice(-8, None), "from -7 to 7"),
        (LayerSlice(None, 8), "from -7 to 7"),
        (LayerSlice(3, 3), "selects no layer"),
        (LayerSlice(5, 2), "selects no layer"),
    ],
)
def test_ranges_are_refused_not_clamped(selection, answer):
    with pytest.raises(FeatureError, match=answer):
        resolve(selection, 7)


@pytest.mark.parametrize(
    ("key", "answer"),
    [
        ([], "selects nothing"),
        ([1, 1], "more than once"),
        ((1, 2), r"write hidden_states\[\[1, 2\]\]"),
        ((slice(None), 0), r"write hidden_states\[:\]\.first .* or hidden_states\[-1\]\[:, 0\]"),
        ((slice(None), 0, slice(None)), r"write hidden_states\[:\]\.first"),
        ((-1, slice(None), 0), r"hidden_states\[-1\]\[:, 0\]"),
        ((), r"hidden_states\[-1\]\[:, 0\]"),
        (slice(0, 4, 0), "step of 0"),
        (True, "whole numbers"),
        ([True], "whole numbers"),
        (1.5, "whole numbers"),
        ("1", "whole numbers"),
        (None, "whole numbers"),
        (..., "whole numbers"),
        (slice("a", None), "whole numbers"),
        (2**40, "41 bits"),
        ([-(2**40)], "bits"),
    ],
)
def test_keys_that_select_no_layers(key, answer):
    with pytest.raises(FeatureError, match=answer):
        selection_of(key)


FULL = slice(None)
TOKEN_KEYS = [
    # feature, key, the spelling that works
    (last_hidden_state, (0, 0), "last_hidden_state.first"),
    (last_hidden_state, (0, 0, FULL), "last_hidden_state.first"),
    (last_hidden_state, (FULL, -1), "last_hidden_state.last"),
    (last_hidden_state, (FULL, -1, FULL), "last_hidden_state.last"),
    (last_hidden_state, (FULL, slice(1, -1)), "last_hidden_state.mean(special=False)"),
    (last_hidden_state, (FULL, 3), "last_hidden_state.first"),
    (last_hidden_state, 0, "last_hidden_state.first"),
    (last_hidden_state, (..., 0), "last_hidden_state.first"),
    (last_hidden_state, (FULL, True), "last_hidden_state.first"),
    (last_hidden_state, (FULL, FULL, slice(5)), "last_hidden_state.first"),
    (hidden_states[-4:], (FULL, 0), "hidden_states[-4:].first"),
    (hidden_states[-4:], (FULL, 0, FULL), "hidden_states[-4:].first"),
    (hidden_states[-4:], 0, "hidden_states[-4:].mean"),
    (pooler_output, (FULL, slice(128)), "pooler_output.truncate(128)"),
    (last_hidden_state.mean, slice(16), "last_hidden_state.mean.truncate(16)"),
    (pooler_output, 0, ".truncate(n)"),
    (pooler_output, (FULL, 0), ".truncate(n)"),
]


def test_numbers_too_long_to_print():
    for key in (10**5000, [10**5000], slice(None, 10**5000)):
        with pytest.raises(FeatureError, match="bits"):
            selection_of(key)
        with pytest.raises(FeatureError):
            _ = last_hidden_state[key]


@pytest.mark.parametrize(("feature", "key", "spelling"), TOKEN_KEYS, ids=str)
def test_other_indices_are_refused_with_the_spelling_that_works(feature, key, spelling):
    with pytest.raises(FeatureError, match=re.escape(spelling)):
        feature[key]
    if not spelling.startswith("."):
        parse(spelling)


def test_the_first_token():
    for feature in (last_hidden_state, hidden_states[3], hidden_states[1:3].layer_mean, last_hidden_state.tokens):
        assert feature[:, 0] == feature[:, 0, :] == feature.first
    with pytest.raises(FeatureError, match=r"last_hidden_state\.first\.normalize"):
        last_hidden_state.normalize[:, 0]
