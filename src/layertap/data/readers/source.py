"""An input opened for reading: a file, plain or gzipped, or standard input."""

from __future__ import annotations

import gzip
import io
import os
import stat
import sys
from pathlib import Path
from typing import Any, BinaryIO, cast

from layertap.errors import InputError

STANDARD_INPUT = "-"
BUFFER_BYTES = 1 << 20


class Source:
    """An open input.

    Attributes:
        name: what to call it in messages.
        path: the file, or None for standard input.
        stream: its bytes, uncompressed.
        bytes_total: size of the file as stored, or None where it has none (standard input, a pipe).
    """

    def __init__(self, where: str | os.PathLike[str]) -> None:
        self.path = None if os.fspath(where) == STANDARD_INPUT else Path(where)
        self.name = "standard input" if self.path is None else str(self.path)
        self.bytes_total: int | None = None
        if self.path is None:
            raw: Any = sys.stdin.buffer
        else:
            raw = open_raw(self.path)
            status = os.fstat(raw.fileno())
            if stat.S_ISREG(status.st_mode):
                self.bytes_total = status.st_size
        self._raw = raw
        self._counter = _Counter(raw)
        counted = io.BufferedReader(self._counter, BUFFER_BYTES)
        gzipped = self.path is not None and self.path.suffix.lower() == ".gz"
        self.stream: BinaryIO = cast(BinaryIO, gzip.GzipFile(fileobj=counted)) if gzipped else counted

    @property
    def bytes_read(self) -> int:
        """Bytes taken from the file so far, as stored."""
        return self._counter.count

    @property
    def can_be_reread(self) -> bool:
        """Whether the input can be opened a second time from its beginning (a regular file)."""
        return self.bytes_total is not None

    def close(self) -> None:
        """Closes the file; standard input stays open."""
        if self.path is not None:
            self._raw.close()


class _Counter(io.RawIOBase):
    """Counts the bytes that pass."""

    def __init__(self, raw: Any) -> None:
        self.count = 0
        # A pipe hands over what it has: `readinto` of a buffered one would wait for a full buffer.
        self._read = getattr(raw, "readinto1", raw.readinto)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count: int = self._read(buffer) or 0
        self.count += count
        return count


def open_raw(path: Path) -> io.FileIO:
    """Opens a file for reading, unbuffered; raises InputError saying why it cannot be opened."""
    try:
        return path.open("rb", buffering=0)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: this is a directory; name a file in it") from None
    except PermissionError:
        raise InputError(f"{path}: permission to read it is denied") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be opened: {error}") from None
