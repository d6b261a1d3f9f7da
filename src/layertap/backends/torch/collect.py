"""Collection of captures from hidden states as they appear; everything else is dropped."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from layertap.backends.torch.devices import upload
from layertap.backends.torch.reduce import EdgeRows, SegmentRows
from layertap.features.program import Capture, Program, SegmentKind
from layertap.packing import Segments


class Collector:
    """Collector of a program's captures, except those of attention: folds over layers, then reduces over segments.

    Call `take` for every state in order; each capture is handed to `store` as soon as it is known. Where the program
    captures the pooler, `pooler_rows` [S, H] are the inputs of the pooler, and `take_pooled` stores its output.

    Args:
        program: the captures.
        segments: `Segments` of every kind that a capture names; their indices are copied to the device at once.
        num_rows: T.
        kept: int32 [Q], the only rows of state `program.stop` that there will be; None: all.
        device: where the states are.
        store: function called with each capture and its result.
    """

    def __init__(
        self,
        program: Program,
        segments: Mapping[SegmentKind, Segments],
        num_rows: int,
        kept: npt.NDArray[np.int32] | None,
        device: torch.device,
        store: Callable[[Capture, Tensor], None],
    ) -> None:
        assert len(set(program.captures)) == len(program.captures), "a capture given twice would be folded twice"
        self.captures = tuple(capture for capture in program.captures if capture.attention is None)
        self.pooler_rows: Tensor | None = None
        self._store = store
        self._sums: dict[Capture, Tensor] = {}
        self._stop = program.stop
        self._kept = None if kept is None else upload(kept, device, torch.int64)
        self._rows: dict[tuple[SegmentKind, bool], SegmentRows] = {}
        self._edges: dict[Capture, EdgeRows] = {}
        for capture in self.captures:
            if capture.segments is None or capture.reduce is None:
                continue
            of_capture = segments[capture.segments]
            kept_here = kept if capture.layers[-1] == program.stop else None
            if capture.reduce in ("first", "last"):
                edges = of_capture if kept_here is None else _edge_only(of_capture, capture.reduce, kept_here)
                self._edges[capture] = EdgeRows(edges, capture.reduce, device)
            elif (capture.segments, kept_here is not None) not in self._rows:
                present = of_capture if kept_here is None else _renumbered(of_capture, kept_here)
                rows = num_rows if kept_here is None else len(kept_here)
                self._rows[capture.segments, kept_here is not None] = SegmentRows(present, rows, device)

    def take(
        self,
        layer: int,
        hidden_TH: Tensor,
        *,
        unnormed: bool | None = None,
    ) -> None:
        """Take hidden state `layer`: [T, H], or [Q, H] of the only rows that are kept of state `program.stop`.

        A model with a final norm has its last state twice; `unnormed` says whether this is the one before the norm.
        """
        for capture in self.captures:
            if layer not in capture.layers or unnormed not in (None, capture.unnormed):
                continue
            folded_TH = self._fold(capture, layer, hidden_TH)
            if layer == capture.layers[-1]:
                reduced = self._reduce(capture, folded_TH)
                if capture.pooler:
                    self.pooler_rows = reduced
                else:
                    self._store(capture, reduced)

    def wants(self, layer: int, *, unnormed: bool) -> bool:
        """Return whether a capture needs state `layer` before the final norm (`unnormed`), or after it."""
        return any(layer in capture.layers and capture.unnormed == unnormed for capture in self.captures)

    def take_pooled(self, pooled_SH: Tensor) -> None:
        """Store the output of the pooler as the capture that asked for it."""
        for capture in self.captures:
            if capture.pooler:
                self._store(capture, pooled_SH)

    def _fold(self, capture: Capture, layer: int, hidden_TH: Tensor) -> Tensor:
        if len(capture.layers) == 1 and capture.weights is None:
            return hidden_TH
        part_TH = hidden_TH.float()
        if capture.weights is not None:
            part_TH = part_TH * capture.weights[capture.layers.index(layer)]
        so_far_TH = self._sums.pop(capture, None)
        if so_far_TH is not None:
            if self._kept is not None and layer == self._stop:
                so_far_TH = so_far_TH[self._kept]
            part_TH = torch.maximum(so_far_TH, part_TH) if capture.fold == "max" else so_far_TH + part_TH
        if layer != capture.layers[-1]:
            self._sums[capture] = part_TH
        return part_TH

    def _reduce(self, capture: Capture, folded_TH: Tensor) -> Tensor:
        if capture.segments is None or capture.reduce is None:
            assert self._kept is None or capture.layers[-1] != self._stop, "every row cannot come from pruned rows"
            return folded_TH
        if capture in self._edges:
            return self._edges[capture].take(folded_TH)
        pruned = self._kept is not None and capture.layers[-1] == self._stop
        return self._rows[capture.segments, pruned].reduce(folded_TH, capture.reduce)


def _renumbered(segments: Segments, kept: npt.NDArray[np.int32]) -> Segments:
    """Renumber segments to the `kept` rows, which hold them entirely."""
    return Segments(
        begin=np.searchsorted(kept, segments.begin).astype(np.int32),
        end=np.searchsorted(kept, segments.end).astype(np.int32),
        offsets=segments.offsets,
        weights=None if segments.weights is None else segments.weights[kept],
    )


def _edge_only(segments: Segments, edge: str, kept: npt.NDArray[np.int32]) -> Segments:
    """Renumber segments of which only the first or last row is certain to be kept."""
    filled = segments.begin < segments.end
    begin, end = segments.begin, segments.end
    if edge == "first":
        end = np.where(filled, begin + 1, begin)
    else:
        begin = np.where(filled, end - 1, end)
    return _renumbered(Segments(begin=begin, end=end, offsets=segments.offsets), kept)
