"""System calls that create, write, rename and remove files.

All files of the project are written through this module, so that tests can inject a fault at every call. The functions
add nothing to the calls but portability; their callers decide what a failure means.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import io
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

CALLS = (
    "allocate",
    "create",
    "link",
    "lock",
    "make_folder",
    "open_existing",
    "remove_folder",
    "rename",
    "rename_new",
    "set_mode",
    "sync",
    "sync_folder",
    "truncate",
    "unlink",
    "write",
)
"""Names of the functions below at which a fault can be injected."""

UNSUPPORTED = frozenset(
    {errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTTY, errno.EPERM, errno.ENOLCK, errno.EMLINK}
)
"""Error numbers of calls that the kernel, a sandbox or the file system does not support."""

AT_FDCWD = -100
RENAME_NOREPLACE = 1


class RawFile(io.FileIO):
    """Unbuffered file that is written through the functions of this module."""

    def write(self, data: Buffer, /) -> int:
        """Write bytes, and return how many were written."""
        return write(self, data)

    def truncate(self, size: int | None = None, /) -> int:
        """Truncate the file, and return its size."""
        return truncate(self, self.tell() if size is None else size)


def create(path: Path) -> RawFile:
    """Create a file for writing and reading back.

    Raises:
        FileExistsError: the name is taken, by a link too.
    """
    return RawFile(path, "x+")


def open_existing(path: Path) -> RawFile:
    """Open a file for reading, for example to lock it."""
    return RawFile(path, "r")


def write(file: io.FileIO, data: Buffer) -> int:
    """Write bytes to a file, and return how many were written."""
    return io.FileIO.write(file, data) or 0


def truncate(file: io.FileIO, size: int) -> int:
    """Truncate a file to `size` bytes, and return its size."""
    return io.FileIO.truncate(file, size)


def allocate(file: io.FileIO, size: int) -> None:
    """Reserve `size` bytes on the disk, as a full disk ends processes that write to a mapped file with holes."""
    os.posix_fallocate(file.fileno(), 0, size)


def sync(file: BinaryIO | io.FileIO) -> None:
    """Synchronise the content of a file to the disk."""
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Synchronise the names in a folder to the disk, if the file system supports that."""
    # Not every system lets a folder be opened, and not every file system synchronises one.
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
    finally:
        os.close(handle)


def make_folder(path: Path, mode: int = 0o777) -> None:
    """Create a folder; its parent must exist."""
    path.mkdir(mode)


def set_mode(path: Path, mode: int) -> None:
    """Set the permission bits of a file."""
    path.chmod(mode)


def rename(source: Path, place: Path) -> None:
    """Rename a file or a folder; a file at `place` is replaced in the same step."""
    source.rename(place)


def rename_new(source: Path, place: Path) -> None:
    """Rename a file or a folder in one step, if the new name is free.

    Raises:
        FileExistsError: the name is taken.
        OSError: with a number in `UNSUPPORTED` if the system cannot do that.
    """
    renameat2 = _renameat2()
    if renameat2 is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if renameat2(AT_FDCWD, os.fsencode(source), AT_FDCWD, os.fsencode(place), RENAME_NOREPLACE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(source), None, str(place))


def link(source: Path, place: Path) -> None:
    """Give a file a second name.

    Raises:
        FileExistsError: the name is taken.
    """
    place.hardlink_to(source)


def unlink(path: Path) -> None:
    """Remove the name of a file."""
    path.unlink()


def remove_folder(path: Path) -> None:
    """Remove an empty folder."""
    path.rmdir()


def lock(file: io.FileIO) -> bool:
    """Lock a file for as long as it is open.

    Returns:
        True if the file is locked, False if another open file holds the lock.

    Raises:
        OSError: the file system has no locks.
    """
    if fcntl is None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@cache
def _renameat2() -> Any:
    with contextlib.suppress(AttributeError, OSError, TypeError):
        function = ctypes.CDLL(None, use_errno=True).renameat2
        function.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
        return function
    return None
