"""Differentiable segment reductions in torch.

Shape letters: T packed rows, H hidden size, S segments, R row ranges, N rows that belong to segments.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from layertap.features.program import Reduce
from layertap.packing import Segments


class SegmentRows:
    """Index form of `Segments` on one device: every row that belongs to a segment, and its segment.

    Attributes:
        count: S, the number of segments.
        rows: int64 [N], rows in the order of segments, or None where they are 0..T-1.
        owners: int64 [N], index of the segment of each row.
        weights: float32 [N, 1], weight of each row, or None where all weights are one.
    """

    def __init__(self, segments: Segments, num_rows: int, device: torch.device) -> None:
        lengths = (segments.end - segments.begin).astype(np.int64)
        owner_of_range = np.repeat(np.arange(len(segments)), np.diff(segments.offsets))
        rows = segments.rows()
        covers_all = len(rows) == num_rows and bool((rows == np.arange(num_rows)).all())
        self.count = len(segments)
        self.rows = None if covers_all else torch.as_tensor(rows, device=device)
        self.owners = torch.as_tensor(np.repeat(owner_of_range, lengths), device=device)
        self.weights = (
            None if segments.weights is None else torch.as_tensor(segments.weights[rows], device=device).unsqueeze(1)
        )

    def reduce(self, hidden_TH: Tensor, operation: Reduce) -> Tensor:
        """Reduce rows to float32 [S, H]; segments without rows are zero. `sum` is weighted and not divided."""
        rows_NH = (hidden_TH if self.rows is None else hidden_TH[self.rows]).float()
        result_SH = rows_NH.new_zeros(self.count, rows_NH.shape[1])
        if operation == "sum":
            return result_SH.index_add(0, self.owners, rows_NH if self.weights is None else rows_NH * self.weights)
        owners_NH = self.owners.unsqueeze(1).expand_as(rows_NH)
        how = {"max": "amax", "min": "amin"}[operation]
        return result_SH.scatter_reduce(0, owners_NH, rows_NH, how, include_self=False)


def edge_rows(hidden_TH: Tensor, segments: Segments, operation: Reduce) -> Tensor:
    """Return float32 [S, H], the `first` or `last` row of each segment; segments without rows are zero."""
    rows, filled = _edges(segments, operation)
    edge_SH = hidden_TH[torch.as_tensor(rows, device=hidden_TH.device)].float()
    if filled.all():
        return edge_SH
    # A product with zero would not do: the row taken in its place may hold infinity.
    return edge_SH.masked_fill(torch.as_tensor(~filled, device=hidden_TH.device).unsqueeze(1), 0)


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
