"""`TensorView`: one stored weight, as bytes with a dtype and a shape (numpy has no bfloat16)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

CHUNK = 1 << 18  # elements looked at together: the temporaries stay in the processor's cache

FLOAT_BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16}
"""Dtypes that weights may have, by the names of the safetensors format, with their widths."""


@dataclass(frozen=True, slots=True, eq=False)
class TensorView:
    """A weight as it lies in its file.

    Attributes:
        dtype: name in the safetensors format ("F32", "BF16", "I64", ...).
        shape: sizes, outermost first; the elements are contiguous, little-endian, row-major.
        buffer: the bytes, usually a memory-mapped part of the file; nothing is copied.
    """

    dtype: str
    shape: tuple[int, ...]
    buffer: memoryview

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def rows(self, begin: int, end: int) -> TensorView:
        """Rows `begin:end` of the outermost axis; nothing is copied."""
        width = self.buffer.nbytes // self.shape[0]
        return TensorView(self.dtype, (end - begin, *self.shape[1:]), self.buffer[begin * width : end * width])

    def to_float32(self) -> npt.NDArray[np.float32]:
        """float32 [shape], exact for F32 (not copied where aligned), F16 and BF16. Only for dtypes of `FLOAT_BITS`.

        F64 is rounded; beyond float32's range it becomes infinity, which `is_finite` tells.
        """
        stored = self._stored()
        if self.dtype == "BF16":
            # bfloat16 is the upper half of a float32
            wide = stored.astype("<u4") << 16
            return wide.view("<f4").reshape(self.shape)
        with np.errstate(over="ignore"):
            return np.require(stored, dtype=np.float32, requirements="A").reshape(self.shape)

    def is_finite(self) -> bool:
        """Whether every element is finite as a float32; without temporaries of the tensor's size."""
        stored = self._stored()
        return all(self._are_finite(stored[i : i + CHUNK]) for i in range(0, len(stored), CHUNK))

    def _are_finite(self, chunk: npt.NDArray[Any]) -> bool:
        if self.dtype == "BF16":
            # every bit of the exponent set means NaN or infinity
            return bool((chunk & 0x7F80).max() < 0x7F80)
        if self.dtype == "F64":
            return bool(np.abs(chunk).max() <= np.finfo(np.float32).max)  # False for NaN, too
        return bool(np.isfinite(chunk).all())

    def _stored(self) -> npt.NDArray[Any]:
        """The elements, flat; BF16 as uint16."""
        return np.frombuffer(self.buffer, dtype={"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}[self.dtype])
