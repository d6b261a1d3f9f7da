"""Nearest texts of each text, by the cosine of their vectors: exact, in blocks of bounded memory."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from layertap.learn.arrays import Float32Array

BLOCK_BYTES = 1 << 27
"""Bytes of the cosines that are in memory at a time."""


def normalised(vectors: Float32Array) -> Float32Array:
    """Return vectors of length 1; a vector of zeros stays, and has the cosine 0 to all."""
    norms = np.sqrt(np.einsum("nh,nh->n", vectors, vectors, dtype=np.float64))[:, None]
    scaled: Float32Array = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
    return scaled


def nearest(vectors: Float32Array, number: int) -> tuple[npt.NDArray[np.uint32], Float32Array]:
    """Return the nearest other texts of each of N texts, and their cosines, in falling order.

    Args:
        vectors: float32 [N, H].
        number: how many to return; at most N - 1 are.

    Returns:
        uint32 [N, K] with the numbers of texts, and float32 [N, K] with cosines. Of equal cosines the lower number
        comes first.
    """
    size = len(vectors)
    most = max(0, min(number, size - 1))
    units = normalised(vectors)
    indices = np.empty((size, most), dtype=np.uint32)
    cosines = np.empty((size, most), dtype=np.float32)
    if not most:
        return indices, cosines
    rows = max(1, BLOCK_BYTES // (4 * size))
    for begin in range(0, size, rows):
        block = units[begin : begin + rows] @ units.T
        own = np.arange(len(block))
        block[own, begin + own] = -np.inf
        kept = np.argpartition(block, size - most, axis=1)[:, size - most :]
        values = np.take_along_axis(block, kept, axis=1)
        order = np.lexsort((kept, -values), axis=1)
        indices[begin : begin + rows] = np.take_along_axis(kept, order, axis=1)
        cosines[begin : begin + rows] = np.take_along_axis(values, order, axis=1)
    return indices, cosines.clip(-1, 1)
