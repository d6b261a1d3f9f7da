"""Segments of a packed batch: the rows of each text, word, span or window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from layertap.features.program import SegmentKind
from layertap.packing import IntArray, PackedBatch, Segments, simple_segments

STRIDE = 1 << 40
"""Upper bound of the tokens of a text: token i of text n has the number `n * STRIDE + i`, and one search finds all."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UnitRows:
    """Words or spans of the N texts of a batch.

    Attributes:
        ranges: int32 [S, 2], tokens [begin, end) of each word or span in its text, special tokens of the template not
            counted; a range may be empty.
        texts: int32 [N+1]; text n owns `ranges[texts[n]:texts[n+1]]`.
    """

    ranges: IntArray
    texts: IntArray


def segments_of(
    batch: PackedBatch,
    kind: SegmentKind,
    *,
    prompt_rows: int = 0,
    units: Mapping[SegmentKind, UnitRows] | None = None,
) -> Segments:
    """Return the segments of one kind.

    Args:
        batch: packed sequences.
        kind: kind of the segments.
        prompt_rows: number of rows of each text that the prompt takes, special tokens before it included; a text that
            is cut on the left, or a later window, has fewer of them.
        units: words or spans of the texts, where `kind` is one of these.
    """
    if kind in ("words", "spans"):
        assert units is not None
        return _units(batch, units[kind])
    if kind == "windows":
        begin, end = batch.cu_seqlens[:-1], batch.cu_seqlens[1:]
        return _by_text(begin, end, np.arange(len(batch) + 1, dtype=np.int32), texts=batch.sequences)
    if kind == "cls":
        assert batch.cls_rows is not None, "the plan lets no cls through where the template has none"
        one_each = np.arange(len(batch) + 1, dtype=np.int32)
        return _by_text(batch.cls_rows, batch.cls_rows + np.int32(1), one_each, texts=batch.sequences)
    begin, end, offsets = batch.own_begin, batch.own_end, batch.sequences
    if kind in ("content", "content_by_position"):
        begin, end, offsets = _content(batch)
    elif kind in ("after_prompt", "after_prompt_by_position"):
        template = np.minimum(prompt_rows, batch.content_begin - batch.cu_seqlens[:-1])
        prompt_end = batch.cu_seqlens[:-1] + np.maximum(prompt_rows - batch.content_offset, template)
        begin = np.minimum(np.maximum(begin, prompt_end), end).astype(np.int32)
    weights = _positions(batch, content=kind == "content_by_position") if kind.endswith("by_position") else None
    return _by_text(begin, end, offsets, weights=weights)


def _by_text(
    begin: IntArray,
    end: IntArray,
    offsets: IntArray,
    *,
    weights: npt.NDArray[np.float32] | None = None,
    texts: IntArray | None = None,
) -> Segments:
    if texts is None and len(offsets) == len(begin) + 1:
        return simple_segments(begin, end, weights=weights)
    return Segments(begin=begin, end=end, offsets=offsets, weights=weights, texts=texts)


def _content(batch: PackedBatch) -> tuple[IntArray, IntArray, IntArray]:
    """Return (begin, end, offsets) of each text's tokens without special tokens; of a pair, those of both texts."""
    begin = np.clip(batch.content_begin, batch.own_begin, batch.own_end)
    end = np.clip(batch.content_end, begin, batch.own_end)
    if batch.pair_begin is None or batch.pair_end is None:
        return begin, end, batch.sequences
    return (
        np.stack([begin, batch.pair_begin], axis=1).ravel(),
        np.stack([end, batch.pair_end], axis=1).ravel(),
        batch.sequences * np.int32(2),
    )


def _positions(batch: PackedBatch, *, content: bool) -> npt.NDArray[np.float32]:
    """Return float32 [T], the position of each row in its text, counted from 1.

    Tokens that were cut off do not count; with `content`, special tokens of the template do not count either.
    """
    first = batch.content_begin if content else batch.cu_seqlens[:-1]
    cut = np.repeat(batch.content_offset[batch.sequences[:-1]], np.diff(batch.sequences))
    shift = first - (batch.content_offset - cut)
    positions = np.arange(1, batch.num_tokens + 1, dtype=np.int64) - np.repeat(shift, batch.lengths)
    if content and batch.pair_begin is not None and batch.pair_end is not None:
        # A single text beside pairs has an empty second text, which stands nowhere.
        gap = np.where(batch.pair_end > batch.pair_begin, batch.pair_begin - batch.content_end, 0)
        after = np.arange(batch.num_tokens) >= np.repeat(batch.pair_begin, batch.lengths)
        positions = positions - np.repeat(gap, batch.lengths) * after
    weights: npt.NDArray[np.float32] = positions.astype(np.float32)
    return weights


def _units(batch: PackedBatch, units: UnitRows) -> Segments:
    """Convert words or spans to rows: those that windows own; tokens that were cut off have none."""
    text_of = np.repeat(np.arange(batch.num_texts), np.diff(batch.sequences)).astype(np.int64)
    base = text_of * STRIDE + batch.content_offset
    own_begin = np.clip(batch.own_begin, batch.content_begin, batch.content_end)
    own_end = np.clip(batch.own_end, own_begin, batch.content_end)
    first, last = base + (own_begin - batch.content_begin), base + (own_end - batch.content_begin)
    unit_base = np.repeat(np.arange(batch.num_texts), np.diff(units.texts)).astype(np.int64) * STRIDE
    begin, end = unit_base + units.ranges[:, 0], unit_base + units.ranges[:, 1]
    lowest = np.searchsorted(last, begin, side="right")
    highest = np.searchsorted(first, end, side="left")
    counts = np.where(begin < end, np.maximum(highest - lowest, 0), 0)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    unit = np.repeat(np.arange(len(counts)), counts)
    sequence = lowest[unit] + np.arange(offsets[-1]) - offsets[:-1][unit]
    to_row = batch.content_begin[sequence] - base[sequence]
    return Segments(
        begin=(np.maximum(begin[unit], first[sequence]) + to_row).astype(np.int32),
        end=(np.minimum(end[unit], last[sequence]) + to_row).astype(np.int32),
        offsets=offsets.astype(np.int32),
        texts=units.texts,
    )
