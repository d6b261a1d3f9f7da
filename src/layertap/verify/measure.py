"""Define the two figures by which outputs are compared, and their bounds.

The figures are the largest |error| over the RMS of the expected values, and the smallest cosine of rows. Errors
relative to single values would say little, since the values of a hidden state spread over orders of magnitude.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

FLOAT32_ERROR = 2e-5
FLOAT32_ERROR_DEEP = 1e-4
DEEP_LAYERS = 24
"""Number of blocks from which on rounding errors add up to `FLOAT32_ERROR_DEEP`."""

OWN_ERROR_FACTOR = 1.5
"""Multiple of transformers' own error in float32 that is allowed beyond the bounds above.

Both errors are measured against float64. Trained weights can be far worse conditioned than random ones.
"""

HIGH_FACTOR = 25
"""Multiple of the bound in float32 that errors may have in float32-high on a processor."""
TF32_FACTOR = 500
"""The like on CUDA, where float32-high is TF32: products of numbers with 11 bits, against 24 in float32."""

HALF_COSINE = 0.999
"""Smallest cosine allowed in bfloat16 and float16."""

INT8_COSINE = 0.99
"""Smallest cosine of a single token allowed in int8; means over the tokens of a text are closer."""

FloatArray = npt.NDArray[np.floating]


def float32_bound(num_hidden_layers: int) -> float:
    """Returns the largest allowed |error| over RMS in float32 for a model of so many blocks."""
    return FLOAT32_ERROR_DEEP if num_hidden_layers >= DEEP_LAYERS else FLOAT32_ERROR


class Difference:
    """Largest |error| over RMS and smallest cosine of two arrays that come in parts."""

    def __init__(self) -> None:
        self._largest = 0.0
        self._squares = 0.0
        self._count = 0
        self._cosine = math.inf

    @classmethod
    def of(cls, actual: FloatArray, expected: FloatArray) -> Difference:
        """Computes the difference of two arrays [N, H]."""
        difference = cls()
        difference.add(actual, expected)
        return difference

    def add(self, actual: FloatArray, expected: FloatArray) -> None:
        """Adds N rows of both arrays, [N, H] of any floating dtype; N may be 0."""
        assert actual.shape == expected.shape, (actual.shape, expected.shape)
        if not actual.size:
            return
        one, other = actual.astype(np.float64), expected.astype(np.float64)
        # np.maximum and np.minimum hand NaN on; max and min would lose it.
        self._largest = float(np.maximum(self._largest, np.abs(one - other).max()))
        self._squares += float(np.square(other).sum())
        self._count += other.size
        lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        # Two rows of zeros are the same; one of them is not.
        same_zeros = ~one.any(axis=1) & ~other.any(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            cosines = np.where(same_zeros, 1.0, np.where(lengths > 0, (one * other).sum(axis=1) / lengths, 0.0))
        cosines = np.where(np.isfinite(one).all(axis=1), cosines, np.nan)
        self._cosine = float(np.minimum(self._cosine, cosines.min()))

    @property
    def error_over_rms(self) -> float:
        """Largest |error| over the RMS of the expected values; infinity if a value is not finite."""
        if not self._count:
            return 0.0
        rms = math.sqrt(self._squares / self._count)
        if not math.isfinite(self._largest) or (rms == 0 and self._largest > 0):
            return math.inf
        return self._largest / rms if rms else 0.0

    @property
    def cosine(self) -> float:
        """Smallest cosine of an actual and an expected row; -1 if a value is not finite."""
        if not self._count:
            return 1.0
        return -1.0 if math.isnan(self._cosine) else min(self._cosine, 1.0)
