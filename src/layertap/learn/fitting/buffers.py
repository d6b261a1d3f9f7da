"""Vectors of a training part, extracted once: in memory, or in a file where they are many."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from layertap.errors import OutputError
from layertap.files import allocate_file, reason, scratch_folder

Float32 = npt.NDArray[np.float32]

MEMORY_BYTES = 1 << 30
"""Vectors up to this size are held in memory."""


class VectorSpace:
    """Room for the vectors of several parts: in memory up to a size, beyond it in temporary files.

    Attributes:
        left: bytes that memory still takes.
    """

    def __init__(self, folder: Path, memory_bytes: int) -> None:
        self.left = memory_bytes
        self._folder = folder
        self._count = 0

    def room(self, layers: int, count: int, width: int) -> Float32:
        """A float32 array [L, N, H] to be filled.

        Raises:
            OutputError: it does not fit on the disk either.
        """
        size = 4 * layers * count * width
        if size <= self.left:
            self.left -= size
            return np.empty((layers, count, width), dtype=np.float32)
        path = self._folder / f"vectors{self._count}"
        self._count += 1
        try:
            allocate_file(path, size)
        except OSError as error:
            raise OutputError(
                f"{path}: {size:,} bytes of vectors cannot be kept there: {reason(error)}; take fewer layers, or "
                "allow more memory (--memory)"
            ) from None
        return np.memmap(path, dtype=np.float32, mode="r+", shape=(layers, count, width))


@contextmanager
def vector_space(folder: Path | None, memory_bytes: int) -> Iterator[VectorSpace]:
    """Room for vectors, which is given back at the end.

    Args:
        folder: where temporary files go; None: where the system keeps them.
        memory_bytes: what may be held in memory.
    """
    with scratch_folder(folder, "layertap-vectors") as place:
        yield VectorSpace(place, memory_bytes)
