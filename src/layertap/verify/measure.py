"""What "the same numbers" means: two figures, and their bounds.

Largest |error| over the RMS of what is expected (a hidden state's values spread over orders of magnitude, so that
errors relative to single values say little), and the smallest cosine of rows.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

FLOAT32_ERROR = 2e-5
FLOAT32_ERROR_DEEP = 1e-4
DEEP_LAYERS = 24
"""From so many blocks on, rounding errors add up to `FLOAT32_ERROR_DEEP`."""

OWN_ERROR_FACTOR = 1.5
"""Trained weights can be far worse conditioned than random ones: beyond the bounds above, this many times the error
that transformers itself has in float32 is allowed, both measured against float64."""

HIGH_FACTOR = 25
"""In float32-high errors may be so many times those of float32."""

HALF_COSINE = 0.999
"""Smallest cosine in bfloat16 and float16."""

INT8_COSINE = 0.99
"""Smallest cosine in int8: of single tokens; means over the tokens of a text are closer."""

FloatArray = npt.NDArray[np.floating]


def float32_bound(num_hidden_layers: int) -> float:
    """Largest |error| over RMS in float32 for a model of so many blocks."""
    return FLOAT32_ERROR_DEEP if num_hidden_layers >= DEEP_LAYERS else FLOAT32_ERROR


class Difference:
    """Largest error over RMS and smallest cosine of two arrays that come in parts."""

    def __init__(self) -> None:
        self._largest = 0.0
        self._squares = 0.0
        self._count = 0
        self._cosine = math.inf

    @classmethod
    def of(cls, found: FloatArray, expected: FloatArray) -> Difference:
        """The difference of two arrays [N, H]."""
        difference = cls()
        difference.add(found, expected)
        return difference

    def add(self, found: FloatArray, expected: FloatArray) -> None:
        """Takes N more rows of both: [N, H] of any floating dtype; N may be 0."""
        assert found.shape == expected.shape, (found.shape, expected.shape)
        if not found.size:
            return
        one, other = found.astype(np.float64), expected.astype(np.float64)
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
        """Largest |error| over the RMS of what was expected; infinity where something is not finite."""
        if not self._count:
            return 0.0
        rms = math.sqrt(self._squares / self._count)
        if not math.isfinite(self._largest) or (rms == 0 and self._largest > 0):
            return math.inf
        return self._largest / rms if rms else 0.0

    @property
    def cosine(self) -> float:
        """Smallest cosine of two rows; -1 where something is not finite."""
        if not self._count:
            return 1.0
        return -1.0 if math.isnan(self._cosine) else min(self._cosine, 1.0)
