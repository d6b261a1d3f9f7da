"""Attention on packed rows without padding: every sequence attends to itself.

Shape letters: T packed tokens, Q query rows, A heads, D head size, H = A * D, K heads of keys and values, G = K * D,
n sequences, t tokens and q queries of each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from layertap.backends.torch.blocks import pieces
from layertap.backends.torch.devices import kind_of
from layertap.backends.torch.layout import Bias, Layout, Run
from layertap.backends.torch.varlen import attend_on_cuda

SEQUENCES_TOGETHER = (16, 4, 1)
"""Numbers of sequences whose scores are computed at once."""

SCORES_BYTES = 1 << 20
"""Size of attention scores computed at once by plain products; they should fit a core's second-level cache."""
BIAS_BYTES = 8 << 20
"""Size of biases computed at once where every sequence has its own; at least those of one query."""
QUERIES_TOGETHER = 256
"""Number of queries of a windowed layer computed at once, with the keys that any of them attends to."""


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
        fast: whether to use, on a processor, the fastest kernel for each length (no gradients); otherwise torch's
            `scaled_dot_product_attention`. `varlen` has the kernels for CUDA.
    """
    if window is not None and window >= max(layout.lengths) - 1:
        window = None
    if kind_of(query_QH.device) == "cuda":
        return attend_on_cuda(
            query_QH,
            key_TG,
            value_TG,
            layout,
            num_heads=num_heads,
            window=window,
            bias=bias,
            own_bias=own_bias,
            scale=scale,
            dropout=dropout,
        )
    head_size = query_QH.shape[1] // num_heads
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


def _products_are_faster(run: Run, query_QH: Tensor) -> bool:
    # Measured on AVX-512 processors: torch's fused kernel works through blocks that short sequences do not fill, and
    # at any length it makes little use of bfloat16 instructions.
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
