"""Attention on packed rows: every sequence attends to itself, with no padding and no mask.

Shape letters: T packed tokens, Q query rows, A heads, D head size, H = A * D, n sequences, t tokens of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from layertap.backends.torch.blocks import pieces

SEQUENCES_TOGETHER = (16, 4, 1)
"""Sequences whose scores are computed at once."""

HALF = (torch.float16, torch.bfloat16)
SCORES_BYTES = 1 << 20
"""Attention scores computed at once by plain products: they should stay in a core's second-level cache."""


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring sequences of one length: n sequences of t tokens, q of them as queries.

    Attributes:
        begin: first key row.
        query_begin: first query row (equal to `begin` where every token is a query).
        count: n.
        length: t, tokens a sequence.
        queries: query rows a sequence (equal to `length` where every token is a query).
    """

    begin: int
    query_begin: int
    count: int
    length: int
    queries: int


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Which rows are whose, for keys and for queries.

    Attributes:
        lengths: tokens a sequence, B of them.
        queries: query rows a sequence; equal to `lengths` where every token is a query.
        runs: the same as runs of equal sequences; those without queries are left out.
    """

    lengths: tuple[int, ...]
    queries: tuple[int, ...]
    runs: tuple[Run, ...]

    @property
    def cu_seqlens(self) -> npt.NDArray[np.int32]:
        """int32 [B+1], first key row of each sequence, and T."""
        return _cumulative(self.lengths)

    @property
    def cu_queries(self) -> npt.NDArray[np.int32]:
        """int32 [B+1], first query row of each sequence, and Q."""
        return _cumulative(self.queries)

    @classmethod
    def of(cls, lengths: Sequence[int], queries: Sequence[int] | None = None) -> Layout:
        """The layout of packed sequences; all tokens are queries if `queries` is None."""
        asked = tuple(lengths) if queries is None else tuple(queries)
        return cls(tuple(lengths), asked, _runs(lengths, asked))

    def with_queries(self, rows: npt.NDArray[np.int32]) -> Layout:
        """The same sequences with only these rows (ascending) as queries."""
        bounds = np.searchsorted(rows, self.cu_seqlens)
        return Layout.of(self.lengths, [int(end - begin) for begin, end in pairwise(bounds)])


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


def attend(
    query_QH: Tensor,
    key_TH: Tensor,
    value_TH: Tensor,
    layout: Layout,
    *,
    num_heads: int,
    dropout: float = 0.0,
    fast: bool = False,
) -> Tensor:
    """Attention of every sequence to itself: [Q, H].

    Args:
        query_QH, key_TH, value_TH: packed projections; rows may be strided (parts of one fused tensor).
        layout: which rows are whose.
        num_heads: A.
        dropout: probability of dropping an attention weight; 0 outside training.
        fast: take the quickest kernel for each length (no gradients); otherwise torch's
            `scaled_dot_product_attention`, or on CUDA in half precision its variable-length kernel.
    """
    if query_QH.is_cuda and not dropout and _varlen_takes(query_QH, num_heads):
        return _varlen(query_QH, key_TH, value_TH, layout, num_heads)
    parts = []
    for run in layout.runs:
        end = run.begin + run.count * run.length
        query_nAqD = _by_head(
            query_QH[run.query_begin : run.query_begin + run.count * run.queries], run.count, num_heads
        )
        key_nAtD = _by_head(key_TH[run.begin : end], run.count, num_heads)
        value_nAtD = _by_head(value_TH[run.begin : end], run.count, num_heads)
        if fast and _products_are_faster(run, query_QH):
            context_nAqD = _products(query_nAqD, key_nAtD, value_nAtD)
        else:
            context_nAqD = F.scaled_dot_product_attention(query_nAqD, key_nAtD, value_nAtD, dropout_p=dropout)
        parts.append(context_nAqD.transpose(1, 2).reshape(run.count * run.queries, -1))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _by_head(rows_TH: Tensor, count: int, num_heads: int) -> Tensor:
    """[n * t, H] -> [n, A, t, D], a view."""
    rows, width = rows_TH.shape
    return rows_TH.view(count, rows // count, num_heads, width // num_heads).transpose(1, 2)


def _varlen_takes(query_QH: Tensor, num_heads: int) -> bool:
    head_size = query_QH.shape[1] // num_heads
    return query_QH.dtype in HALF and head_size % 8 == 0 and head_size <= 256 and _has_varlen(query_QH.device)


@cache
def _has_varlen(device: torch.device) -> bool:
    """Whether this torch has the variable-length kernel, and the device is one that it runs on (Ampere and later)."""
    found = find_spec("torch.nn.attention.varlen") is not None
    return found and torch.cuda.get_device_capability(device) >= (8, 0)


def _varlen(query_QH: Tensor, key_TH: Tensor, value_TH: Tensor, layout: Layout, num_heads: int) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    device = query_QH.device
    by_head = (num_heads, query_QH.shape[1] // num_heads)
    context_QAD = varlen_attn(
        query_QH.view(-1, *by_head),
        key_TH.view(-1, *by_head),
        value_TH.view(-1, *by_head),
        torch.as_tensor(layout.cu_queries, device=device),
        torch.as_tensor(layout.cu_seqlens, device=device),
        max(layout.queries),
        max(layout.lengths),
    )
    assert isinstance(context_QAD, Tensor)
    return context_QAD.flatten(1)


def _products_are_faster(run: Run, query_QH: Tensor) -> bool:
    # Measured on AVX-512 processors: torch's fused kernel works through blocks that short sequences do not fill, and
    # at any length it makes little use of bfloat16 instructions.
    if query_QH.is_cuda:
        return False
    return query_QH.dtype == torch.bfloat16 or run.length <= 64


def _products(query_nAqD: Tensor, key_nAtD: Tensor, value_nAtD: Tensor) -> Tensor:
    """softmax(query key' / sqrt(D)) value, a few heads at a time through one buffer that stays in cache."""
    n, heads, queries, head_size = query_nAqD.shape
    length = key_nAtD.shape[2]
    query_BqD = query_nAqD.reshape(-1, queries, head_size)
    key_BDt = key_nAtD.reshape(-1, length, head_size).transpose(1, 2)
    value_BtD = value_nAtD.reshape(-1, length, head_size)
    sizes = _heads_together(n, heads, queries * length * query_nAqD.element_size())
    scores = query_nAqD.new_empty(max(sizes), queries, length)
    context_BqD = query_nAqD.new_empty(n * heads, queries, head_size)
    unused = query_nAqD.new_zeros(1)
    begin = 0
    for size in sizes:
        part = slice(begin, begin + size)
        scores_Bqt = scores[:size]
        torch.baddbmm(unused, query_BqD[part], key_BDt[part], beta=0, alpha=head_size**-0.5, out=scores_Bqt)
        _softmax(scores_Bqt)
        torch.bmm(scores_Bqt, value_BtD[part], out=context_BqD[part])
        begin += size
    return context_BqD.view(n, heads, queries, head_size)


def _heads_together(sequences: int, heads: int, bytes_a_head: int) -> list[int]:
    """How many heads' scores to compute at once, of `sequences * heads`: few sizes, within `SCORES_BYTES`."""
    fitting = [n for n in SEQUENCES_TOGETHER if n * heads * bytes_a_head <= SCORES_BYTES]
    if fitting:
        return [n * heads for n in pieces(sequences, fitting)]
    return pieces(heads, (max(1, SCORES_BYTES // bytes_a_head),)) * sequences


def _softmax(scores_Bqt: Tensor) -> None:
    """Softmax over the last axis, in place, around the lengths at which torch's own leaves its vector code."""
    length = scores_Bqt.shape[-1]
    if scores_Bqt.dtype != torch.float32 and (length % 32 == 0 or length > 256):
        torch.softmax(scores_Bqt, -1, out=scores_Bqt)
        return
    wide_Bqt = scores_Bqt.float()
    if length >= 16:
        torch.softmax(wide_Bqt, -1, out=wide_Bqt)
    else:
        wide_Bqt.sub_(wide_Bqt.amax(-1, keepdim=True)).exp_()
        wide_Bqt.div_(wide_Bqt.sum(-1, keepdim=True))
    if wide_Bqt is not scores_Bqt:
        scores_Bqt.copy_(wide_Bqt)
