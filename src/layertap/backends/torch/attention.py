"""Attention on packed rows without padding: every sequence attends to itself.

Shape letters: T packed tokens, Q query rows, A heads, D head size, H = A * D, K heads of keys and values, G = K * D,
n sequences, t tokens and q queries of each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from layertap.backends.torch.blocks import pieces

SEQUENCES_TOGETHER = (16, 4, 1)
"""Numbers of sequences whose scores are computed at once."""

HALF = (torch.float16, torch.bfloat16)
SCORES_BYTES = 1 << 20
"""Size of attention scores computed at once by plain products; they should fit a core's second-level cache."""
BIAS_BYTES = 8 << 20
"""Size of biases computed at once where every sequence has its own; at least those of one query."""
QUERIES_TOGETHER = 256
"""Number of queries of a windowed layer computed at once, with the keys that any of them attends to."""


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

    @property
    def cu_seqlens(self) -> npt.NDArray[np.int32]:
        """First key row of each sequence, and T: int32 [B+1]."""
        return _cumulative(self.lengths)

    @property
    def cu_queries(self) -> npt.NDArray[np.int32]:
        """First query row of each sequence, and Q: int32 [B+1]."""
        return _cumulative(self.queries)

    @classmethod
    def of(cls, lengths: Sequence[int]) -> Layout:
        """Return the layout of packed sequences in which all tokens are queries."""
        return cls(tuple(lengths), tuple(lengths), _runs(lengths, lengths))

    def with_queries(self, rows: npt.NDArray[np.int32]) -> Layout:
        """Return the layout of these sequences with only some rows (ascending) as queries."""
        starts = self.cu_seqlens
        bounds = np.searchsorted(rows, starts)
        queries = tuple(int(end - begin) for begin, end in pairwise(bounds))
        positions = rows.astype(np.int64) - np.repeat(starts[:-1], queries)
        return Layout(self.lengths, queries, _runs(self.lengths, queries), positions)

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


def attend(
    query_QH: Tensor,
    key_TG: Tensor,
    value_TG: Tensor,
    layout: Layout,
    *,
    num_heads: int,
    window: int | None = None,
    bias: Bias | None = None,
    own_bias: bool = False,
    scale: float | None = None,
    dropout: float = 0.0,
    fast: bool = False,
) -> Tensor:
    """Compute the attention of every sequence to itself: [Q, H].

    Args:
        query_QH, key_TG, value_TG: packed projections; rows may be strided (parts of one fused tensor). Where keys
            and values are narrower than queries, each of their heads serves several.
        layout: rows of each sequence.
        num_heads: A.
        window: largest distance at which tokens attend to each other, or None: any.
        bias: relative position term added to the scaled scores, or None.
        own_bias: whether the bias is computed for every sequence (few at once), not shared by those of a run.
        scale: factor of the scores; None: one over the square root of D.
        dropout: probability of dropping an attention weight; 0 outside training.
        fast: whether to use the fastest kernel for each length (no gradients); otherwise torch's
            `scaled_dot_product_attention`, or on CUDA in half precision its variable-length kernel.
    """
    head_size = query_QH.shape[1] // num_heads
    # The kernel counts its windows from the last query, so it needs all queries.
    windowed_rows = window is not None and layout.query_positions is not None
    plain = bias is None and scale is None and not dropout and not windowed_rows
    if query_QH.is_cuda and plain and _varlen_takes(query_QH, num_heads):
        return _varlen(query_QH, key_TG, value_TG, layout, head_size, window)
    parts = []
    for run in _few_at_once(layout.runs, num_heads * query_QH.element_size()) if own_bias else layout.runs:
        end = run.begin + run.count * run.length
        query_nAqD = _by_head(
            query_QH[run.query_begin : run.query_begin + run.count * run.queries], run.count, head_size
        )
        key_nAtD = _for_each_query(_by_head(key_TG[run.begin : end], run.count, head_size), num_heads)
        value_nAtD = _for_each_query(_by_head(value_TG[run.begin : end], run.count, head_size), num_heads)
        added = None if bias is None else bias(run, query_nAqD, key_nAtD).to(query_nAqD.dtype)
        near = None if window is None or window >= run.length - 1 else window
        if near is not None:
            context_nAqD = _near(
                query_nAqD, key_nAtD, value_nAtD, layout.positions_in(run), near, added, scale, dropout
            )
        elif fast and _products_are_faster(run, query_QH):
            context_nAqD = _products(query_nAqD, key_nAtD, value_nAtD, added, scale)
        else:
            context_nAqD = F.scaled_dot_product_attention(
                query_nAqD, key_nAtD, value_nAtD, attn_mask=added, dropout_p=dropout, scale=scale
            )
        parts.append(context_nAqD.transpose(1, 2).reshape(run.count * run.queries, -1))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _few_at_once(runs: Sequence[Run], bytes_a_score: int) -> Iterator[Run]:
    """Split runs into parts whose scores are within `BIAS_BYTES`: some sequences, or some queries of one sequence."""
    for run in runs:
        queries = max(1, BIAS_BYTES // (run.length * bytes_a_score))
        if queries >= run.queries:
            fitting = [n for n in SEQUENCES_TOGETHER if n * run.queries <= queries] or [1]
            done = 0
            for count in pieces(run.count, fitting):
                begin, query_begin = run.begin + done * run.length, run.query_begin + done * run.queries
                yield Run(begin, query_begin, count, run.length, run.queries)
                done += count
            continue
        for sequence in range(run.count):
            begin, query_begin = run.begin + sequence * run.length, run.query_begin + sequence * run.queries
            for first in range(0, run.queries, queries):
                yield Run(begin, query_begin + first, 1, run.length, min(queries, run.queries - first))


def _by_head(rows_TG: Tensor, count: int, head_size: int) -> Tensor:
    """View packed rows [n * t, G] by head: [n, K, t, D]."""
    rows, width = rows_TG.shape
    return rows_TG.view(count, rows // count, width // head_size, head_size).transpose(1, 2)


def _for_each_query(shared_nKtD: Tensor, num_heads: int) -> Tensor:
    """Repeat each of K heads for the query heads that share it: [n, K, t, D] -> [n, A, t, D]."""
    times = num_heads // shared_nKtD.shape[1]
    return shared_nKtD if times == 1 else shared_nKtD.repeat_interleave(times, dim=1)


def _near(
    query_nAqD: Tensor,
    key_nAtD: Tensor,
    value_nAtD: Tensor,
    positions_nq: npt.NDArray[np.int64],
    window: int,
    bias_nAqt: Tensor | None,
    scale: float | None,
    dropout: float,
) -> Tensor:
    """Attend to keys at a distance of at most `window`, a few queries at a time, with the keys within their reach."""
    length, queries = key_nAtD.shape[2], query_nAqD.shape[2]
    parts = []
    for begin in range(0, queries, QUERIES_TOGETHER):
        some = slice(begin, begin + QUERIES_TOGETHER)
        asked_nq = positions_nq[:, some]
        first = max(0, int(asked_nq.min()) - window)
        reached = slice(first, min(length, int(asked_nq.max()) + window + 1))
        near_nqk = np.abs(asked_nq[:, :, None] - np.arange(reached.start, reached.stop)) <= window
        mask = allowed_n1qk = torch.as_tensor(near_nqk, device=query_nAqD.device).unsqueeze(1)
        if bias_nAqt is not None:
            mask = bias_nAqt[:, :, some, reached].masked_fill(~allowed_n1qk, float("-inf"))
        parts.append(
            F.scaled_dot_product_attention(
                query_nAqD[:, :, some],
                key_nAtD[:, :, reached],
                value_nAtD[:, :, reached],
                attn_mask=mask,
                dropout_p=dropout,
                scale=scale,
            )
        )
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def _varlen_takes(query_QH: Tensor, num_heads: int) -> bool:
    head_size = query_QH.shape[1] // num_heads
    return query_QH.dtype in HALF and head_size % 8 == 0 and head_size <= 256 and _has_varlen(query_QH.device)


@cache
def _has_varlen(device: torch.device) -> bool:
    """Return whether torch has the variable-length kernel and the device runs it (Ampere and later)."""
    is_there = find_spec("torch.nn.attention.varlen") is not None
    return is_there and torch.cuda.get_device_capability(device) >= (8, 0)


def _varlen(
    query_QH: Tensor, key_TG: Tensor, value_TG: Tensor, layout: Layout, head_size: int, window: int | None
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    device = query_QH.device
    context_QAD = varlen_attn(
        query_QH.view(len(query_QH), -1, head_size),
        key_TG.view(len(key_TG), -1, head_size),
        value_TG.view(len(value_TG), -1, head_size),
        torch.as_tensor(layout.cu_queries, device=device),
        torch.as_tensor(layout.cu_seqlens, device=device),
        max(layout.queries),
        max(layout.lengths),
        window_size=(-1, -1) if window is None else (window, window),
        enable_gqa=key_TG.shape[1] != query_QH.shape[1],
    )
    assert isinstance(context_QAD, Tensor)
    return context_QAD.flatten(1)


def _products_are_faster(run: Run, query_QH: Tensor) -> bool:
    # Measured on AVX-512 processors: torch's fused kernel works through blocks that short sequences do not fill, and
    # at any length it makes little use of bfloat16 instructions.
    if query_QH.is_cuda:
        return False
    return query_QH.dtype == torch.bfloat16 or run.length <= 64


def _products(
    query_nAqD: Tensor,
    key_nAtD: Tensor,
    value_nAtD: Tensor,
    bias_nAqt: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """Compute softmax(scale query key' + bias) value, a few heads at a time in one buffer that stays in cache."""
    n, heads, queries, head_size = query_nAqD.shape
    length = key_nAtD.shape[2]
    scale = head_size**-0.5 if scale is None else scale
    query_BqD = query_nAqD.reshape(-1, queries, head_size)
    key_BDt = key_nAtD.reshape(-1, length, head_size).transpose(1, 2)
    value_BtD = value_nAtD.reshape(-1, length, head_size)
    sizes = _heads_together(n, heads, queries * length * query_nAqD.element_size())
    scores = query_nAqD.new_empty(max(sizes), queries, length)
    context_BqD = query_nAqD.new_empty(n * heads, queries, head_size)
    zero = query_nAqD.new_zeros(1)
    bias_Xqt = None if bias_nAqt is None else bias_nAqt.reshape(-1, queries, length)
    begin = 0
    for size in sizes:
        part = slice(begin, begin + size)
        scores_Bqt = scores[:size]
        # With beta=0 the tensor in place of a bias is not read.
        added = zero if bias_Xqt is None else _bias_of(bias_Xqt, begin, size)
        beta = 0 if bias_Xqt is None else 1
        torch.baddbmm(added, query_BqD[part], key_BDt[part], beta=beta, alpha=scale, out=scores_Bqt)
        _softmax(scores_Bqt)
        torch.bmm(scores_Bqt, value_BtD[part], out=context_BqD[part])
        begin += size
    return context_BqD.view(n, heads, queries, head_size)


def _bias_of(bias_Xqt: Tensor, begin: int, count: int) -> Tensor:
    """Return the biases [count, q, t] of heads from `begin` on; X = n * A, or A where all sequences share them."""
    if begin + count <= len(bias_Xqt):
        return bias_Xqt[begin : begin + count]
    return bias_Xqt[torch.arange(begin, begin + count) % len(bias_Xqt)]


def _heads_together(sequences: int, heads: int, bytes_a_head: int) -> list[int]:
    """Split `sequences * heads` into numbers of heads computed at once: few sizes, within `SCORES_BYTES`."""
    fitting = [n for n in SEQUENCES_TOGETHER if n * heads * bytes_a_head <= SCORES_BYTES]
    if fitting:
        return [n * heads for n in pieces(sequences, fitting)]
    return pieces(heads, (max(1, SCORES_BYTES // bytes_a_head),)) * sequences


def _softmax(scores_Bqt: Tensor) -> None:
    """Compute softmax over the last axis in place, avoiding lengths at which torch leaves its vectorized code."""
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
