"""Buffers for the vectors of a dataset: in memory up to a limit, beyond it in temporary files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from layertap.errors import OutputError
from layertap.files import allocate_file, reason, scratch_folder
from layertap.learn.arrays import Float32Array

MEMORY_BYTES = 1 << 30
"""Default size of the vectors that are kept in memory."""


class VectorBuffers:
    """Allocator of arrays for vectors, in memory up to a limit and beyond it in files of a temporary folder.

    Attributes:
        bytes_left: bytes that may still be allocated in memory.
    """

    def __init__(self, folder: Path, memory_bytes: int) -> None:
        self.bytes_left = memory_bytes
        self._folder = folder
        self._count = 0

    def allocate(self, layers: int, count: int, width: int) -> Float32Array:
        """Allocate a float32 array [L, N, H], whose values are undefined.

        Raises:
            OutputError: the disk has no room for it.
        """
        size = 4 * layers * count * width
        if size <= self.bytes_left:
            self.bytes_left -= size
            return np.empty((layers, count, width), dtype=np.float32)
        path = self._folder / f"vectors{self._count}"
        self._count += 1
        try:
            allocate_file(path, size)
        except OSError as error:
            raise OutputError(
                f"{path}: there is no room for {size:,} bytes of vectors: {reason(error)}; use fewer layers, or allow "
                "more memory (--memory)"
            ) from None
        return np.memmap(path, dtype=np.float32, mode="r+", shape=(layers, count, width))


@contextmanager
def vector_buffers(folder: Path | None, memory_bytes: int) -> Iterator[VectorBuffers]:
    """Provide buffers that are released at the end.

    Args:
        folder: folder for temporary files; None stands for that of the system.
        memory_bytes: size of the vectors that may be kept in memory.
    """
    with scratch_folder(folder, "layertap-vectors") as place:
        yield VectorBuffers(place, memory_bytes)
