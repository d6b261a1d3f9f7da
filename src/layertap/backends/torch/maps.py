"""Attention probabilities of single blocks, computed beside their fast kernels.

Shape letters: T packed tokens, A heads, D head size, K heads of keys, t tokens of one sequence, q queries of a piece,
h heads that any capture wants, M numbers in all maps of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from layertap.backends.torch.attention import Run
from layertap.backends.torch.positions import AttentionPositions
from layertap.features.program import Capture

PIECE_BYTES = 16 << 20
"""Size of the probabilities of one sequence that are computed at once; at least those of one query."""


class Maps:
    """Observer of one block that computes the attention probabilities which captures ask for.

    Probabilities are float32, after softmax and before any dropout, like those of transformers' eager attention. Scores
    are float32 products of queries and keys, which come in the precision of the block. The block itself attends with
    its usual kernel, so that nothing else changes where maps are taken.

    Attributes:
        results: for each capture, float32 [M] on the processor; see `Capture`.
    """

    def __init__(self, captures: Sequence[Capture], num_heads: int) -> None:
        every = tuple(range(num_heads))
        self.num_heads = num_heads
        self.results: dict[Capture, Tensor] = {}
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
        for capture, heads in self._heads.items():
            maps = len(heads) if capture.attention == "heads" else 1
            self.results[capture] = torch.empty(maps * squares, dtype=torch.float32)
        begin = filled = 0
        for length in lengths:
            self._take(query_TH, key_TG, positions, Run(begin, begin, 1, length, length), filled)
            begin += length
            filled += length * length

    def _take(self, query_TH: Tensor, key_TG: Tensor, positions: AttentionPositions, run: Run, filled: int) -> None:
        """Compute the maps of one sequence; `filled` is the size of a map of all sequences before it."""
        places = {}
        for capture, heads in self._heads.items():
            maps = len(heads) if capture.attention == "heads" else 1
            flat = self.results[capture][maps * filled : maps * (filled + run.length**2)]
            places[capture] = flat.view(maps, run.length, run.length)
        for part, share_hqt in self._shares(query_TH, key_TG, positions, run):
            for capture, where in self._where.items():
                own_hqt = share_hqt if len(where) == len(share_hqt) and where == sorted(where) else share_hqt[where]
                places[capture][:, part] = own_hqt.mean(0, keepdim=True) if capture.attention == "mean" else own_hqt

    def _shares(
        self, query_TH: Tensor, key_TG: Tensor, positions: AttentionPositions, run: Run
    ) -> Iterator[tuple[slice, Tensor]]:
        """Yield (queries, their probabilities [h, q, t]) of one sequence, in pieces of bounded size."""
        length = run.length
        rows = slice(run.begin, run.begin + length)
        query_AtD = query_TH[rows].view(length, self.num_heads, -1).transpose(0, 1)
        key_KtD = key_TG[rows].view(length, -1, query_AtD.shape[2]).transpose(0, 1)
        key_AtD = key_KtD.repeat_interleave(self.num_heads // len(key_KtD), dim=0)
        bias_Att = (
            None if positions.bias is None else positions.bias(run, query_AtD[None].float(), key_AtD[None].float())[0]
        )
        scale = query_AtD.shape[2] ** -0.5 if positions.scale is None else positions.scale
        key_hDt = key_AtD[self._together].float().transpose(1, 2)
        step = max(1, PIECE_BYTES // (len(self._together) * length * 4))
        for first in range(0, length, step):
            part = slice(first, min(first + step, length))
            scores_hqt = query_AtD[self._together, part].float() @ key_hDt * scale
            if bias_Att is not None:
                scores_hqt += bias_Att[self._together, part].float()
            if positions.window is not None:
                tokens = torch.arange(length, device=scores_hqt.device)
                far_qt = (tokens[part, None] - tokens).abs() > positions.window
                scores_hqt.masked_fill_(far_qt, float("-inf"))
            yield part, torch.softmax(scores_hqt, -1)
