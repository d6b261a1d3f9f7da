"""Work in pieces of few sizes.

oneDNN keeps a kernel, and memory as large as its result, for every shape that it has met. Batches have nearly as many
shapes as there are batches, so without this a long run grows by gigabytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

ROWS = (2048, 512, 128, 32, 8)


def pieces(total: int, sizes: Sequence[int]) -> list[int]:
    """Sizes that add up to `total`: as many of each of `sizes` (descending) as fit, then the rest in one."""
    found: list[int] = []
    for size in sizes:
        found += [size] * (total // size)
        total %= size
    return found + [total] * (total > 0)


def by_rows(call: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """`call(*tensors)` for a function of rows [T, ...] that treats each row alone, in blocks of few sizes."""
    sizes = pieces(len(tensors[0]), ROWS)
    if len(sizes) == 1:
        return call(*tensors)
    blocks = zip(*(torch.split(tensor, sizes) for tensor in tensors), strict=True)
    return torch.cat([call(*block) for block in blocks])
