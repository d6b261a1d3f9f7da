"""Sequences laid end to end: `PackedBatch` and `Segments`.

There is no padding and no mask. Shape letters: B sequences, T packed tokens, S segments, R row ranges.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PackedBatch:
    """B sequences of token ids laid end to end, T tokens in all.

    Attributes:
        input_ids: int32 [T].
        position_ids: int32 [T], each sequence's own (see `models.spec.PositionTable`).
        token_type_ids: int32 [T], or None: type 0 everywhere.
        cu_seqlens: int32 [B+1]; sequence b owns rows `cu_seqlens[b]:cu_seqlens[b+1]`.
        max_seqlen: tokens of the longest sequence.
        record_index: int64 [B], whose sequence it is.
        content_begin, content_end: int32 [B], rows of the text's own tokens, without the special tokens
            that the template adds (`begin == end` for an empty text).
        cls_rows: int32 [B], row of the template's CLS token, or None where the template has none.
    """

    input_ids: IntArray
    position_ids: IntArray
    token_type_ids: IntArray | None
    cu_seqlens: IntArray
    max_seqlen: int
    record_index: npt.NDArray[np.int64]
    content_begin: IntArray
    content_end: IntArray
    cls_rows: IntArray | None

    def __len__(self) -> int:
        return len(self.cu_seqlens) - 1

    @property
    def num_tokens(self) -> int:
        """T, the packed tokens."""
        return len(self.input_ids)

    @property
    def lengths(self) -> IntArray:
        """int32 [B], tokens a sequence."""
        return np.diff(self.cu_seqlens)


def pack(
    sequences: Sequence[npt.NDArray[np.integer]],
    *,
    position_ids: Callable[[IntArray], IntArray],
    token_type_ids: Sequence[npt.NDArray[np.integer]] | None = None,
    record_index: Sequence[int] | None = None,
    content: Sequence[tuple[int, int]] | None = None,
    cls_index: int | None = 0,
) -> PackedBatch:
    """Lays sequences end to end.

    Args:
        sequences: B arrays of token ids, each with at least one token.
        position_ids: ids of one sequence -> its positions, as `PositionTable.position_ids`.
        token_type_ids: B arrays beside `sequences`; None: type 0 everywhere.
        record_index: B record numbers; 0..B-1 if None.
        content: B pairs (begin, end) inside the sequence; the whole sequence if None.
        cls_index: index of the CLS token inside each sequence (-1: the last), or None: there is none.
    """
    lengths = np.fromiter((len(ids) for ids in sequences), dtype=np.int32, count=len(sequences))
    if len(sequences) == 0 or lengths.min() == 0:
        raise ValueError("a packed batch needs at least one sequence, and each at least one token")
    cu_seqlens = np.zeros(len(sequences) + 1, dtype=np.int32)
    np.cumsum(lengths, out=cu_seqlens[1:])
    begins, ends = cu_seqlens[:-1], cu_seqlens[1:]
    packed_ids = np.concatenate(sequences).astype(np.int32, copy=False)
    inside = np.array(content, dtype=np.int32).reshape(-1, 2) if content is not None else None
    return PackedBatch(
        input_ids=packed_ids,
        position_ids=np.concatenate([position_ids(packed_ids[b:e]) for b, e in zip(begins, ends, strict=True)]),
        token_type_ids=None if token_type_ids is None else np.concatenate(token_type_ids).astype(np.int32, copy=False),
        cu_seqlens=cu_seqlens,
        max_seqlen=int(lengths.max()),
        record_index=np.arange(len(sequences), dtype=np.int64)
        if record_index is None
        else np.asarray(record_index, dtype=np.int64),
        content_begin=begins if inside is None else begins + inside[:, 0],
        content_end=ends if inside is None else begins + inside[:, 1],
        cls_rows=None if cls_index is None else (begins if cls_index >= 0 else ends) + np.int32(cls_index),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Segments:
    """S groups of rows of a packed batch; a group is a union of row ranges and may overlap others.

    Attributes:
        begin, end: int32 [R], row ranges, `end` exclusive; empty ranges are allowed.
        offsets: int32 [S+1]; segment s owns ranges `offsets[s]:offsets[s+1]`, in row order.
        weights: float32 [T] that `sum` multiplies rows with, or None for ones.

    A segment without rows reduces to zeros under every operation.
    """

    begin: IntArray
    end: IntArray
    offsets: IntArray
    weights: npt.NDArray[np.float32] | None = None

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


def simple_segments(begin: IntArray, end: IntArray, *, weights: npt.NDArray[np.float32] | None = None) -> Segments:
    """One row range a segment."""
    return Segments(
        begin=np.asarray(begin, dtype=np.int32),
        end=np.asarray(end, dtype=np.int32),
        offsets=np.arange(len(begin) + 1, dtype=np.int32),
        weights=weights,
    )
