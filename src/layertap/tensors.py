"""`TensorView`: a stored weight as bytes with a dtype and a shape (numpy has no bfloat16)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

CHUNK = 1 << 18  # elements checked at once, so that the temporaries stay in the processor's cache

FLOAT_BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16}
"""Dtypes that weights may have, by their names in the safetensors format -> bits."""


class UnreadBytes(Protocol):
    """Bytes of a file that are read when they are needed, as `stored_file.StoredBytes`."""

    @property
    def nbytes(self) -> int:
        """Number of bytes in all."""

    def part(self, begin: int, end: int) -> UnreadBytes:
        """Return bytes `begin:end` of these, still unread."""

    def read(self) -> memoryview:
        """Copy the bytes into memory."""


@dataclass(frozen=True, slots=True, eq=False)
class TensorView:
    """A weight as it is stored: its bytes, in memory or still in a file, with a dtype and a shape.

    Attributes:
        dtype: name in the safetensors format ("F32", "BF16", "I64", ...).
        shape: sizes, outermost first; the elements are contiguous, little-endian, row-major.
        data: the bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    data: memoryview | UnreadBytes

    @property
    def size(self) -> int:
        """Number of elements in the tensor."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Number of bytes that the elements take."""
        return self.data.nbytes

    @property
    def buffer(self) -> memoryview:
        """Bytes in memory; those of a view that is not loaded are read anew each time."""
        return self.data if isinstance(self.data, memoryview) else self.data.read()

    def loaded(self) -> TensorView:
        """Return the view with its bytes in memory."""
        return self if isinstance(self.data, memoryview) else TensorView(self.dtype, self.shape, self.data.read())

    def rows(self, begin: int, end: int) -> TensorView:
        """Return rows `begin:end` of the outermost axis, without copying or reading them."""
        width = self.nbytes // self.shape[0]
        first, last = begin * width, end * width
        data = self.data[first:last] if isinstance(self.data, memoryview) else self.data.part(first, last)
        return TensorView(self.dtype, (end - begin, *self.shape[1:]), data)

    def to_float32(self) -> npt.NDArray[np.float32]:
        """Convert to float32 [shape]; exact for F32 (not copied if aligned), F16 and BF16.

        Only for the dtypes in `FLOAT_BITS`. F64 is rounded; values beyond float32's range become infinity, which
        `is_finite` reports.
        """
        stored = self._stored()
        if self.dtype == "BF16":
            # bfloat16 is the upper half of a float32
            wide = stored.astype("<u4") << 16
            return wide.view("<f4").reshape(self.shape)
        with np.errstate(over="ignore"):
            return np.require(stored, dtype=np.float32, requirements="A").reshape(self.shape)

    def is_finite(self) -> bool:
        """Return whether every element is finite as a float32, without temporaries of the tensor's size."""
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
        """Return the elements as a flat array; BF16 as uint16."""
        return np.frombuffer(self.buffer, dtype={"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}[self.dtype])
