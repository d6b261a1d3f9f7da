"""How position enters attention: rotary angles, windows and relative biases of one packed batch.

Shape letters: T packed tokens, Q query rows, A heads, D head size, d = D / 2, n sequences of one length, t tokens and
q queries of each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from layertap.backends.torch.attention import attend
from layertap.backends.torch.devices import kind_of, upload
from layertap.backends.torch.disentangled import Distances, DistanceTable
from layertap.backends.torch.layout import Bias, Layout, Run
from layertap.backends.torch.varlen import BIAS_COLUMNS
from layertap.models.positions import RelativeBias as RelativeBiasSpec
from layertap.models.spec import EncoderSpec


@dataclass(frozen=True, slots=True, eq=False)
class Rotary:
    """Cosines and sines of the rotary angles of some rows, float32 [T, 1, d]."""

    cosine: Tensor
    sine: Tensor

    @classmethod
    def of(cls, positions: Tensor, theta: float, head_size: int, scale: float = 1.0) -> Rotary:
        """Compute the angles `position * theta^(-2i / D) / scale` of int64 positions [T]."""
        exponents_d = torch.arange(0, head_size, 2, dtype=torch.float32, device=positions.device) / head_size
        frequencies_d = 1.0 / theta**exponents_d / scale
        angles_T1d = (positions.float()[:, None] * frequencies_d).unsqueeze(1)
        return cls(angles_T1d.cos(), angles_T1d.sin())

    def rows(self, rows: Tensor) -> Rotary:
        """Return the angles of some rows only."""
        return Rotary(self.cosine[rows], self.sine[rows])

    def rotate(self, projected_TG: Tensor) -> Tensor:
        """Rotate projections [T, K * D] in float32: in each head, value i is paired with value i + d."""
        rows, width = projected_TG.shape
        by_head = projected_TG.view(rows, -1, 2 * self.cosine.shape[-1])
        if kind_of(projected_TG.device) == "cuda" and not (torch.is_grad_enabled() and projected_TG.requires_grad):
            return self._rotate_in_few_passes(by_head).view(rows, width)
        one, other = by_head.float().chunk(2, dim=-1)
        turned = torch.cat((one * self.cosine - other * self.sine, other * self.cosine + one * self.sine), dim=-1)
        return turned.view(rows, width).to(projected_TG.dtype)

    def _rotate_in_few_passes(self, projected_TKD: Tensor) -> Tensor:
        """Rotate in four passes, with float32 products that are rounded once into the result."""
        turned_TKD = torch.empty_like(projected_TKD, memory_format=torch.contiguous_format)
        one, other = projected_TKD.chunk(2, dim=-1)
        first, second = turned_TKD.chunk(2, dim=-1)
        torch.addcmul(one * self.cosine, other, self.sine, value=-1, out=first)
        torch.addcmul(other * self.cosine, one, self.sine, out=second)
        return turned_TKD


class RelativeBias(nn.Module):
    """Table of `models.positions.RelativeBias`: one value for each bucket of distances and each head."""

    def __init__(self, spec: RelativeBiasSpec, num_heads: int) -> None:
        super().__init__()
        self.spec = spec
        self.weight = nn.Parameter(torch.empty(spec.buckets, num_heads))

    def forward(self, length: int) -> Tensor:
        """Return the bias [A, t, t] of a sequence of t tokens; that of a shorter one is its upper left part."""
        distances_t = np.arange(1 - length, length)
        buckets_t = upload(self.spec.buckets_of(distances_t), self.weight.device)
        positions = torch.arange(length, device=self.weight.device)
        of_distance_At = self.weight[buckets_t].t()
        return of_distance_At[:, positions - positions[:, None] + (length - 1)]


Watch: TypeAlias = Callable[[Tensor, Tensor, "AttentionPositions"], None]
"""Sees queries [Q, H] and keys [T, G] of a block, rotated where it rotates them, and the positions of both."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AttentionPositions:
    """Layout of a batch and position terms of one layer: everything that attention needs beside hidden states.

    Attributes:
        layout: rows of each sequence, and rows that are queries.
        rows: int64 [Q], the query rows among T, ascending; None where every row is a query.
        rotary: rotary angles of all rows, or None.
        window: largest distance at which tokens attend to each other, or None: any.
        bias: relative position term that is added to scores, or None.
        watch: observer that is called before the block attends, or None.
        distances: vectors of distances, from which a block computes its own bias (`with_distances`), or None.
        scale: factor of the scores; None: one over the square root of D.
    """

    layout: Layout
    rows: Tensor | None = None
    rotary: Rotary | None = None
    window: int | None = None
    bias: Bias | None = None
    watch: Watch | None = None
    distances: Distances | None = None
    scale: float | None = None

    def with_distances(self, project: Callable[[Tensor], tuple[Tensor | None, Tensor | None]]) -> AttentionPositions:
        """Add the bias of one block, where the encoder has vectors of distances.

        Args:
            project: function from the vectors [R, H] to their keys [R, H] and queries [R, H], each None where scores
                have no such term.
        """
        if self.distances is None:
            return self
        return replace(self, bias=self.distances.bias(*project(self.distances.vectors), self.layout))

    def queries(self, hidden_TH: Tensor) -> Tensor:
        """Select the query rows [Q, H] of hidden states."""
        return hidden_TH if self.rows is None else hidden_TH[self.rows]

    def rotate_queries(self, query_QH: Tensor) -> Tensor:
        """Rotate query projections by their positions, where the encoder has rotary positions."""
        if self.rotary is None:
            return query_QH
        return (self.rotary if self.rows is None else self.rotary.rows(self.rows)).rotate(query_QH)

    def rotate_keys(self, key_TG: Tensor) -> Tensor:
        """Rotate key projections by their positions, where the encoder has rotary positions."""
        return key_TG if self.rotary is None else self.rotary.rotate(key_TG)

    def attend(
        self,
        query_QH: Tensor,
        key_TG: Tensor,
        value_TG: Tensor,
        *,
        num_heads: int,
        dropout: float = 0.0,
        fast: bool = False,
    ) -> Tensor:
        """Attend with projections as they come from their dense layers: [Q, H]; see `attention.attend`."""
        rotated_QH, rotated_TG = self.rotate_queries(query_QH), self.rotate_keys(key_TG)
        if self.watch is not None:
            self.watch(rotated_QH, rotated_TG, self)
        return attend(
            rotated_QH,
            rotated_TG,
            value_TG,
            self.layout,
            num_heads=num_heads,
            window=self.window,
            bias=self.bias,
            own_bias=self.distances is not None,
            scale=self.scale,
            dropout=dropout,
            fast=fast,
        )


class LayerPositions:
    """Position terms of every layer for one batch; terms that layers share are computed once.

    Args:
        spec: the encoder.
        layout: layout of the batch.
        position_ids: int64 [T], from which rotary angles are computed.
        relative: the encoder's table of relative biases or of distances, where it has one.
        kept: int32 [Q] ascending, the only rows that are queries in the top layer; None: all rows.
    """

    def __init__(
        self,
        spec: EncoderSpec,
        layout: Layout,
        position_ids: Tensor,
        relative: RelativeBias | DistanceTable | None,
        *,
        kept: npt.NDArray[np.int32] | None = None,
    ) -> None:
        self.spec = spec
        self.layout = layout
        self.position_ids = position_ids
        self._kept = None if kept is None else layout.with_queries(kept)
        device = position_ids.device
        if kind_of(device) == "cuda":
            layout.on(device)
        self._kept_rows = None if self._kept is None else self._kept.on(device).query_rows
        longest = max(layout.lengths)
        self._bias_Att = _aligned(relative(longest)) if isinstance(relative, RelativeBias) else None
        self._distances = (
            Distances.of(relative, longest, spec.score_scale) if isinstance(relative, DistanceTable) else None
        )
        self._rotary: dict[float, Rotary] = {}

    def of(self, layer: int, *, kept: bool = False, watch: Watch | None = None) -> AttentionPositions:
        """Return the terms of layer 0..L-1; with `kept`, only the rows of that name are queries."""
        layout = self._kept if kept and self._kept is not None else self.layout
        return AttentionPositions(
            layout=layout,
            rows=self._kept_rows if kept else None,
            rotary=self._rotary_of(self.spec.theta_of(layer)),
            window=self.spec.window_of(layer),
            bias=None if self._bias_Att is None else _shared_bias(self._bias_Att, layout),
            watch=watch,
            distances=self._distances,
            scale=None if self._distances is None else self.spec.score_scale,
        )

    def _rotary_of(self, theta: float | None) -> Rotary | None:
        if theta is None:
            return None
        if theta not in self._rotary:
            self._rotary[theta] = Rotary.of(self.position_ids, theta, self.spec.head_size, self.spec.rotary_scale)
        return self._rotary[theta]


def _shared_bias(bias_Att: Tensor, layout: Layout) -> Bias:
    """Return the bias that all sequences share, cut from the one of the longest sequence."""

    def bias_of(run: Run, _query_nAqD: Tensor, _key_nAtD: Tensor) -> Tensor:
        own_Att = bias_Att[:, : run.length, : run.length]
        if layout.query_positions is None:
            return own_Att.unsqueeze(0)
        positions = layout.on(own_Att.device).query_positions
        assert positions is not None
        own_nq = positions[run.query_begin : run.query_begin + run.count * run.queries].view(run.count, run.queries)
        return own_Att[:, own_nq].transpose(0, 1)

    return bias_of


def _aligned(bias_Att: Tensor) -> Tensor:
    """Return the bias in rows that, on CUDA, begin at multiples of what the kernel needs."""
    length = bias_Att.shape[-1]
    return bias_Att if kind_of(bias_Att.device) == "cpu" else F.pad(bias_Att, (0, -length % BIAS_COLUMNS))
