"""Collection of captures from hidden states as they appear; everything else is dropped."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from layertap.backends.torch.reduce import SegmentRows, edge_rows
from layertap.features.program import Capture, Program, SegmentKind
from layertap.packing import Segments


class Collector:
    """Collector of a program's captures, except those of attention: folds over layers, then reduces over segments.

    Call `take` for every state in order; afterwards `results` holds the captures. Where the program captures the
    pooler, `pooler_rows` [S, H] are the inputs of the pooler, and `take_pooled` stores its output.
    """

    def __init__(self, program: Program, segments: Mapping[SegmentKind, Segments], device: torch.device) -> None:
        assert len(set(program.captures)) == len(program.captures), "a capture given twice would be folded twice"
        self.captures = tuple(capture for capture in program.captures if capture.attention is None)
        self.segments = segments
        self.device = device
        self.results: dict[Capture, Tensor] = {}
        self.pooler_rows: Tensor | None = None
        self._sums: dict[Capture, Tensor] = {}
        self._rows: dict[tuple[SegmentKind, bool], SegmentRows] = {}

    def take(
        self,
        layer: int,
        hidden_TH: Tensor,
        kept: npt.NDArray[np.int32] | None = None,
        *,
        unnormed: bool | None = None,
    ) -> None:
        """Take hidden state `layer`: [T, H], or [Q, H] where it has only the rows `kept` (int32 [Q]) of all T.

        A model with a final norm has its last state twice; `unnormed` says whether this is the one before the norm.
        """
        for capture in self.captures:
            if layer not in capture.layers or unnormed not in (None, capture.unnormed):
                continue
            folded_TH = self._fold(capture, layer, hidden_TH, kept)
            if layer == capture.layers[-1]:
                reduced = self._reduce(capture, folded_TH, kept)
                if capture.pooler:
                    self.pooler_rows = reduced
                else:
                    self.results[capture] = reduced

    def wants(self, layer: int, *, unnormed: bool) -> bool:
        """Return whether a capture needs state `layer` before the final norm (`unnormed`), or after it."""
        return any(layer in capture.layers and capture.unnormed == unnormed for capture in self.captures)

    def take_pooled(self, pooled_SH: Tensor) -> None:
        """Store the output of the pooler as the capture that asked for it."""
        for capture in self.captures:
            if capture.pooler:
                self.results[capture] = pooled_SH

    def _fold(self, capture: Capture, layer: int, hidden_TH: Tensor, kept: npt.NDArray[np.int32] | None) -> Tensor:
        if len(capture.layers) == 1 and capture.weights is None:
            return hidden_TH
        part_TH = hidden_TH.float()
        if capture.weights is not None:
            part_TH = part_TH * capture.weights[capture.layers.index(layer)]
        so_far_TH = self._sums.pop(capture, None)
        if so_far_TH is not None:
            if kept is not None:
                so_far_TH = so_far_TH[torch.as_tensor(kept, device=self.device)]
            part_TH = torch.maximum(so_far_TH, part_TH) if capture.fold == "max" else so_far_TH + part_TH
        if layer != capture.layers[-1]:
            self._sums[capture] = part_TH
        return part_TH

    def _reduce(self, capture: Capture, folded_TH: Tensor, kept: npt.NDArray[np.int32] | None) -> Tensor:
        if capture.segments is None or capture.reduce is None:
            assert kept is None, "a capture of every row cannot come from pruned rows"
            return folded_TH
        segments = self.segments[capture.segments]
        if capture.reduce in ("first", "last"):
            return edge_rows(
                folded_TH,
                segments if kept is None else _edge_only(segments, capture.reduce, kept),
                capture.reduce,
            )
        key = (capture.segments, kept is not None)
        if key not in self._rows:
            present = segments if kept is None else _renumbered(segments, kept)
            self._rows[key] = SegmentRows(present, len(folded_TH), self.device)
        return self._rows[key].reduce(folded_TH, capture.reduce)


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
