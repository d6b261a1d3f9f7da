"""Rows of the sequences of a packed batch, on the processor and on the device.

Shape letters: B sequences, T packed tokens, Q query rows; n sequences of t tokens and q queries each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from layertap.backends.torch.devices import upload


@dataclass(frozen=True, slots=True, eq=False)
class RowsOn:
    """Rows of a layout as tensors of one device.

    Attributes:
        cu_seqlens, cu_queries: int32 [B+1], as in `Layout`; one tensor where every token is a query.
        query_positions: int64 [Q], position of each query in its sequence; None where every token is a query.
        query_rows: int64 [Q], row of each query among T; None where every token is a query.
    """

    cu_seqlens: Tensor
    cu_queries: Tensor
    query_positions: Tensor | None = None
    query_rows: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """Run of neighbouring sequences of equal length: n sequences of t tokens with q queries each.

    Attributes:
        begin: first key row.
        query_begin: first query row (equal to `begin` where every token is a query).
        count: n, number of sequences.
        length: t, number of tokens of each sequence.
        queries: number of query rows of each sequence (equal to `length` where every token is a query).
    """

    begin: int
    query_begin: int
    count: int
    length: int
    queries: int


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Rows of each sequence of a packed batch, for keys and for queries.

    Attributes:
        lengths: number of tokens of each of the B sequences.
        queries: number of query rows of each sequence; equal to `lengths` where every token is a query.
        runs: the sequences as runs of equal ones; those without queries are left out.
        query_positions: int64 [Q], position of each query in its sequence; None where every token is a query.
    """

    lengths: tuple[int, ...]
    queries: tuple[int, ...]
    runs: tuple[Run, ...]
    query_positions: npt.NDArray[np.int64] | None = None
    _whole: Layout | None = field(default=None, repr=False)
    _on: dict[torch.device, RowsOn] = field(default_factory=dict, repr=False)
    _near: dict[tuple[torch.device, int], tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)

    @property
    def cu_seqlens(self) -> npt.NDArray[np.int32]:
        """First key row of each sequence, and T: int32 [B+1]."""
        return _cumulative(self.lengths)

    @property
    def cu_queries(self) -> npt.NDArray[np.int32]:
        """First query row of each sequence, and Q: int32 [B+1]."""
        return _cumulative(self.queries)

    def on(self, device: torch.device) -> RowsOn:
        """Return the rows as tensors of a device; they are copied there once."""
        if device not in self._on:
            self._on[device] = self._copied_to(device)
        return self._on[device]

    def _copied_to(self, device: torch.device) -> RowsOn:
        cu_seqlens = upload(self.cu_seqlens, device) if self._whole is None else self._whole.on(device).cu_seqlens
        if self.query_positions is None:
            return RowsOn(cu_seqlens, cu_seqlens)
        rows = self.query_positions + np.repeat(self.cu_seqlens[:-1], self.queries)
        positions, rows_on_device = upload(np.stack([self.query_positions, rows]), device)
        return RowsOn(cu_seqlens, upload(self.cu_queries, device), positions, rows_on_device)

    @classmethod
    def of(cls, lengths: Sequence[int]) -> Layout:
        """Return the layout of packed sequences in which all tokens are queries."""
        return cls(tuple(lengths), tuple(lengths), _runs(lengths, lengths))

    @property
    def whole(self) -> Layout:
        """The layout of the same sequences in which all tokens are queries."""
        return self if self._whole is None else self._whole

    def near(self, device: torch.device, window: int, block: int, columns: int) -> tuple[Tensor, Tensor]:
        """Return, for blocks of packed rows, the rows within reach of a window; computed on the device, once.

        Args:
            device: where the rows are.
            window: largest distance at which tokens attend to each other.
            block: b, number of rows of a block; the last block is filled up with rows past T.
            columns: divisor of k.

        Returns:
            int64 [N, k], rows whose keys a block sees; bool [N, b, k], which of them each of its rows attends to.
        """
        key = (device, window)
        if key not in self._near:
            rows = sum(self.lengths)
            width = block + 2 * window
            width += -width % columns
            firsts_N = torch.arange(0, rows, block, device=device)
            keys_Nk = firsts_N[:, None] - window + torch.arange(width, device=device)
            queries_Nb = firsts_N[:, None] + torch.arange(block, device=device)
            ends_B = self.on(device).cu_seqlens[1:]
            own_Nb, of_key_Nk = (torch.bucketize(some, ends_B, right=True) for some in (queries_Nb, keys_Nk))
            apart_Nbk = (queries_Nb[:, :, None] - keys_Nk[:, None, :]).abs()
            allowed_Nbk = (apart_Nbk <= window) & (own_Nb[:, :, None] == of_key_Nk[:, None, :])
            # A row before the first one counts as one of the first sequence. Rows past the last one see each other,
            # as a row that sees nothing would have no finite result.
            allowed_Nbk &= (keys_Nk >= 0)[:, None, :]
            self._near[key] = keys_Nk.clamp(0, rows - 1), allowed_Nbk
        return self._near[key]

    def with_queries(self, rows: npt.NDArray[np.int32]) -> Layout:
        """Return the layout of these sequences with only some rows (ascending) as queries."""
        starts = self.cu_seqlens
        bounds = np.searchsorted(rows, starts)
        queries = tuple(int(end - begin) for begin, end in pairwise(bounds))
        positions = rows.astype(np.int64) - np.repeat(starts[:-1], queries)
        return Layout(self.lengths, queries, _runs(self.lengths, queries), positions, self.whole)

    def positions_in(self, run: Run) -> npt.NDArray[np.int64]:
        """Return int64 [n, q], positions of a run's queries in their sequences; [1, q] where every token is a query."""
        if self.query_positions is None:
            first = run.query_begin - run.begin  # 0, except in a part of one sequence
            return np.arange(first, first + run.queries)[None]
        own = self.query_positions[run.query_begin : run.query_begin + run.count * run.queries]
        return own.reshape(run.count, run.queries)


def _cumulative(numbers: Sequence[int]) -> npt.NDArray[np.int32]:
    return np.concatenate([[0], np.cumsum(numbers)]).astype(np.int32)


def _runs(lengths: Sequence[int], queries: Sequence[int]) -> tuple[Run, ...]:
    runs: list[Run] = []
    row = query_row = 0
    for length, asked in zip(lengths, queries, strict=True):
        last = runs[-1] if runs else None
        if last and (last.length, last.queries) == (length, asked) and last.begin + last.count * length == row:
            runs[-1] = Run(last.begin, last.query_begin, last.count + 1, length, asked)
        elif asked:
            runs.append(Run(row, query_row, 1, length, asked))
        row += length
        query_row += asked
    return tuple(runs)


Bias: TypeAlias = Callable[[Run, Tensor, Tensor], Tensor]
"""Function (run, query [n, A, q, D], key [n, A, t, D]) -> [n or 1, A, q, t], added to the run's scaled scores."""
