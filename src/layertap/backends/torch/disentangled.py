"""Disentangled attention (He et al. 2021): scores of tokens against vectors of distances, and DeBERTa's convolution.

Shape letters: T packed tokens, Q query rows, H hidden size, A heads, D head size, R distances, n sequences of one
length, t tokens and q queries of each, k rows that a convolution sees.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from layertap.backends.torch.blocks import by_rows
from layertap.backends.torch.devices import kind_of, upload
from layertap.backends.torch.layout import Bias, Layout, Run
from layertap.models.positions import Disentangled

LONGEST_SQUARE = 2048
"""Longest sequence for which the vectors of all pairs of places are looked up once for all layers, on CUDA."""


class DistanceTable(nn.Module):
    """Vectors of distances of `models.positions.Disentangled`, and their norm."""

    def __init__(self, spec: Disentangled, rel_embeddings: nn.Embedding, norm: nn.Module | None) -> None:
        super().__init__()
        self.spec = spec
        self.rel_embeddings = rel_embeddings
        self.LayerNorm = norm

    def forward(self) -> Tensor:
        """Return the vectors [R, H], normed where the encoder norms them."""
        table_RH = self.rel_embeddings.weight
        return table_RH if self.LayerNorm is None else self.LayerNorm(table_RH)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Distances:
    """Vectors of distances, and the index of the vector for each distance in one batch.

    Attributes:
        vectors: [R, H], normed.
        scale: factor of the scores.
        rows: int64 [2 t - 1], the vector of each distance from 1 - t to t - 1, where t is the longest sequence.
        rows_on_device: `rows` as a tensor on the device of the vectors.
        of_places: on CUDA int64 [t, t], the vector of each query place and key place; those of a shorter sequence are
            its upper left part. None where t exceeds `LONGEST_SQUARE`, and on a processor.
    """

    vectors: Tensor
    scale: float
    rows: npt.NDArray[np.int64]
    rows_on_device: Tensor
    of_places: Tensor | None = None

    @classmethod
    def of(cls, table: DistanceTable, longest: int, scale: float) -> Distances:
        """Return the vectors for a batch; `longest` is the number of tokens of its longest sequence."""
        vectors_RH = table()
        rows = table.spec.vectors_of(np.arange(1 - longest, longest))
        device = vectors_RH.device
        on_device = upload(rows, device)
        of_places = None
        if kind_of(device) == "cuda" and longest <= LONGEST_SQUARE:
            places = torch.arange(longest, device=device)
            of_places = on_device[places[:, None] - places + (longest - 1)]
        return cls(vectors=vectors_RH, scale=scale, rows=rows, rows_on_device=on_device, of_places=of_places)

    def bias(self, key_RH: Tensor | None, query_RH: Tensor | None, layout: Layout) -> Bias:
        """Return the position terms in the scaled scores of one block.

        Args:
            key_RH: keys of distances, multiplied by queries of tokens; None: there is no such term.
            query_RH: queries of distances, multiplied by keys of tokens; None: there is no such term.
            layout: rows of each sequence, and rows that are queries.
        """
        # The keys of a long sequence come again with its next queries; their products are kept.
        kept: dict[tuple[int, int, torch.dtype], Tensor] = {}
        # In float16, sums over a head overflow that would not after scaling; on CUDA the vectors are scaled first.
        scale_first = kind_of(self.vectors.device) == "cuda"
        if scale_first:
            key_RH = None if key_RH is None else key_RH * self.scale
            query_RH = None if query_RH is None else query_RH * self.scale

        def bias_of(run: Run, query_nAqD: Tensor, key_nAtD: Tensor) -> Tensor:
            own = self._vectors_of(run)
            index_n1qt = self._index(run, layout) - own.start
            n, heads, queries, _ = query_nAqD.shape
            terms = []
            if key_RH is not None:
                products_nAqR = _products(query_nAqD, key_RH[own])
                terms.append(products_nAqR.gather(-1, index_n1qt.expand(n, heads, queries, run.length)))
            if query_RH is not None:
                place = (run.begin, run.count, key_nAtD.dtype)
                if place not in kept:
                    kept.clear()
                    kept[place] = _products(key_nAtD, query_RH[own])
                index_n1tq = index_n1qt.transpose(2, 3).expand(n, heads, run.length, queries)
                terms.append(kept[place].gather(-1, index_n1tq).transpose(2, 3))
            added = terms[0] if len(terms) == 1 else terms[0] + terms[1]
            return added if scale_first else added * self.scale

        return bias_of

    def _vectors_of(self, run: Run) -> slice:
        """Return the range of vectors that sequences of this length use."""
        middle = len(self.rows) // 2
        return slice(int(self.rows[middle - run.length + 1]), int(self.rows[middle + run.length - 1]) + 1)

    def _index(self, run: Run, layout: Layout) -> Tensor:
        """Return int64 [n or 1, 1, q, t], the index of the vector of each query and key."""
        if kind_of(self.rows_on_device.device) == "cuda":
            return self._index_on_cuda(run, layout)
        distances_nqt = layout.positions_in(run)[:, :, None] - np.arange(run.length) + len(self.rows) // 2
        return self.rows_on_device[torch.as_tensor(distances_nqt, device=self.rows_on_device.device)].unsqueeze(1)

    def _index_on_cuda(self, run: Run, layout: Layout) -> Tensor:
        """Look the vectors up on the device, where the places of queries are already."""
        device = self.rows_on_device.device
        first = run.query_begin - run.begin  # 0, except in a part of one sequence
        positions = layout.on(device).query_positions
        if positions is None and self.of_places is not None:
            return self.of_places[first : first + run.queries, : run.length][None, None]
        if positions is None:
            places_nq = torch.arange(first, first + run.queries, device=device)[None]
        else:
            own = positions[run.query_begin : run.query_begin + run.count * run.queries]
            places_nq = own.view(run.count, run.queries)
        if self.of_places is not None:
            return self.of_places[:, : run.length][places_nq].unsqueeze(1)
        keys_t = torch.arange(run.length, device=device)
        return self.rows_on_device[places_nq[:, :, None] - keys_t + len(self.rows) // 2].unsqueeze(1)


def _products(token_nAtD: Tensor, distance_RH: Tensor) -> Tensor:
    """Multiply the tokens and distances of each head: [n, A, t, R]."""
    n, heads, length, head_size = token_nAtD.shape
    distance_ADR = distance_RH.to(token_nAtD.dtype).view(-1, heads, head_size).permute(1, 2, 0)
    products = torch.bmm(token_nAtD.transpose(0, 1).reshape(heads, n * length, head_size), distance_ADR)
    return products.view(heads, n, length, -1).transpose(0, 1)


class Convolution(nn.Module):
    """Convolution of `models.spec.Convolution` on packed rows."""

    def __init__(
        self, conv: nn.Conv1d, *, activation: Callable[[Tensor], Tensor], norm: nn.Module, dropout: float
    ) -> None:
        super().__init__()
        self.conv = conv
        self.activation = activation
        self.LayerNorm = norm
        self.dropout = nn.Dropout(dropout)

    def forward(self, embedded_TH: Tensor, hidden_QH: Tensor, near_Qk: Tensor) -> Tensor:
        """Return hidden state 1 [Q, H].

        Args:
            embedded_TH: hidden state 0.
            hidden_QH: output of block 0.
            near_Qk: rows around each query row, from `neighbours`.
        """
        size = len(self.conv.weight)
        weight_HkH = self.conv.weight.transpose(1, 2).reshape(size, -1)
        # The last row stands for positions beyond the ends of a sequence.
        padded_TH = torch.cat([embedded_TH, embedded_TH.new_zeros(1, size)])

        def convolved(rows_k: Tensor, own_H: Tensor) -> Tensor:
            out_H = F.linear(padded_TH[rows_k].flatten(1), weight_HkH, self.conv.bias)
            normed_H: Tensor = self.LayerNorm(own_H + self.activation(self.dropout(out_H)))
            return normed_H

        return by_rows(convolved, near_Qk, hidden_QH)

    def neighbours(self, layout: Layout, device: torch.device) -> Tensor:
        """Return int64 [Q, k] on a device, the rows around each query row; T beyond the ends of its sequence."""
        return upload(_neighbours(layout, self.conv.weight.shape[2]), device)


def _neighbours(layout: Layout, kernel: int) -> npt.NDArray[np.int64]:
    """Return int64 [Q, k], the rows around each query row; T beyond the ends of its sequence."""
    lengths = np.array(layout.lengths)
    positions = layout.query_positions
    if positions is None:
        positions = np.concatenate([np.arange(length) for length in layout.lengths])
    starts, ends = (np.repeat(bounds, layout.queries) for bounds in (layout.cu_seqlens[:-1], layout.cu_seqlens[1:]))
    rows = (starts + positions)[:, None] + np.arange(kernel) - kernel // 2
    inside = (rows >= starts[:, None]) & (rows < ends[:, None])
    return np.where(inside, rows, lengths.sum())
