"""Sequences into batches, and the segments of a batch."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layertap.engine.batching import batches_of, segments_of, sequences_of
from layertap.features.plan import Input
from layertap.models.spec import PositionTable
from layertap.text.encoded import EncodedText

CLS, SEP = 90, 91
POSITIONS = PositionTable(rows=99)


def encoded(number: int, length: int) -> EncodedText:
    """A text of `length` tokens of its own between a CLS and a SEP; its ids say whose they are."""
    ids = np.array([CLS, *[number] * length, SEP], dtype=np.int32)
    return EncodedText(input_ids=ids, content=(1, 1 + length))


TEXTS = st.lists(st.integers(0, 12), max_size=12).map(lambda lengths: [encoded(i, n) for i, n in enumerate(lengths)])
LIMITS = st.lists(st.integers(3, 16), min_size=1, max_size=3, unique=True)


def inputs_of(limits) -> dict[int, Input]:
    return {i: Input(max_length=limit) for i, limit in enumerate(limits)}


def batched(texts, limits, batch_tokens):
    return list(
        batches_of(
            sequences_of(texts, inputs_of(limits)),
            batch_tokens=batch_tokens,
            position_ids=POSITIONS.position_ids,
            cls_index=0,
        )
    )


@given(TEXTS, LIMITS)
def test_every_input_sees_every_text_once(texts, limits):
    seen = {}
    for sequence in sequences_of(texts, inputs_of(limits)):
        for number in sequence.inputs:
            assert (number, sequence.index) not in seen
            seen[number, sequence.index] = sequence.text
    assert len(seen) == len(limits) * len(texts)
    for (number, index), text in seen.items():
        np.testing.assert_array_equal(text.input_ids, texts[index].limited(limits[number]).input_ids)
        assert text.content == texts[index].limited(limits[number]).content


@given(TEXTS, LIMITS)
def test_equal_ids_are_one_sequence(texts, limits):
    sequences = list(sequences_of(texts, inputs_of(limits)))
    distinct = {(sequence.index, sequence.text.input_ids.tobytes()) for sequence in sequences}
    assert len(sequences) == len(distinct)


@given(TEXTS, LIMITS, st.integers(1, 40))
def test_every_sequence_is_in_one_batch(texts, limits, batch_tokens):
    expected = sorted(
        (sorted(s.inputs), s.index, s.text.input_ids.tolist()) for s in sequences_of(texts, inputs_of(limits))
    )
    found = []
    for inputs, batch in batched(texts, limits, batch_tokens):
        assert batch.num_tokens <= batch_tokens or len(batch) == 1
        assert batch.lengths.tolist() == sorted(batch.lengths.tolist())
        for i, index in enumerate(batch.record_index):
            rows = slice(batch.cu_seqlens[i], batch.cu_seqlens[i + 1])
            ids = batch.input_ids[rows].tolist()
            found.append((sorted(inputs), int(index), ids))
            assert batch.position_ids[rows].tolist() == list(range(len(ids)))
            assert batch.input_ids[batch.cls_rows[i]] == CLS
            content = batch.input_ids[batch.content_begin[i] : batch.content_end[i]].tolist()
            assert content == [token for token in ids if token not in (CLS, SEP)]
    assert sorted(found) == expected


@given(TEXTS, LIMITS, st.integers(1, 40))
def test_batches_depend_on_nothing_else(texts, limits, batch_tokens):
    one, other = batched(texts, limits, batch_tokens), batched(texts, limits, batch_tokens)
    assert [inputs for inputs, _ in one] == [inputs for inputs, _ in other]
    for (_, first), (_, second) in zip(one, other, strict=True):
        np.testing.assert_array_equal(first.input_ids, second.input_ids)
        np.testing.assert_array_equal(first.record_index, second.record_index)


@given(TEXTS, st.integers(1, 40))
def test_batches_are_full(texts, batch_tokens):
    # the next sequence starts a batch only where it does not fit
    batches = [batch for _, batch in batched(texts, [16], batch_tokens)]
    for batch, following in pairwise(batches):
        assert batch.num_tokens + following.lengths[0] > batch_tokens


@given(TEXTS.filter(len))
def test_segments_are_the_rows_of_their_kind(texts):
    ((_, batch),) = batched(texts, [16], 10**6)
    for i in range(len(batch)):
        begin, end = batch.cu_seqlens[i], batch.cu_seqlens[i + 1]
        own = list(range(batch.content_begin[i], batch.content_end[i]))
        expected = {"tokens": list(range(begin, end)), "content": own, "cls": [begin]}
        expected |= {"tokens_by_position": expected["tokens"], "content_by_position": own}
        for kind, rows in expected.items():
            segments = segments_of(batch, kind)
            assert segments.is_simple
            assert list(range(segments.begin[i], segments.end[i])) == rows
            if kind.endswith("by_position"):
                assert segments.weights.dtype == np.float32
                assert segments.weights[rows].tolist() == list(range(1, len(rows) + 1))
            else:
                assert segments.weights is None


@given(TEXTS.filter(len), st.integers(0, 20))
def test_segments_after_a_prompt(texts, prompt_rows):
    ((_, batch),) = batched(texts, [16], 10**6)
    after = segments_of(batch, "after_prompt", prompt_rows=prompt_rows)
    weighted = segments_of(batch, "after_prompt_by_position", prompt_rows=prompt_rows)
    for i in range(len(batch)):
        begin, end = int(batch.cu_seqlens[i]), int(batch.cu_seqlens[i + 1])
        rows = list(range(begin, end))[prompt_rows:]
        for segments in (after, weighted):
            assert list(range(segments.begin[i], segments.end[i])) == rows
        # positions count from the sequence's beginning
        assert weighted.weights[rows].tolist() == [row - begin + 1 for row in rows]


def test_no_cls_is_an_invariant():
    ((_, batch),) = batches_of(
        sequences_of([encoded(0, 2)], inputs_of([9])),
        batch_tokens=9,
        position_ids=POSITIONS.position_ids,
        cls_index=None,
    )
    with pytest.raises(AssertionError):
        segments_of(batch, "cls")
