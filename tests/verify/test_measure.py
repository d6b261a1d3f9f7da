"""The two figures, against what they are said to be."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layertap.verify.measure import Difference, float32_bound


def random_pair(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    expected = random.standard_normal((rows, 8))
    return expected + random.standard_normal((rows, 8)) * 1e-3, expected


@given(lengths=st.lists(st.integers(0, 5), min_size=1, max_size=6), seed=st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_parts_add_up_to_the_whole(lengths, seed):
    found, expected = random_pair(sum(lengths), seed)
    parts = Difference()
    for begin, length in zip(np.cumsum([0, *lengths]), lengths, strict=False):
        parts.add(found[begin : begin + length], expected[begin : begin + length])
    whole = Difference.of(found, expected)
    assert parts.error_over_rms == pytest.approx(whole.error_over_rms)
    assert parts.cosine == pytest.approx(whole.cosine)


@given(rows=st.integers(1, 9), seed=st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_the_figures_are_what_they_are_called(rows, seed):
    found, expected = random_pair(rows, seed)
    difference = Difference.of(found.astype(np.float32), expected)
    error = np.abs(found.astype(np.float32) - expected).max() / np.sqrt((expected**2).mean())
    cosines = [one @ other / np.linalg.norm(one) / np.linalg.norm(other) for one, other in zip(found, expected)]  # noqa: B905
    assert difference.error_over_rms == pytest.approx(error)
    assert difference.cosine == pytest.approx(min(cosines), abs=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("first", [True, False])
def test_what_is_not_finite_is_never_lost(bad, first):
    found, expected = random_pair(3, 0)
    wrong = found.copy()
    wrong[1, 2] = bad
    difference = Difference()
    for part in (wrong, found) if first else (found, wrong):
        difference.add(part, expected)
    assert difference.error_over_rms == math.inf
    assert difference.cosine == -1


def test_zeros():
    zeros, ones = np.zeros((2, 4)), np.ones((2, 4))
    assert (Difference.of(zeros, zeros).error_over_rms, Difference.of(zeros, zeros).cosine) == (0, 1)
    assert (Difference.of(zeros, ones).error_over_rms, Difference.of(zeros, ones).cosine) == (1, 0)
    assert Difference.of(ones, zeros).error_over_rms == math.inf
    assert (Difference().error_over_rms, Difference().cosine) == (0, 1)


def test_a_row_of_the_opposite_direction_shows():
    _, expected = random_pair(50, 1)
    found = expected.copy()
    found[17] *= -1
    assert Difference.of(found, expected).cosine == pytest.approx(-1)


def test_deep_models_have_a_bound_of_their_own():
    assert [float32_bound(layers) for layers in (6, 23, 24, 36)] == [2e-5, 2e-5, 1e-4, 1e-4]
