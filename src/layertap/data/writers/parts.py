"""Files written beside their place under a hidden name, and renamed when whole."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import BinaryIO

from layertap.errors import OutputError, UsageError

BUFFER_BYTES = 1 << 20


class PartFiles:
    """The temporary files of one output.

    They are called `.<name>.<pid>.<n>.part` and stand in the output's own folder, so that renaming is
    one step of the file system.

    Attributes:
        path: the output, or None for standard output.
    """

    def __init__(self, path: Path | None, *, beside: Sequence[Path] = ()) -> None:
        self.path = path
        self._beside = tuple(beside)
        self._open: dict[Path, BinaryIO] = {}
        self._created = count()

    @property
    def name(self) -> str:
        """What to call the output in messages."""
        return "standard output" if self.path is None else str(self.path)

    def create(self) -> BinaryIO:
        """A new temporary file, open for writing and reading back; standard output where the output is that."""
        if self.path is None:
            return sys.stdout.buffer
        part = self.path.with_name(f".{self.path.name}.{os.getpid()}.{next(self._created)}.part")
        part.unlink(missing_ok=True)  # of a dead process that had our number
        file = part.open("x+b", buffering=BUFFER_BYTES)
        self._open[part] = file
        return file

    def remove(self, file: BinaryIO) -> None:
        """Deletes one temporary file whose bytes are needed no more."""
        part = self._part(file)
        del self._open[part]
        file.close()
        part.unlink()

    def commit(self, file: BinaryIO, *companions: BinaryIO | bytes | None) -> None:
        """Makes a temporary file the output and deletes the others.

        Args:
            file: one that `create` gave.
            companions: for each place beside the output, in order: one that `create` gave, its bytes, or None: what
                stands there is of an earlier output, and goes.
        """
        if self.path is None:
            file.flush()
            return
        assert len(companions) == len(self._beside)
        if self.path.exists():
            shutil.copymode(self.path, self._part(file))
        made = [self._written(companion) for companion in companions]
        for part in (file, *made):
            if part is not None:
                _sync_and_close(part)
        # At no time does an output stand beside the companions of another.
        for place in self._beside:
            place.unlink(missing_ok=True)
        self._part(file).replace(self.path)
        for part, place in zip(made, self._beside, strict=True):
            if part is not None:
                self._part(part).replace(place)
        self.discard()
        _sync_folder(self.path.parent)

    def discard(self) -> None:
        """Deletes whatever temporary file is left."""
        for part, file in self._open.items():
            # Closing flushes, which fails again where writing failed; the file goes either way.
            with contextlib.suppress(OSError):
                file.close()
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
        self._open.clear()

    def _written(self, companion: BinaryIO | bytes | None) -> BinaryIO | None:
        if not isinstance(companion, bytes):
            return companion
        part = self.create()
        part.write(companion)
        return part

    def _part(self, file: BinaryIO) -> Path:
        return next(part for part, opened in self._open.items() if opened is file)


def provenance_place(path: Path) -> Path:
    """Where the provenance of an output stands whose format has no place for it."""
    return path.with_name(f"{path.name}.provenance.json")


def offsets_place(path: Path) -> Path:
    """Where it stands where the records of a ragged npy output end."""
    return path.with_name(f"{path.stem}.offsets{path.suffix}")


def check_place(path: Path, *, overwrite: bool) -> None:
    """Refuses a place where a file cannot be put, before any work is done for it."""
    if path.is_dir():
        raise OutputError(f"{path}: this is a directory; name a file in it")
    if path.exists() and not path.is_file():
        raise OutputError(f"{path}: this is no regular file, and an output is written beside and renamed")
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists; name another output, or ask for overwriting (--overwrite)")
    if not path.parent.is_dir():
        raise OutputError(f"{path}: there is no folder {path.parent}; make it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise OutputError(f"{path}: the folder {path.parent} is not writable")


def in_words(error: OSError) -> str:
    """Why the system refused, for a message."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "permission to write there is denied"
    if error.errno == errno.EPIPE:
        return "whoever reads it has stopped reading"
    return error.strerror or str(error)


def _sync_and_close(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
    file.close()


def _sync_folder(folder: Path) -> None:
    # The renaming itself is safe against a power cut only when the folder is. Not every system lets
    # a folder be opened, and not every file system synchronises one.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
