"""Differentiable segment reductions in torch.

Shape letters: T packed rows, H hidden size, S segments, R row ranges, N rows that belong to segments.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from layertap.backends.torch.devices import kind_of, upload
from layertap.features.program import Reduce
from layertap.packing import Segments


class SegmentRows:
    """Index form of `Segments` on one device: every row that belongs to a segment, and its segment.

    Attributes:
        count: S, the number of segments.
        rows: int64 [N], rows in the order of segments, or None where they are 0..T-1.
        owners: int64 [N], index of the segment of each row.
        lengths: int64 [S], number of rows of each segment.
        weights: float32 [N, 1], weight of each row, or None where all weights are one.
    """

    def __init__(self, segments: Segments, num_rows: int, device: torch.device) -> None:
        lengths = (segments.end - segments.begin).astype(np.int64)
        owner_of_range = np.repeat(np.arange(len(segments)), np.diff(segments.offsets))
        rows = segments.rows()
        covers_all = len(rows) == num_rows and bool((rows == np.arange(num_rows)).all())
        self.count = len(segments)
        self.rows = None if covers_all else upload(rows, device)
        self.owners = upload(np.repeat(owner_of_range, lengths), device)
        self.lengths = upload(segments.counts(), device)
        self.weights = None if segments.weights is None else upload(segments.weights[rows], device).unsqueeze(1)

    def reduce(self, hidden_TH: Tensor, operation: Reduce) -> Tensor:
        """Reduce rows to float32 [S, H]; segments without rows are zero. `sum` is weighted and not divided."""
        rows_NH = (hidden_TH if self.rows is None else hidden_TH[self.rows]).float()
        if operation == "sum" and self.weights is not None:
            rows_NH = rows_NH * self.weights
        if operation == "sum" and kind_of(rows_NH.device) == "cuda":
            # Each sum is added up in the order of rows, so that its bits are always the same. `index_add` adds rows in
            # the order in which they happen to be ready. The lengths are right, and checking them waits for the device.
            return torch.segment_reduce(rows_NH, "sum", lengths=self.lengths, axis=0, unsafe=True)
        result_SH = rows_NH.new_zeros(self.count, rows_NH.shape[1])
        if operation == "sum":
            return result_SH.index_add(0, self.owners, rows_NH)
        owners_NH = self.owners.unsqueeze(1).expand_as(rows_NH)
        how = {"max": "amax", "min": "amin"}[operation]
        return result_SH.scatter_reduce(0, owners_NH, rows_NH, how, include_self=False)


class EdgeRows:
    """Index form of the first or last rows of `Segments` on one device.

    Attributes:
        rows: int64 [S], the row of each segment.
        empty: bool [S, 1], whether a segment has no rows; None where all have some.
    """

    def __init__(self, segments: Segments, operation: Reduce, device: torch.device) -> None:
        rows, filled = _edges(segments, operation)
        self.rows = upload(rows, device)
        self.empty = None if filled.all() else upload(~filled, device).unsqueeze(1)

    def take(self, hidden_TH: Tensor) -> Tensor:
        """Return the rows as float32 [S, H]; segments without rows are zero."""
        edge_SH = hidden_TH[self.rows].float()
        # A product with zero would not do: the row taken in its place may hold infinity.
        return edge_SH if self.empty is None else edge_SH.masked_fill(self.empty, 0)


def _edges(segments: Segments, operation: Reduce) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return the first or last row of each segment, int64 [S] (0 where it has none), and bool [S]: it has one."""
    rows = np.zeros(len(segments), dtype=np.int64)
    filled = np.zeros(len(segments), dtype=bool)
    owner = np.repeat(np.arange(len(segments)), np.diff(segments.offsets))
    ranges = np.flatnonzero(segments.begin < segments.end)
    if operation == "first":
        ranges = ranges[::-1]  # the last assignment wins, so the first range comes last
        rows[owner[ranges]] = segments.begin[ranges]
    else:
        rows[owner[ranges]] = segments.end[ranges] - 1
    filled[owner[ranges]] = True
    return rows, filled
