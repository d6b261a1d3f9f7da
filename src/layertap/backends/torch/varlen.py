"""Attention on CUDA: all sequences of a packed batch in one kernel, where there is one for the case.

The kernels are the operators under torch's own attention functions. Called directly, they take packed rows as they are,
and the choice between them depends on nothing but the arguments. cuDNN's attention is never used: it builds a plan for
every new shape, and nearly every batch has new ones.

Shape letters: T packed tokens, Q query rows, A heads, D head size, H = A * D, K heads of keys and values, G = K * D;
n sequences of t tokens and q queries each; N blocks of b queries and k keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from layertap.backends.torch.blocks import pieces
from layertap.backends.torch.devices import AMPERE, capability_of
from layertap.backends.torch.layout import Bias, Layout, Run

HALF = (torch.float16, torch.bfloat16)
FLASH_HEAD_SIZE = 256
"""Largest head size of the flash kernel."""
HEAD_SIZES = 8
"""Divisor that the kernels need of a head size; other heads are padded with zeros."""
BIAS_COLUMNS = 16
"""Divisor that the efficient kernel needs of the row length of a bias."""
BIAS_BYTES = 512 << 20
"""Size of biases computed at once where every sequence has its own; at least those of one query."""
BLOCK_QUERIES = 128
"""Number of queries of a windowed layer that are computed with the same keys."""

Path: TypeAlias = Literal["flash", "efficient", "blocks", "runs"]


def path_of(
    dtype: torch.dtype, device: torch.device, head_size: int, *, window: int | None = None, biased: bool = False
) -> Path:
    """Return how attention runs on CUDA.

    Returns:
        "flash" for one call of the flash kernel (half precision from Ampere on; any window); "efficient" for one call
        of the memory-efficient kernel (float32, older devices, very large heads); "blocks" for one call of it on blocks
        of rows with their neighbours (windows); "runs" for one call of it for each run of sequences of equal length
        (position terms that are added to scores).
    """
    if biased:
        return "runs"
    if dtype in HALF and head_size <= FLASH_HEAD_SIZE and capability_of(device) >= AMPERE:
        return "flash"
    return "efficient" if window is None else "blocks"


def attend_on_cuda(
    query_QH: Tensor,
    key_TG: Tensor,
    value_TG: Tensor,
    layout: Layout,
    *,
    num_heads: int,
    window: int | None,
    bias: Bias | None,
    own_bias: bool,
    scale: float | None,
    dropout: float,
) -> Tensor:
    """Compute the attention of every sequence to itself, [Q, H]; arguments as in `attention.attend`."""
    head_size = query_QH.shape[1] // num_heads
    scale = head_size**-0.5 if scale is None else scale
    if bias is not None:
        assert window is None, "no encoder has windows and position terms"
        return _runs(query_QH, key_TG, value_TG, layout, num_heads, bias, own_bias, scale, dropout)
    path = path_of(query_QH.dtype, query_QH.device, head_size, window=window)
    rows = layout.on(query_QH.device).query_rows
    if window is not None and rows is not None:
        # The kernels find a query's window by its place among the queries, so they need all of them.
        query_TH = query_QH.new_zeros(len(key_TG), query_QH.shape[1]).index_copy(0, rows, query_QH)
        context_TH = _packed(path, query_TH, key_TG, value_TG, layout.whole, num_heads, window, scale, dropout)
        return context_TH.index_select(0, rows)
    return _packed(path, query_QH, key_TG, value_TG, layout, num_heads, window, scale, dropout)


def _packed(
    path: Path,
    query_QH: Tensor,
    key_TG: Tensor,
    value_TG: Tensor,
    layout: Layout,
    num_heads: int,
    window: int | None,
    scale: float,
    dropout: float,
) -> Tensor:
    head_size = query_QH.shape[1] // num_heads
    query_QAD, key_TKD, value_TKD = (_heads(rows, head_size) for rows in (query_QH, key_TG, value_TG))
    if path == "flash":
        context_QAD = _flash(query_QAD, key_TKD, value_TKD, layout, window, scale, dropout)
    else:
        times = num_heads // key_TKD.shape[1]
        key_TAD, value_TAD = (
            shared if times == 1 else shared.repeat_interleave(times, dim=1) for shared in (key_TKD, value_TKD)
        )
        if path == "efficient":
            context_QAD = _efficient(query_QAD, key_TAD, value_TAD, layout, scale, dropout)
        else:
            assert window is not None
            context_QAD = _blocks(query_QAD, key_TAD, value_TAD, layout, window, scale, dropout)
    return context_QAD[..., :head_size].flatten(1)


def _heads(rows_TG: Tensor, head_size: int) -> Tensor:
    """View packed rows by head, [T, K, D], with D padded to a multiple of `HEAD_SIZES`."""
    by_head = rows_TG.view(len(rows_TG), -1, head_size)
    return by_head if head_size % HEAD_SIZES == 0 else F.pad(by_head, (0, -head_size % HEAD_SIZES))


def _flash(
    query_QAD: Tensor,
    key_TKD: Tensor,
    value_TKD: Tensor,
    layout: Layout,
    window: int | None,
    scale: float,
    dropout: float,
) -> Tensor:
    on = layout.on(query_QAD.device)
    longest = max(layout.queries)
    if key_TKD.shape[1] != query_QAD.shape[1]:
        # With one query each and shared heads, the kernel expects that no sequence is without a query.
        longest = max(2, longest)
    side = -1 if window is None else window
    context: Tensor = torch.ops.aten._flash_attention_forward(
        query_QAD,
        key_TKD,
        value_TKD,
        on.cu_queries,
        on.cu_seqlens,
        longest,
        max(layout.lengths),
        dropout,
        False,  # not causal
        False,  # no debug mask
        scale=scale,
        window_size_left=side,
        window_size_right=side,
    )[0]
    return context


def _efficient(
    query_QAD: Tensor, key_TAD: Tensor, value_TAD: Tensor, layout: Layout, scale: float, dropout: float
) -> Tensor:
    on = layout.on(query_QAD.device)
    context: Tensor = torch.ops.aten._efficient_attention_forward(
        query_QAD.unsqueeze(0),
        key_TAD.unsqueeze(0),
        value_TAD.unsqueeze(0),
        None,
        on.cu_queries,
        on.cu_seqlens,
        max(layout.queries),
        max(layout.lengths),
        dropout,
        0,  # no mask
        _needs_gradients(query_QAD, key_TAD, value_TAD),
        scale=scale,
    )[0]
    return context.squeeze(0)


def _dense(
    query_nqAD: Tensor, key_ntAD: Tensor, value_ntAD: Tensor, bias_nAqt: Tensor, scale: float, dropout: float
) -> Tensor:
    """Attend n times alike with a bias that is added to the scaled scores: [n, q, A, D]."""
    context: Tensor = torch.ops.aten._efficient_attention_forward(
        query_nqAD,
        key_ntAD,
        value_ntAD,
        bias_nAqt,
        None,
        None,
        None,
        None,
        dropout,
        0,  # no mask
        _needs_gradients(query_nqAD, key_ntAD, value_ntAD, bias_nAqt),
        scale=scale,
    )[0]
    return context


def _needs_gradients(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def _blocks(
    query_TAD: Tensor,
    key_TAD: Tensor,
    value_TAD: Tensor,
    layout: Layout,
    window: int,
    scale: float,
    dropout: float,
) -> Tensor:
    """Attend within windows: blocks of neighbouring rows, each with the rows within reach of it, as one batch."""
    rows, heads, head_size = query_TAD.shape
    count = -(-rows // BLOCK_QUERIES)
    query_NbAD = F.pad(query_TAD, (0, 0, 0, 0, 0, count * BLOCK_QUERIES - rows)).view(
        count, BLOCK_QUERIES, heads, head_size
    )
    keys_Nk, allowed_Nbk = layout.near(query_TAD.device, window, BLOCK_QUERIES, BIAS_COLUMNS)
    bias_Nbk = torch.zeros_like(allowed_Nbk, dtype=query_TAD.dtype).masked_fill_(~allowed_Nbk, float("-inf"))
    context_NbAD = _dense(
        query_NbAD,
        key_TAD[keys_Nk],
        value_TAD[keys_Nk],
        bias_Nbk.unsqueeze(1).expand(-1, heads, -1, -1),
        scale,
        dropout,
    )
    return context_NbAD.flatten(0, 1)[:rows]


def _runs(
    query_QH: Tensor,
    key_TG: Tensor,
    value_TG: Tensor,
    layout: Layout,
    num_heads: int,
    bias: Bias,
    own_bias: bool,
    scale: float,
    dropout: float,
) -> Tensor:
    """Attend with a position term, for one run of sequences of equal length after the other."""
    head_size = query_QH.shape[1] // num_heads
    parts = []
    for run in _parts(layout, num_heads * query_QH.element_size()) if own_bias else layout.runs:
        queries = slice(run.query_begin, run.query_begin + run.count * run.queries)
        tokens = slice(run.begin, run.begin + run.count * run.length)
        query_nqAD = _heads(query_QH[queries], head_size).view(run.count, run.queries, num_heads, -1)
        key_ntAD, value_ntAD = (
            _heads(rows[tokens], head_size).view(run.count, run.length, num_heads, -1) for rows in (key_TG, value_TG)
        )
        query_nAqD, key_nAtD = (rows[..., :head_size].transpose(1, 2) for rows in (query_nqAD, key_ntAD))
        bias_nAqt = _aligned(bias(run, query_nAqD, key_nAtD).to(query_QH.dtype))
        bias_nAqt = bias_nAqt.expand(run.count, num_heads, run.queries, run.length)
        context_nqAD = _dense(query_nqAD, key_ntAD, value_ntAD, bias_nAqt, scale, dropout)
        parts.append(context_nqAD[..., :head_size].flatten(2).flatten(0, 1))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _aligned(bias_nAqt: Tensor) -> Tensor:
    """Return the bias with rows that begin at multiples of `BIAS_COLUMNS`."""
    if bias_nAqt.stride(-1) == 1 and all(stride % BIAS_COLUMNS == 0 for stride in bias_nAqt.stride()[:-1]):
        return bias_nAqt
    length = bias_nAqt.shape[-1]
    return F.pad(bias_nAqt, (0, -length % BIAS_COLUMNS))[..., :length]


def _parts(layout: Layout, bytes_a_score: int) -> Iterator[Run]:
    """Split runs into parts whose scores are within `BIAS_BYTES`: some sequences, or some queries of one sequence."""
    for run in layout.runs:
        queries = max(1, BIAS_BYTES // (run.length * bytes_a_score))
        done = 0
        for count in pieces(run.count, (max(1, queries // run.queries),)):
            begin, query_begin = run.begin + done * run.length, run.query_begin + done * run.queries
            for first in range(0, run.queries, queries):
                yield Run(begin, query_begin + first, count, run.length, min(queries, run.queries - first))
            done += count
