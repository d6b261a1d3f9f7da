"""Arithmetic of merged adapters: a weight and the low-rank change of it, computed when the weight is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from layertap.tensors import TensorView

Float64Array = npt.NDArray[np.float64]

ROW_VALUES = 1 << 20
"""Values of a weight that are computed at once, so that a large table does not need as much memory again."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LowRankChange:
    """Low-rank change of a weight [N, M], as LoRA defines it.

    A linear layer [out, in] becomes W + scale * B @ A, a table of embeddings [rows, size] W + scale * (B @ A).T. With
    a magnitude (DoRA), each output's weights are then scaled to a norm of that size: rows of a linear layer, columns
    of a table.

    Attributes:
        a: [rank, in], or [rank, rows] of a table.
        b: [out, rank], or [size, rank] of a table.
        scale: factor of the product.
        is_table: whether the weight is a table of embeddings.
        magnitude: norms of the outputs, [out] or [size], or None.
    """

    a: TensorView
    b: TensorView
    scale: float
    is_table: bool
    magnitude: TensorView | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the weight that is changed."""
        height, width = self.b.shape[0], self.a.shape[1]
        return (width, height) if self.is_table else (height, width)

    def factors(self) -> tuple[Float64Array, Float64Array]:
        """Return two float64 arrays [N, rank] and [rank, M] whose product is the change."""
        a, b = _float64(self.a), _float64(self.b)
        return (a.T * self.scale, b.T) if self.is_table else (b * self.scale, a)


@dataclass(frozen=True, slots=True, eq=False)
class MergedBytes:
    """Bytes of a weight with a change merged into it, float32 and little-endian, computed when they are read.

    They are computed in float64 and rounded once, so that they hardly depend on the order in which a machine's library
    adds.

    Attributes:
        base: the weight that is changed, [N, M].
        change: what is merged into it.
        begin, end: rows of it that these bytes are.
    """

    base: TensorView
    change: LowRankChange
    begin: int
    end: int

    @classmethod
    def of(cls, base: TensorView, change: LowRankChange) -> MergedBytes:
        """Return the bytes of a whole weight."""
        return cls(base, change, 0, base.shape[0])

    @property
    def nbytes(self) -> int:
        """Number of bytes in all."""
        return (self.end - self.begin) * self._width

    @property
    def _width(self) -> int:
        return 4 * self.base.shape[1]

    def part(self, begin: int, end: int) -> MergedBytes:
        """Return bytes `begin:end` of these, which must be whole rows, still to be computed."""
        first, last = begin // self._width, end // self._width
        assert (first * self._width, last * self._width) == (begin, end), "a part of a merged weight has whole rows"
        return MergedBytes(self.base, self.change, self.begin + first, self.begin + last)

    def read(self) -> memoryview:
        """Compute the merged values and return them as bytes."""
        change, base = self.change, self.base.loaded()
        left, right = change.factors()
        magnitude = None if change.magnitude is None else _float64(change.magnitude)
        step = max(1, ROW_VALUES // max(1, base.shape[1]))

        def rows(begin: int, end: int) -> Float64Array:
            return _float64(base.rows(begin, end)) + left[begin:end] @ right

        factor: Float64Array | None = None
        if magnitude is not None and change.is_table:
            squares = np.zeros(base.shape[1])
            for begin in range(0, base.shape[0], step):
                squares += np.square(rows(begin, min(begin + step, base.shape[0]))).sum(axis=0)
            factor = _quotient(magnitude, np.sqrt(squares))
        merged = np.empty((self.end - self.begin, base.shape[1]), dtype="<f4")
        # Values beyond float32's range become infinity, which the check of the weight reports.
        with np.errstate(over="ignore", invalid="ignore"):
            for begin in range(self.begin, self.end, step):
                end = min(begin + step, self.end)
                values = rows(begin, end)
                if factor is not None:
                    values *= factor
                elif magnitude is not None:
                    norms = np.sqrt(np.square(values).sum(axis=1))
                    values *= _quotient(magnitude[begin:end], norms)[:, np.newaxis]
                merged[begin - self.begin : end - self.begin] = values
        return memoryview(merged.reshape(-1).view(np.uint8).data)


def _float64(view: TensorView) -> npt.NDArray[Any]:
    return view.to_float32().astype(np.float64)


def _quotient(magnitude: Float64Array, norms: Float64Array) -> Float64Array:
    """Divide magnitudes by norms; a norm of 0 gives NaN or infinity, which the check of the weight reports."""
    with np.errstate(divide="ignore", invalid="ignore"):
        quotient: Float64Array = magnitude / norms
    return quotient
