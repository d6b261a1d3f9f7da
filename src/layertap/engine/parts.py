"""Runs of one long text in parts, with the results of a single run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from layertap.backends.base import Backend, FloatArray, Started
from layertap.features.program import Capture, Program, SegmentKind
from layertap.packing import PackedBatch, Segments


def start_in_parts(
    backend: Backend,
    program: Program,
    batch: PackedBatch,
    segments: Mapping[SegmentKind, Segments],
    *,
    batch_tokens: int,
) -> Started:
    """Call `backend.start`; a text with more windows than fit into `batch_tokens` is run some windows at a time."""
    if batch.num_texts > 1 or len(batch) == 1 or batch.num_tokens <= batch_tokens:
        return backend.start(program, batch, segments)
    captures = _run_in_parts(backend, program, batch, segments, batch_tokens)
    return lambda: captures


def _run_in_parts(
    backend: Backend,
    program: Program,
    batch: PackedBatch,
    segments: Mapping[SegmentKind, Segments],
    batch_tokens: int,
) -> dict[Capture, FloatArray]:
    joined: dict[Capture, _Joined] = {}
    states: dict[Capture, list[FloatArray]] = {}
    for begin, end in _parts(batch, batch_tokens):
        first, last = int(batch.cu_seqlens[begin]), int(batch.cu_seqlens[end])
        inside = {kind: _within(rows, first, last) for kind, rows in segments.items()}
        part = backend.run(program, batch.part(begin, end), {kind: rows for kind, (rows, _) in inside.items()})
        for capture, values in part.items():
            if capture.segments is None:
                states.setdefault(capture, []).append(values)
                continue
            if capture not in joined:
                joined[capture] = _Joined(capture, len(segments[capture.segments]), values.shape[1])
            joined[capture].add(values, inside[capture.segments][1])
    return {capture: whole.values for capture, whole in joined.items()} | {
        capture: np.concatenate(parts) for capture, parts in states.items()
    }


def _parts(batch: PackedBatch, batch_tokens: int) -> Iterator[tuple[int, int]]:
    """Yield (begin, end) of sequences that fit into the budget together, at least one at a time."""
    begin = 0
    while begin < len(batch):
        room = batch.cu_seqlens[begin] + batch_tokens
        end = max(begin + 1, int(np.searchsorted(batch.cu_seqlens, room, side="right")) - 1)
        yield begin, min(end, len(batch))
        begin = end


def _within(segments: Segments, first: int, last: int) -> tuple[Segments, npt.NDArray[np.int64]]:
    """Return the segments that have rows in `first:last`, counted from `first`, and their indices (int64 [S'])."""
    owner = np.repeat(np.arange(len(segments)), np.diff(segments.offsets))
    here = (segments.begin < last) & (segments.end > first) & (segments.begin < segments.end)
    indices, counts = np.unique(owner[here], return_counts=True)
    part = replace(
        segments,
        begin=np.maximum(segments.begin[here], first) - np.int32(first),
        end=np.minimum(segments.end[here], last) - np.int32(first),
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
        weights=None if segments.weights is None else segments.weights[first:last],
        texts=None,
    )
    return part, indices


class _Joined:
    """Segments [S, H] of a capture, joined part by part; segments without rows stay zero."""

    def __init__(self, capture: Capture, num_segments: int, size: int) -> None:
        self.values: FloatArray = np.zeros((num_segments, size), dtype=np.float32)
        self._reduce = capture.reduce
        self._filled = np.zeros(num_segments, dtype=bool)

    def add(self, values: FloatArray, indices: npt.NDArray[np.int64]) -> None:
        """Add the segments of a part: their values float32 [S', H] and their indices."""
        so_far, filled = self.values[indices], self._filled[indices][:, None]
        match self._reduce:
            case "sum":
                joined = so_far + values
            case "first":
                joined = np.where(filled, so_far, values)
            case "last":
                joined = values
            case "max":
                joined = np.where(filled, np.maximum(so_far, values), values)
            case _:
                joined = np.where(filled, np.minimum(so_far, values), values)
        self.values[indices] = joined
        self._filled[indices] = True
