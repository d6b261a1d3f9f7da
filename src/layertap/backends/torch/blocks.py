"""Splitting of work into pieces of few sizes on a processor.

oneDNN keeps a kernel, and memory as large as its result, for every shape that it meets. Nearly every batch has a shape
of its own, so that a long run would grow by gigabytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from layertap.backends.torch.devices import kind_of

ROWS = (2048, 512, 128, 32, 8)


def pieces(total: int, sizes: Sequence[int]) -> list[int]:
    """Split a total into as many of each of `sizes` (descending) as fit, and the rest in one piece."""
    parts: list[int] = []
    for size in sizes:
        parts += [size] * (total // size)
        total %= size
    return parts + [total] * (total > 0)


def by_rows(call: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """Call a function that treats each row of tensors [T, ...] alone: on a processor in blocks of few sizes."""
    if kind_of(tensors[0].device) == "cuda":
        return call(*tensors)
    sizes = pieces(len(tensors[0]), ROWS)
    if len(sizes) == 1:
        return call(*tensors)
    blocks = zip(*(torch.split(tensor, sizes) for tensor in tensors), strict=True)
    return torch.cat([call(*block) for block in blocks])
