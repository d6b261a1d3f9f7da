"""Segment reductions against naive numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layertap.packing import Segments, simple_segments

torch = pytest.importorskip("torch")

from layertap.backends.torch.reduce import EdgeRows, SegmentRows  # noqa: E402 - needs torch

OPERATIONS = ["first", "last", "sum", "max", "min"]


@st.composite
def segmented(draw):
    """(rows float32 [T, 3], segments): overlapping and empty ones, of several ranges, with weights or without."""
    num_rows = draw(st.integers(1, 12))
    rows = st.integers(0, num_rows)
    one_range = st.tuples(rows, rows).map(sorted)
    groups = draw(st.lists(st.lists(one_range, max_size=3).map(sorted), min_size=1, max_size=6))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    weights = random.standard_normal(num_rows).astype(np.float32) if draw(st.booleans()) else None
    ranges = np.array([pair for group in groups for pair in group], dtype=np.int32).reshape(-1, 2)
    segments = Segments(
        begin=ranges[:, 0],
        end=ranges[:, 1],
        offsets=np.cumsum([0, *map(len, groups)]).astype(np.int32),
        weights=weights,
    )
    return random.standard_normal((num_rows, 3)).astype(np.float32), segments


def rows_of(segments: Segments) -> list[list[int]]:
    """The rows of each segment."""
    found = []
    for s in range(len(segments)):
        ranges = range(segments.offsets[s], segments.offsets[s + 1])
        found.append([row for r in ranges for row in range(segments.begin[r], segments.end[r])])
    return found


def naive(hidden, segments: Segments, operation: str):
    """Row by row, in float64."""
    result = np.zeros((len(segments), hidden.shape[1]))
    for s, rows in enumerate(rows_of(segments)):
        if not rows:
            continue
        taken = hidden[rows].astype(np.float64)
        if operation == "sum":
            result[s] = (taken if segments.weights is None else taken * segments.weights[rows][:, None]).sum(axis=0)
        elif operation in ("max", "min"):
            result[s] = getattr(taken, operation)(axis=0)
        else:
            result[s] = taken[0 if operation == "first" else -1]
    return result


def reduce(hidden, segments: Segments, operation: str):
    if operation in ("first", "last"):
        return EdgeRows(segments, operation, hidden.device).take(hidden)
    return SegmentRows(segments, len(hidden), hidden.device).reduce(hidden, operation)


@given(segmented(), st.sampled_from(OPERATIONS))
@settings(deadline=None)
def test_reductions_are_the_naive_ones(case, operation):
    hidden, segments = case
    found = reduce(torch.from_numpy(hidden), segments, operation)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), naive(hidden, segments, operation), rtol=1e-5, atol=1e-5)


@given(segmented(), st.sampled_from(OPERATIONS))
@settings(deadline=None)
def test_gradients_reach_exactly_the_rows_that_count(case, operation):
    hidden, segments = case
    tensor = torch.from_numpy(hidden).requires_grad_()
    outer = torch.from_numpy(np.random.default_rng(1).standard_normal((len(segments), 3)).astype(np.float32))
    (reduce(tensor, segments, operation) * outer).sum().backward()
    expected = np.zeros_like(hidden)
    for s, rows in enumerate(rows_of(segments)):
        for column in range(3 if rows else 0):
            values = hidden[rows, column]
            if operation == "sum":
                for row in rows:
                    weight = 1 if segments.weights is None else segments.weights[row]
                    expected[row, column] += outer[s, column] * weight
                continue
            # a row that ranges of one segment share may be the largest twice: its parts add up to one
            chosen = {"first": 0, "last": -1, "max": values.argmax(), "min": values.argmin()}[operation]
            expected[rows[chosen], column] += outer[s, column]
    np.testing.assert_allclose(tensor.grad.numpy(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_states_are_reduced_in_float32(operation, dtype):
    hidden = torch.full((4096, 2), 1.0, dtype=dtype)
    segments = simple_segments(np.array([0]), np.array([4096]))
    found = reduce(hidden, segments, operation)
    assert found.dtype == torch.float32
    assert found[0, 0] == (4096 if operation == "sum" else 1)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_segments_without_rows_are_zero_whatever_is_around_them(operation):
    hidden = torch.full((3, 2), float("inf"))
    segments = simple_segments(np.array([0, 1, 3]), np.array([0, 1, 3]))
    assert reduce(hidden, segments, operation).tolist() == [[0.0, 0.0]] * 3


@pytest.mark.parametrize("operation", OPERATIONS)
def test_not_a_number_is_not_lost(operation):
    hidden = torch.full((3, 2), float("nan"))
    assert reduce(hidden, simple_segments(np.array([0]), np.array([3])), operation).isnan().all()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_negative_rows_stay_negative(operation):
    # zeros of the result, or of rows left out, must not win over them
    hidden = -torch.ones(4, 2)
    found = reduce(hidden, simple_segments(np.array([1, 0]), np.array([3, 4])), operation)
    assert (found < 0).all()
