from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layertap.models.positions import PositionTable
from layertap.packing import Segments, pack, simple_segments

SEQUENCES = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=7), min_size=1, max_size=6)
RANGES = st.lists(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4)), max_size=4), max_size=6)


def packed(sequences, **options):
    options = {"position_ids": PositionTable(rows=99).position_ids} | options
    return pack([np.array(ids) for ids in sequences], **options)


def segments_from(groups) -> Segments:
    """Groups of (begin, length) pairs."""
    pairs = [pair for group in groups for pair in group]
    return Segments(
        begin=np.array([begin for begin, _ in pairs], dtype=np.int32),
        end=np.array([begin + length for begin, length in pairs], dtype=np.int32),
        offsets=np.cumsum([0, *map(len, groups)]).astype(np.int32),
    )


@given(SEQUENCES)
def test_sequences_come_back_as_they_went_in(sequences):
    batch = packed(sequences)
    rows = zip(batch.cu_seqlens[:-1], batch.cu_seqlens[1:], strict=True)
    assert [batch.input_ids[begin:end].tolist() for begin, end in rows] == sequences
    assert len(batch) == len(sequences)
    assert batch.num_tokens == sum(map(len, sequences)) == batch.cu_seqlens[-1]
    assert batch.lengths.tolist() == [len(ids) for ids in sequences]
    assert batch.max_seqlen == max(map(len, sequences))
    for array in (batch.input_ids, batch.position_ids, batch.cu_seqlens, batch.content_begin, batch.content_end):
        assert array.dtype == np.int32
    assert batch.record_index.dtype == np.int64
    assert batch.record_index.tolist() == list(range(len(sequences)))


@given(SEQUENCES)
def test_every_sequence_has_positions_of_its_own(sequences):
    counted = packed(sequences).position_ids
    assert counted.tolist() == [i for ids in sequences for i in range(len(ids))]
    # As in RoBERTa: the padding id is not counted and sits on its own row.
    from_ids = packed(sequences, position_ids=PositionTable(rows=99, padding_id=1).position_ids).position_ids
    expected = []
    for ids in sequences:
        seen = 1
        for token in ids:
            seen += token != 1
            expected.append(1 if token == 1 else seen)
    assert from_ids.tolist() == expected


def test_content_and_cls_are_rows_of_the_packed_batch():
    sequences = [[7, 1, 2, 8], [7, 8], [7, 5, 8]]
    batch = packed(sequences, content=[(1, 3), (1, 1), (1, 2)], record_index=[4, 0, 2], cls_index=0)
    assert batch.content_begin.tolist() == [1, 5, 7]
    assert batch.content_end.tolist() == [3, 5, 8]
    assert batch.record_index.tolist() == [4, 0, 2]
    assert batch.input_ids[batch.cls_rows].tolist() == [7, 7, 7]
    last = packed(sequences, cls_index=-1)
    assert last.cls_rows.tolist() == [3, 5, 8]
    assert last.content_begin.tolist() == [0, 4, 6]
    assert last.content_end.tolist() == [4, 6, 9]
    assert packed(sequences, cls_index=None).cls_rows is None


def test_token_types_are_laid_end_to_end():
    batch = packed([[1, 2], [3]], token_type_ids=[np.array([0, 1]), np.array([1])])
    assert batch.token_type_ids.tolist() == [0, 1, 1]
    assert batch.token_type_ids.dtype == np.int32
    assert packed([[1, 2], [3]]).token_type_ids is None


@pytest.mark.parametrize("sequences", [[], [[]], [[1, 2], []]])
def test_nothing_to_pack_is_refused(sequences):
    with pytest.raises(ValueError, match="at least one"):
        packed(sequences)


@given(RANGES)
def test_counts_are_the_rows_of_each_segment(groups):
    segments = segments_from(groups)
    assert len(segments) == len(groups)
    assert segments.counts().tolist() == [sum(length for _, length in group) for group in groups]
    assert segments.counts().dtype == np.int64
    assert segments.is_simple == all(len(group) == 1 for group in groups)


def test_counts_do_not_overflow():
    many = np.full(4, 2**31 - 1, dtype=np.int32)
    segments = Segments(begin=np.zeros(4, dtype=np.int32), end=many, offsets=np.array([0, 4], dtype=np.int32))
    assert segments.counts().tolist() == [4 * (2**31 - 1)]


def test_simple_segments_are_one_range_each():
    segments = simple_segments(np.array([0, 3]), np.array([3, 3]), weights=np.ones(3, dtype=np.float32))
    assert segments.is_simple
    assert segments.begin.dtype == segments.end.dtype == segments.offsets.dtype == np.int32
    assert segments.counts().tolist() == [3, 0]
    assert segments.weights is not None
