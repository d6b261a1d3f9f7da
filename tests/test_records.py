from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layertap.records import FeatureBatch, Ragged, Record


@given(st.lists(st.integers(0, 4), min_size=1, max_size=6), st.sampled_from([(3,), (2, 3), ()]))
def test_ragged_is_a_list_of_its_rows(lengths, shape):
    random = np.random.default_rng(0)
    rows = [random.standard_normal((length, *shape)).astype(np.float32) for length in lengths]
    ragged = Ragged.from_rows(rows)
    expected = [row.swapaxes(0, 1) if row.ndim == 3 else row for row in rows]
    assert len(ragged) == len(rows)
    assert ragged.offsets.dtype == np.int64
    assert ragged.offsets.tolist() == np.cumsum([0, *lengths]).tolist()
    for found in (
        list(ragged),
        [ragged[i] for i in range(len(rows))],
        [ragged[i - len(rows)] for i in range(len(rows))],
    ):
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)


def test_ragged_gives_views():
    ragged = Ragged.from_rows([np.zeros((2, 3)), np.zeros((1, 3))])
    ragged[1][0, 0] = 5
    assert ragged.values[2, 0] == 5


@pytest.mark.parametrize("index", [2, -3, 10])
def test_ragged_says_what_it_holds(index):
    ragged = Ragged.from_rows([np.zeros((2, 3)), np.zeros((1, 3))])
    with pytest.raises(IndexError, match=f"record {index} of 2"):
        ragged[index]
    assert repr(ragged) == "Ragged(2 records, values [3, 3] float64)"


def test_an_empty_ragged_has_no_records():
    ragged = Ragged(np.zeros((0, 3)), np.zeros(1, dtype=np.int64))
    assert len(ragged) == 0
    assert list(ragged) == []


def test_a_feature_batch_is_as_long_as_its_records():
    batch = FeatureBatch(records=[Record(row=0, text="a"), Record(row=1, text="b")], features={})
    assert len(batch) == 2


def test_records_are_frozen_and_share_no_columns():
    one, other = Record(row=0, text="a"), Record(row=1, text="b")
    assert one.columns is not other.columns
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.text = "c"
