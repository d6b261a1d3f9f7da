"""Sequences laid end to end: `PackedBatch` and `Segments`.

There is no padding and no mask. Shape letters: B sequences, N texts, T packed tokens, S segments, R row ranges.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PackedBatch:
    """B sequences of token ids laid end to end, T tokens in all: those of N texts.

    A text is one sequence, or several where it is longer than a sequence may be: windows, in their order, which may
    overlap. Of rows that stand for the same token of a text one is the text's own.

    Attributes:
        input_ids: int32 [T].
        position_ids: int32 [T], each sequence's own (see `models.spec.PositionTable`).
        token_type_ids: int32 [T], or None: type 0 everywhere.
        cu_seqlens: int32 [B+1]; sequence b owns rows `cu_seqlens[b]:cu_seqlens[b+1]`.
        max_seqlen: tokens of the longest sequence.
        record_index: int64 [N], which record a text belongs to.
        sequences: int32 [N+1]; text n is sequences `sequences[n]:sequences[n+1]`.
        content_begin, content_end: int32 [B], rows of the text's tokens, without the special tokens
            that the template adds (`begin == end` for an empty text).
        pair_begin, pair_end: the same for the second text of a pair, empty where there is none; None: nowhere.
        own_begin, own_end: int32 [B], rows of the sequence that are the text's own; of the template's tokens those
            before the first window and after the last.
        content_offset: int32 [B], which token of its text, counted without the template's, is at `content_begin`.
        cls_rows: int32 [B], row of the template's CLS token, or None where the template has none.
    """

    input_ids: IntArray
    position_ids: IntArray
    token_type_ids: IntArray | None
    cu_seqlens: IntArray
    max_seqlen: int
    record_index: npt.NDArray[np.int64]
    sequences: IntArray
    content_begin: IntArray
    content_end: IntArray
    pair_begin: IntArray | None
    pair_end: IntArray | None
    own_begin: IntArray
    own_end: IntArray
    content_offset: IntArray
    cls_rows: IntArray | None

    def __len__(self) -> int:
        return len(self.cu_seqlens) - 1

    @property
    def num_tokens(self) -> int:
        """Number T of packed tokens in the batch."""
        return len(self.input_ids)

    @property
    def num_texts(self) -> int:
        """Number N of texts in the batch."""
        return len(self.record_index)

    @property
    def lengths(self) -> IntArray:
        """Tokens of each sequence, int32 [B]."""
        return np.diff(self.cu_seqlens)

    def part(self, begin: int, end: int) -> PackedBatch:
        """Sequences `begin:end` of a batch of one text, as a batch of their own."""
        assert self.num_texts == 1
        first, last = self.cu_seqlens[begin], self.cu_seqlens[end]

        def rows(values: IntArray | None) -> IntArray | None:
            return None if values is None else values[first:last]

        def moved(values: IntArray | None) -> IntArray | None:
            return None if values is None else values[begin:end] - first

        return replace(
            self,
            input_ids=self.input_ids[first:last],
            position_ids=self.position_ids[first:last],
            token_type_ids=rows(self.token_type_ids),
            cu_seqlens=self.cu_seqlens[begin : end + 1] - first,
            max_seqlen=int(self.lengths[begin:end].max()),
            sequences=np.array([0, end - begin], dtype=np.int32),
            content_begin=self.content_begin[begin:end] - first,
            content_end=self.content_end[begin:end] - first,
            pair_begin=moved(self.pair_begin),
            pair_end=moved(self.pair_end),
            own_begin=self.own_begin[begin:end] - first,
            own_end=self.own_end[begin:end] - first,
            content_offset=self.content_offset[begin:end],
            cls_rows=moved(self.cls_rows),
        )


def pack(
    sequences: Sequence[npt.NDArray[np.integer]],
    *,
    position_ids: Callable[[IntArray], IntArray],
    token_type_ids: Sequence[npt.NDArray[np.integer]] | None = None,
    record_index: Sequence[int] | None = None,
    content: Sequence[tuple[int, int]] | None = None,
    pair_content: Sequence[tuple[int, int] | None] | None = None,
    own: Sequence[tuple[int, int]] | None = None,
    content_offset: Sequence[int] | None = None,
    counts: Sequence[int] | None = None,
    cls_index: int | None = 0,
) -> PackedBatch:
    """Lays sequences end to end.

    Args:
        sequences: B arrays of token ids, each with at least one token; the windows of a text one after the other.
        position_ids: ids of one sequence -> its positions, as `PositionTable.position_ids`.
        token_type_ids: B arrays beside `sequences`; None: type 0 everywhere.
        record_index: N record numbers; 0..N-1 if None.
        content: B pairs (begin, end) inside the sequence; the whole sequence if None.
        pair_content: B of them for second texts, None where a sequence has none; None: no sequence has one.
        own: B pairs (begin, end) inside the sequence: its text's own rows; the whole sequence if None.
        content_offset: B numbers, see `PackedBatch`; zeros if None.
        counts: N sequences a text; one each if None.
        cls_index: index of the CLS token inside each sequence (-1: the last), or None: there is none.
    """
    lengths = np.fromiter((len(ids) for ids in sequences), dtype=np.int32, count=len(sequences))
    if len(sequences) == 0 or lengths.min() == 0:
        raise ValueError("a packed batch needs at least one sequence, and each at least one token")
    cu_seqlens = np.zeros(len(sequences) + 1, dtype=np.int32)
    np.cumsum(lengths, out=cu_seqlens[1:])
    begins, ends = cu_seqlens[:-1], cu_seqlens[1:]
    packed_ids = np.concatenate(sequences).astype(np.int32, copy=False)

    def inside(pairs: Sequence[tuple[int, int]] | None) -> tuple[IntArray, IntArray]:
        if pairs is None:
            return begins, ends
        ranges = np.array(pairs, dtype=np.int32).reshape(-1, 2)
        return begins + ranges[:, 0], begins + ranges[:, 1]

    num_texts = len(sequences) if counts is None else len(counts)
    content_begin, content_end = inside(content)
    own_begin, own_end = inside(own)
    pairs = None if pair_content is None else inside([(0, 0) if seen is None else seen for seen in pair_content])
    return PackedBatch(
        input_ids=packed_ids,
        position_ids=np.concatenate([position_ids(packed_ids[b:e]) for b, e in zip(begins, ends, strict=True)]),
        token_type_ids=None if token_type_ids is None else np.concatenate(token_type_ids).astype(np.int32, copy=False),
        cu_seqlens=cu_seqlens,
        max_seqlen=int(lengths.max()),
        record_index=np.arange(num_texts, dtype=np.int64)
        if record_index is None
        else np.asarray(record_index, dtype=np.int64),
        sequences=np.arange(num_texts + 1, dtype=np.int32)
        if counts is None
        else np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
        content_begin=content_begin,
        content_end=content_end,
        pair_begin=None if pairs is None else pairs[0],
        pair_end=None if pairs is None else pairs[1],
        own_begin=own_begin,
        own_end=own_end,
        content_offset=np.zeros(len(sequences), dtype=np.int32)
        if content_offset is None
        else np.asarray(content_offset, dtype=np.int32),
        cls_rows=None if cls_index is None else (begins if cls_index >= 0 else ends) + np.int32(cls_index),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Segments:
    """S groups of rows of a packed batch; a group is a union of row ranges and may overlap others.

    Attributes:
        begin, end: int32 [R], row ranges, `end` exclusive; empty ranges are allowed.
        offsets: int32 [S+1]; segment s owns ranges `offsets[s]:offsets[s+1]`, in row order.
        weights: float32 [T] that `sum` multiplies rows with, or None for ones.
        texts: int32 [N+1]; text n owns segments `texts[n]:texts[n+1]`; None: one each.

    A segment without rows reduces to zeros under every operation.
    """

    begin: IntArray
    end: IntArray
    offsets: IntArray
    weights: npt.NDArray[np.float32] | None = None
    texts: IntArray | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def is_simple(self) -> bool:
        """One range a segment (the only kind that sequence pooling makes)."""
        return np.array_equal(self.offsets, np.arange(len(self.begin) + 1))

    def counts(self) -> npt.NDArray[np.int64]:
        """int64 [S], rows a segment."""
        lengths = np.concatenate([[0], np.cumsum(self.end.astype(np.int64) - self.begin)])
        counts: npt.NDArray[np.int64] = lengths[self.offsets[1:]] - lengths[self.offsets[:-1]]
        return counts

    def rows(self) -> npt.NDArray[np.int64]:
        """int64, the rows of all segments, segment by segment."""
        lengths = (self.end - self.begin).astype(np.int64)
        shift = self.begin - np.concatenate([[0], np.cumsum(lengths)[:-1]])
        rows: npt.NDArray[np.int64] = np.arange(lengths.sum()) + np.repeat(shift, lengths)
        return rows


def simple_segments(begin: IntArray, end: IntArray, *, weights: npt.NDArray[np.float32] | None = None) -> Segments:
    """Return one row range a segment."""
    return Segments(
        begin=np.asarray(begin, dtype=np.int32),
        end=np.asarray(end, dtype=np.int32),
        offsets=np.arange(len(begin) + 1, dtype=np.int32),
        weights=weights,
    )
