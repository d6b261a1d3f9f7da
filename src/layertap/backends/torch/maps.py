"""Attention probabilities of single blocks, computed beside their fast kernels.

Shape letters: T packed tokens, A heads, D head size, K heads of keys, n sequences of t tokens each, q queries of a
piece, h heads that any capture wants, M numbers in all maps of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from layertap.backends.torch.blocks import pieces
from layertap.backends.torch.devices import kind_of
from layertap.backends.torch.layout import Layout, Run
from layertap.backends.torch.positions import AttentionPositions
from layertap.features.program import Capture

PIECE_BYTES = 16 << 20
"""Size of the probabilities that are computed at once on a processor; at least those of one query."""
PIECE_BYTES_ON_CUDA = 512 << 20
"""The like for CUDA, where they belong to as many sequences of one length as fit."""


class Maps:
    """Observer of one block that computes the attention probabilities which captures ask for.

    Probabilities are float32, after softmax and before any dropout, like those of transformers' eager attention. Scores
    are float32 products of queries and keys, which come in the precision of the block. The block itself attends with
    its usual kernel, so that nothing else changes where maps are taken.

    Args:
        captures: captures of attention of one block.
        num_heads: A.
        store: function called with each capture and its result, float32 [M] on the device; see `Capture`.
    """

    def __init__(self, captures: Sequence[Capture], num_heads: int, store: Callable[[Capture, Tensor], None]) -> None:
        every = tuple(range(num_heads))
        self.num_heads = num_heads
        self._store = store
        self._heads = {capture: every if capture.heads is None else capture.heads for capture in captures}
        self._together = sorted({head for heads in self._heads.values() for head in heads})
        self._where = {
            capture: [self._together.index(head) for head in heads] for capture, heads in self._heads.items()
        }

    def __call__(self, query_TH: Tensor, key_TG: Tensor, positions: AttentionPositions) -> None:
        """Compute the maps of every sequence; called by the block as its `Watch`."""
        lengths = positions.layout.lengths
        assert len(query_TH) == len(key_TG) == sum(lengths), "maps need every token as a query"
        squares = sum(length * length for length in lengths)
        results = {
            capture: query_TH.new_empty(self._maps(capture) * squares, dtype=torch.float32) for capture in self._heads
        }
        filled = 0
        for run in self._runs(positions.layout, kind_of(query_TH.device)):
            places = {
                capture: flat[self._maps(capture) * filled :][: self._maps(capture) * run.count * run.length**2].view(
                    run.count, self._maps(capture), run.length, run.length
                )
                for capture, flat in results.items()
            }
            self._take(query_TH, key_TG, positions, run, places)
            filled += run.count * run.length**2
        for capture, flat in results.items():
            self._store(capture, flat)

    def _maps(self, capture: Capture) -> int:
        return len(self._heads[capture]) if capture.attention == "heads" else 1

    def _runs(self, layout: Layout, kind: str) -> Iterator[Run]:
        """Yield single sequences on a processor, and on CUDA as many of one length as may be computed at once."""
        for run in layout.runs:
            most = 1 if kind == "cpu" else PIECE_BYTES_ON_CUDA // (len(self._together) * run.length**2 * 4)
            done = 0
            for count in pieces(run.count, (max(1, most),)):
                begin = run.begin + done * run.length
                yield Run(begin, begin, count, run.length, run.length)
                done += count

    def _take(
        self, query_TH: Tensor, key_TG: Tensor, positions: AttentionPositions, run: Run, places: dict[Capture, Tensor]
    ) -> None:
        """Compute the maps of a run into `places`, [n, heads or 1, t, t] for each capture."""
        for part, share_nhqt in self._shares(query_TH, key_TG, positions, run):
            for capture, where in self._where.items():
                own_nhqt = share_nhqt if where == list(range(share_nhqt.shape[1])) else _select(share_nhqt, where)
                places[capture][:, :, part] = (
                    own_nhqt.mean(1, keepdim=True) if capture.attention == "mean" else own_nhqt
                )

    def _shares(
        self, query_TH: Tensor, key_TG: Tensor, positions: AttentionPositions, run: Run
    ) -> Iterator[tuple[slice, Tensor]]:
        """Yield (queries, their probabilities [n, h, q, t]) of a run, in pieces of bounded size."""
        count, length = run.count, run.length
        rows = slice(run.begin, run.begin + count * length)
        query_nAtD = query_TH[rows].view(count, length, self.num_heads, -1).transpose(1, 2)
        key_nKtD = key_TG[rows].view(count, length, -1, query_nAtD.shape[3]).transpose(1, 2)
        key_nAtD = key_nKtD.repeat_interleave(self.num_heads // key_nKtD.shape[1], dim=1)
        bias_nAtt = None if positions.bias is None else positions.bias(run, query_nAtD.float(), key_nAtD.float())
        scale = query_nAtD.shape[3] ** -0.5 if positions.scale is None else positions.scale
        query_nhtD, key_nhtD = _select(query_nAtD, self._together), _select(key_nAtD, self._together)
        key_nhDt = key_nhtD.float().transpose(2, 3)
        piece = PIECE_BYTES if kind_of(query_TH.device) == "cpu" else PIECE_BYTES_ON_CUDA
        step = max(1, piece // (count * len(self._together) * length * 4))
        for first in range(0, length, step):
            part = slice(first, min(first + step, length))
            scores_nhqt = query_nhtD[:, :, part].float() @ key_nhDt * scale
            if bias_nAtt is not None:
                scores_nhqt += _select(bias_nAtt, self._together)[:, :, part].float()
            if positions.window is not None:
                tokens = torch.arange(length, device=scores_nhqt.device)
                far_qt = (tokens[part, None] - tokens).abs() > positions.window
                scores_nhqt.masked_fill_(far_qt, float("-inf"))
            yield part, torch.softmax(scores_nhqt, -1)


def _select(by_head: Tensor, heads: Sequence[int]) -> Tensor:
    """Select heads of a tensor [n, A, ...]; all of them in order are the tensor itself."""
    if len(heads) == by_head.shape[1] and list(heads) == list(range(by_head.shape[1])):
        return by_head
    # A list as an index would be copied to the device each time.
    return torch.stack([by_head[:, head] for head in heads], dim=1)
