from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layertap.errors import InputError
from layertap.records import AttentionMaps, FeatureBatch, Ragged, Record


@given(st.lists(st.integers(0, 4), min_size=1, max_size=6), st.sampled_from([(3,), (2, 3), ()]))
def test_ragged_is_a_list_of_its_rows(lengths, shape):
    random = np.random.default_rng(0)
    rows = [random.standard_normal((length, *shape)).astype(np.float32) for length in lengths]
    ragged = Ragged.from_rows(rows)
    expected = rows  # in the order that `values` and all files have: tokens first
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
    assert repr(ragged) == "Ragged(2 records of [n, 3], values [3, 3] float64)"


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


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"text": None}, "text is None; expected a str"),
        ({"text": b"bytes"}, "text is b'bytes'; expected a str"),
        ({"row": None}, "row is None; expected a whole number"),
        ({"row": 1.0}, "row is 1.0; expected a whole number"),
        ({"row": True}, "row is True"),
        ({"pair": 7}, "pair is 7; expected a str or None"),
        ({"id": 1.5}, "id is 1.5; expected a str, a whole number or None"),
        ({"id": ["a"]}, "id is"),
        ({"columns": None}, "columns are None; expected a mapping"),
        ({"columns": ["a"]}, "columns are"),
        ({"words": "two words"}, "words are 'two words'; expected a tuple of str"),
        ({"words": ("a", None)}, "words are"),
        ({"spans": ((0.0, 1.0),)}, r"span \(0.0, 1.0\): expected \(begin, end\) in whole numbers"),
        ({"spans": ((0, True),)}, "span"),
        ({"spans": ((0, 1, 2),)}, "span"),
        ({"spans": (3,)}, "span 3"),
        ({"spans": "0-1"}, "spans are"),
    ],
)
def test_fields_of_another_type_are_refused(fields, words):
    with pytest.raises(InputError, match=f"record {fields.get('row', 3)!r}: {words}"):
        Record(**{"row": 3, "text": "a text"} | fields)


def test_whole_numbers_of_numpy_are_whole_numbers():
    record = Record(row=np.int64(3), text="a", id=np.int32(7), spans=((np.int64(0), np.int64(1)),))
    assert (record.row, record.id, record.spans) == (3, 7, ((0, 1),))


@pytest.mark.parametrize("chosen", [slice(1, 3), slice(None, None, -2), slice(5, 9)])
def test_slices_are_of_records(chosen):
    ragged = Ragged.from_rows([np.arange(2 * n).reshape(n, 2) for n in (3, 0, 1, 2)])
    lengths = np.array([3, 1, 2, 1])
    maps = AttentionMaps(np.arange(15.0, dtype=np.float32).repeat(2), lengths, (2,))
    for feature in (ragged, maps):
        taken = feature[chosen]
        assert type(taken) is type(feature)
        expected = list(feature)[chosen]
        assert len(taken) == len(expected)
        for a, b in zip(taken, expected, strict=True):
            np.testing.assert_array_equal(a, b, strict=True)
        assert taken.offsets[-1] == taken.values.size // max(1, feature.values[0].size)
        with pytest.raises(TypeError, match="'v': the arrays of a feature, one a record, are named by number or slice"):
            feature["v"]
