"""Texts into batches, and the segments of a batch."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layertap.engine.batching import PlannedText, batches_of, own_rows, pack_texts, unit_rows
from layertap.engine.length_policy import LengthPolicy
from layertap.engine.segments import segments_of
from layertap.features.schema import WindowSize
from layertap.models.positions import PositionTable
from layertap.text.encoded import EncodedText
from layertap.text.units import RecordUnits

CLS, SEP = 90, 91
POSITIONS = PositionTable(rows=99)
BY_TEXT = ("tokens", "content", "after_prompt", "tokens_by_position", "content_by_position", "after_prompt_by_position")


def encoded(number: int, length: int) -> EncodedText:
    """A text of `length` tokens of its own between a CLS and a SEP; its ids say whose they are."""
    ids = np.array([CLS, *[number] * length, SEP], dtype=np.int32)
    return EncodedText(input_ids=ids, content=(1, 1 + length))


def planned(
    text: EncodedText, index: int, length_policy: LengthPolicy, limit: int, units=None, inputs=(0,)
) -> PlannedText:
    edges = np.ones(len(text) - 1, dtype=bool)
    return PlannedText(index=index, cut=length_policy.cut(text, limit, edges), units=units, inputs=frozenset(inputs))


def packed(texts, **more):
    return pack_texts(texts, position_ids=POSITIONS.position_ids, token_types=False, cls_index=0, **more)


LENGTHS = st.lists(st.integers(0, 12), max_size=12)


@st.composite
def plans(draw, least: int = 0) -> list[PlannedText]:
    length_policy = draw(
        st.sampled_from(
            [LengthPolicy(), LengthPolicy(long="window"), LengthPolicy(long="window", window=WindowSize(overlap=0))]
        )
    )
    limit = draw(st.integers(3, 16))
    lengths = draw(st.lists(st.integers(0, 40), min_size=least, max_size=8))
    return [planned(encoded(i, n), i, length_policy, limit) for i, n in enumerate(lengths)]


@given(plans(), st.lists(st.sampled_from([(0,), (1,), (0, 1)]), min_size=8, max_size=8), st.integers(1, 60))
def test_every_text_is_in_one_batch_of_its_inputs(texts, inputs, batch_tokens):
    texts = [
        PlannedText(index=t.index, cut=t.cut, units=None, inputs=frozenset(i))
        for t, i in zip(texts, inputs, strict=False)
    ]
    batches = list(batches_of(texts, batch_tokens=batch_tokens))
    assert sorted(text.index for batch in batches for text in batch) == list(range(len(texts)))
    for batch in batches:
        assert len({text.inputs for text in batch}) == 1
        lengths = [text.cut.num_tokens for text in batch]
        assert lengths == sorted(lengths)
        assert sum(lengths) <= batch_tokens or len(batch) == 1
    for group in {text.inputs for text in texts}:
        own = [[text.cut.num_tokens for text in batch] for batch in batches if batch[0].inputs == group]
        total = sum(map(sum, own))
        count = -(-total // batch_tokens)
        before = 0
        for closed, (lengths, following) in enumerate(pairwise(own), start=1):
            # the next text starts a batch only where it does not fit, or the batches have their share of the tokens
            before += sum(lengths)
            assert sum(lengths) + following[0] > batch_tokens or before * count >= closed * total
    again = list(batches_of(texts, batch_tokens=batch_tokens))
    assert [[text.index for text in batch] for batch in again] == [[t.index for t in batch] for batch in batches]


@given(plans(least=1))
def test_what_is_packed(texts):
    batch = packed(texts)
    assert batch.num_texts == len(texts)
    assert batch.record_index.tolist() == [text.index for text in texts]
    for n, text in enumerate(texts):
        first, last = batch.sequences[n], batch.sequences[n + 1]
        assert last - first == len(text.cut.sequences)
        for b, sequence in zip(range(first, last), text.cut.sequences, strict=True):
            rows = slice(batch.cu_seqlens[b], batch.cu_seqlens[b + 1])
            assert batch.input_ids[rows].tolist() == sequence.input_ids.tolist()
            assert batch.position_ids[rows].tolist() == list(range(len(sequence)))
            assert batch.input_ids[batch.cls_rows[b]] == CLS
            own = batch.input_ids[batch.content_begin[b] : batch.content_end[b]]
            assert own.tolist() == [text.index] * len(own)


def numbered(length: int) -> EncodedText:
    return EncodedText(input_ids=np.array([CLS, *range(length), SEP], dtype=np.int32), content=(1, 1 + length))


def rows_of(segments, s: int) -> list[int]:
    ranges = range(segments.offsets[s], segments.offsets[s + 1])
    return [row for r in ranges for row in range(segments.begin[r], segments.end[r])]


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=5),
    st.integers(4, 16),
    st.data(),
)
def test_a_text_in_windows_has_the_rows_of_one_sequence(lengths, limit, data):
    overlap = data.draw(st.integers(0, limit - 3))
    length_policy = LengthPolicy(long="window", window=WindowSize(overlap=overlap))
    batch = packed([planned(numbered(n), i, length_policy, limit) for i, n in enumerate(lengths)])
    prompt_rows = data.draw(st.integers(0, 30))
    kinds = {kind: segments_of(batch, kind, prompt_rows=prompt_rows) for kind in BY_TEXT}
    for n, length in enumerate(lengths):
        whole = [CLS, *range(length), SEP]
        expected = {"tokens": whole, "content": whole[1:-1], "after_prompt": whole[prompt_rows:]}
        for kind, segments in kinds.items():
            rows = rows_of(segments, n)
            ids = expected[kind.removesuffix("_by_position")]
            assert batch.input_ids[rows].tolist() == ids
            if kind == "tokens_by_position":
                assert segments.weights[rows].tolist() == list(range(1, len(ids) + 1))
            if kind == "content_by_position":
                assert segments.weights[rows].tolist() == list(range(1, len(ids) + 1))
    for kind in ("windows", "cls"):
        segments = segments_of(batch, kind)
        assert segments.texts.tolist() == batch.sequences.tolist()
        assert [rows_of(segments, b)[0] for b in range(len(batch))] == batch.cls_rows.tolist()


@given(st.lists(st.integers(0, 40), min_size=1, max_size=5), st.integers(4, 16), st.integers(1, 30))
def test_what_is_left_of_a_text_is_counted_from_its_beginning(lengths, limit, prompt_rows):
    length_policy = LengthPolicy(truncate_side="left")
    batch = packed([planned(numbered(n), i, length_policy, limit) for i, n in enumerate(lengths)])
    kinds = {kind: segments_of(batch, kind, prompt_rows=prompt_rows) for kind in BY_TEXT}
    for n, length in enumerate(lengths):
        own = list(range(max(0, length - limit + 2), length))
        after = [CLS, *range(length), SEP][max(prompt_rows, 1 + length - len(own)) :]
        expected = {"tokens": [CLS, *own, SEP], "content": own, "after_prompt": after}
        for kind, segments in kinds.items():
            rows = rows_of(segments, n)
            assert batch.input_ids[rows].tolist() == expected[kind.removesuffix("_by_position")], kind
            if kind in ("tokens_by_position", "content_by_position"):
                assert segments.weights[rows].tolist() == list(range(1, len(rows) + 1))


@given(st.lists(st.integers(0, 30), min_size=1, max_size=5), st.integers(4, 16), st.data())
def test_units_are_the_rows_of_their_tokens(lengths, limit, data):
    length_policy = data.draw(
        st.sampled_from(
            [
                LengthPolicy(),
                LengthPolicy(truncate_side="left"),
                LengthPolicy(long="window", window=WindowSize(overlap=limit // 4)),
            ]
        )
    )
    texts, ranges = [], []
    for i, n in enumerate(lengths):
        pair = st.tuples(st.integers(0, n), st.integers(0, n)).map(sorted)
        found = np.array(data.draw(st.lists(pair, max_size=6)), dtype=np.int32).reshape(-1, 2)
        ranges.append(found)
        texts.append(planned(numbered(n), i, length_policy, limit, units=RecordUnits(words=found, spans=found[::-1])))
    batch = packed(texts)
    units = unit_rows(texts)
    for kind in ("words", "spans"):
        segments = segments_of(batch, kind, units=units)
        for n, (length, found) in enumerate(zip(lengths, ranges, strict=True)):
            kept = set(range(length))
            if len(texts[n].cut.windows) == 1:
                kept = set(range(texts[n].cut.windows[0].begin, texts[n].cut.windows[0].end))
            mine = range(segments.texts[n], segments.texts[n + 1])
            wanted = found if kind == "words" else found[::-1]
            assert len(mine) == len(wanted)
            for s, (begin, end) in zip(mine, wanted, strict=True):
                ids = batch.input_ids[rows_of(segments, s)].tolist()
                assert ids == [i for i in range(begin, end) if i in kept]


def test_pairs_leave_out_what_stands_between():
    text = EncodedText(
        input_ids=np.array([CLS, 1, 2, SEP, 3, 4, 5, SEP], dtype=np.int32),
        content=(1, 3),
        pair_content=(4, 7),
        token_type_ids=np.array([0, 0, 0, 0, 1, 1, 1, 1], dtype=np.int32),
    )
    texts = [planned(text, 0, LengthPolicy(), 20), planned(numbered(2), 1, LengthPolicy(), 20)]
    batch = pack_texts(texts, position_ids=POSITIONS.position_ids, token_types=True, cls_index=0)
    assert batch.token_type_ids.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0]
    content = segments_of(batch, "content")
    assert batch.input_ids[rows_of(content, 0)].tolist() == [1, 2, 3, 4, 5]
    assert batch.input_ids[rows_of(content, 1)].tolist() == [0, 1]
    weighted = segments_of(batch, "content_by_position")
    assert weighted.weights[rows_of(weighted, 0)].tolist() == [1, 2, 3, 4, 5]
    assert pack_texts(texts, position_ids=POSITIONS.position_ids, token_types=False, cls_index=0).token_type_ids is None


def test_own_rows_of_a_single_sequence():
    (only,) = own_rows(LengthPolicy(truncate_side="left").cut(numbered(30), 10, None))
    assert only == (0, 10)


def test_no_cls_is_an_invariant():
    batch = pack_texts(
        [planned(encoded(0, 2), 0, LengthPolicy(), 9)],
        position_ids=POSITIONS.position_ids,
        token_types=False,
        cls_index=None,
    )
    with pytest.raises(AssertionError):
        segments_of(batch, "cls")


@given(st.lists(st.integers(0, 12), min_size=1, max_size=60), st.integers(20, 80))
def test_batches_are_about_equally_large(lengths, batch_tokens):
    texts = [planned(encoded(i, n), i, LengthPolicy(), 16) for i, n in enumerate(lengths)]
    sizes = [sum(text.cut.num_tokens for text in batch) for batch in batches_of(texts, batch_tokens=batch_tokens)]
    longest = max(text.cut.num_tokens for text in texts)
    share = sum(sizes) / -(-sum(sizes) // batch_tokens)
    assert max(sizes) <= min(batch_tokens, share + longest)
