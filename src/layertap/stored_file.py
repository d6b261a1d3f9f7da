"""`StoredFile`: a regular file that is held open for reads at given places, and that notices when it changes.

Bytes are copied into memory (`pread`) instead of being mapped. A mapping of a file that somebody truncates ends the
process with SIGBUS at the next touch; a read comes back short, which is an error with a message.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from layertap.errors import LayertapError

SMALL_FILE_BYTES = 16 << 20
"""Default limit of `read_whole`: far above any real `config.json` or index, and little enough to be parsed."""

HASH_BYTES = 1 << 18
SET_BACK = "it was written to, and its modification time was set back"

KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@dataclass(frozen=True, slots=True)
class FileState:
    """Identity of a file's content, as far as the file system tells it without reading the file.

    Attributes:
        place: device and inode.
        size: bytes.
        modified: modification time in nanoseconds.
        changed: change time (ctime) in nanoseconds; also moves when links, owner or mode change.
        metadata: number of links, owner, group, mode.
    """

    place: tuple[int, int]
    size: int
    modified: int
    changed: int
    metadata: tuple[int, int, int, int]

    @classmethod
    def of(cls, status: os.stat_result) -> FileState:
        """Build the state from what `os.stat` or `os.fstat` returned."""
        return cls(
            place=(status.st_dev, status.st_ino),
            size=status.st_size,
            modified=status.st_mtime_ns,
            changed=status.st_ctime_ns,
            metadata=(status.st_nlink, status.st_uid, status.st_gid, status.st_mode),
        )

    def difference(self, now: FileState) -> str | None:
        """Describe what tells a later state from this one, or return None if the content is taken to be equal.

        A change time that moved alone means that somebody wrote to the file and set its modification time back
        (`cp --preserve`, `rsync --inplace --times`), unless a change of links, owner or mode explains it.
        """
        if now.place != self.place:
            return "another file took its place"
        if now.size != self.size:
            return f"it had {self.size} bytes and now has {now.size}"
        if now.modified != self.modified:
            return "it was written to"
        if now.changed != self.changed and now.metadata == self.metadata:
            return SET_BACK
        return None


ALIGNMENT = 64
"""Size of a cache line in bytes. Matrix products round differently depending on where in one their data begins."""


def _buffer(size: int, begin: int) -> memoryview:
    """Make a buffer whose address is that of a mapping of the file, modulo `ALIGNMENT`.

    The bits of results then depend on the file and not on the allocator. Bytes whose place in the file is no multiple
    of 8 are aligned to a cache line instead.
    """
    if size == 0:
        return memoryview(bytearray())
    whole = np.empty(size + ALIGNMENT, dtype=np.uint8)
    wanted = begin % ALIGNMENT if begin % 8 == 0 else 0
    first = (wanted - whole.ctypes.data) % ALIGNMENT
    return whole[first : first + size].data


class StoredFile:
    """A regular file, held open and read at given places; refuses to be read once its content has changed.

    A file that is replaced by renaming another one over it stays readable: the open descriptor keeps the old one.
    Reads may come from several threads and, after a fork, from several processes.

    Args:
        path: the file; links are followed.
        error: class of every error that is raised.

    Raises:
        LayertapError: of the class `error`: no such file, no permission, or not a regular file (a named pipe or a
            device, which might never end).
    """

    def __init__(self, path: Path, *, error: type[LayertapError]) -> None:
        self.path = path
        self._error = error
        self._descriptor = -1
        try:
            # O_NONBLOCK: opening a named pipe would wait for its writer.
            flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
            self._descriptor = os.open(path, flags)
            status = os.fstat(self._descriptor)
        except (OSError, ValueError) as problem:
            raise error(f"{path}: cannot be read: {reason_of(problem)}") from problem
        kind = KINDS.get(stat.S_IFMT(status.st_mode))
        if kind is not None:
            self.close()
            raise error(f"{path}: cannot be read: this is {kind}; name a regular file")
        self.state = FileState.of(status)
        self.size = status.st_size

    def __del__(self) -> None:
        # As the interpreter ends, the functions of `os` may be gone already; the system then closes the descriptor.
        if getattr(os, "close", None) is not None:
            self.close()

    def close(self) -> None:
        """Close the descriptor; a second call does nothing, and later reads are refused."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._descriptor < 0

    def check(self) -> None:
        """Refuse a file whose content is not what was opened.

        Raises:
            LayertapError: of the file's error class, saying what changed.
        """
        if self.closed:
            raise self._error(f"{self.path}: this file was closed; open it again")
        difference = self.state.difference(FileState.of(os.fstat(self._descriptor)))
        # A rename of the file, or of another one over it, moves the change time too.
        if difference is None or (difference == SET_BACK and self._is_elsewhere()):
            return
        raise self._error(f"{self.path}: it changed after it was opened: {difference}; open it again")

    def _is_elsewhere(self) -> bool:
        """Return whether the path leads to another file by now."""
        try:
            status = self.path.stat()
        except OSError:
            return True
        return (status.st_dev, status.st_ino) != self.state.place

    def read(self, begin: int, end: int) -> memoryview:
        """Copy bytes `begin:end` into memory; the buffer is writable and aligned.

        Raises:
            LayertapError: of the file's error class: the file changed or cannot be read.
        """
        buffer = _buffer(end - begin, begin)
        self.read_into(buffer, begin)
        return buffer

    def read_into(self, buffer: memoryview, begin: int) -> None:
        """Fill a buffer with the bytes from `begin` on; errors as `read`."""
        self.check()
        place = 0
        while place < len(buffer):
            try:
                count = os.preadv(self._descriptor, [buffer[place:]], begin + place)
            except OSError as problem:
                raise self._error(f"{self.path}: cannot be read: {reason_of(problem)}") from problem
            if count == 0:
                break
            place += count
        # Once more: what was written between the check and the read is not handed out.
        self.check()
        if place < len(buffer):
            raise self._error(
                f"{self.path}: expected bytes up to {begin + len(buffer)}, found the end of the file at {begin + place}"
            )

    def read_whole(self, limit: int = SMALL_FILE_BYTES) -> bytes:
        """Read a small file from beginning to end.

        Raises:
            LayertapError: of the file's error class: the file is larger than `limit` bytes.
        """
        if self.size > limit:
            raise self._error(f"{self.path}: expected at most {limit:,} bytes, found {self.size:,}")
        return bytes(self.read(0, self.size))

    def sha256(self) -> str:
        """Hexadecimal sha256 of the content that was opened."""
        digest, buffer = hashlib.sha256(), memoryview(bytearray(HASH_BYTES))
        for begin in range(0, self.size, HASH_BYTES):
            part = buffer[: min(HASH_BYTES, self.size - begin)]
            self.read_into(part, begin)
            digest.update(part)
        return digest.hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class StoredBytes:
    """Bytes of a `StoredFile`, read when they are asked for.

    Attributes:
        file: the open file.
        begin: where they begin in it.
        nbytes: how many there are.
    """

    file: StoredFile
    begin: int
    nbytes: int

    def part(self, begin: int, end: int) -> StoredBytes:
        """Return bytes `begin:end` of these, still unread."""
        assert 0 <= begin <= end <= self.nbytes
        return StoredBytes(self.file, self.begin + begin, end - begin)

    def read(self) -> memoryview:
        """Copy the bytes into memory; errors as `StoredFile.read`."""
        return self.file.read(self.begin, self.begin + self.nbytes)


class StoredFileStream(io.RawIOBase):
    """An open `StoredFile` as a binary stream with a position of its own, for libraries that read streams.

    Closing the stream leaves the file open.
    """

    def __init__(self, file: StoredFile) -> None:
        self._file = file
        self._place = 0

    def readable(self) -> bool:
        """Return True: the stream can be read."""
        return True

    def seekable(self) -> bool:
        """Return True: the position can be moved."""
        return True

    def tell(self) -> int:
        """Return the position in the file."""
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the position, as for any binary stream."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._file.size}[whence]
        if start + offset < 0:
            raise ValueError(f"negative position {start + offset}")
        self._place = start + offset
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer from the position on, or with what is left of the file."""
        target = memoryview(buffer).cast("B")
        count = max(0, min(len(target), self._file.size - self._place))
        if count:
            self._file.read_into(target[:count], self._place)
        self._place += count
        return count


def read_whole(path: Path, *, error: type[LayertapError], limit: int = SMALL_FILE_BYTES) -> bytes:
    """Read a small regular file; every failure is an `error` that names the file."""
    file = StoredFile(path, error=error)
    try:
        return file.read_whole(limit)
    finally:
        file.close()


def reason_of(problem: OSError | ValueError) -> str:
    """Say in a few words why the system refused a path."""
    if isinstance(problem, ValueError):
        return "its name holds a NUL character" if "null" in str(problem) else str(problem)
    reasons = {
        errno.ENOENT: "no such file",
        errno.EACCES: "permission to read it is denied",
        errno.ENAMETOOLONG: "its name is too long for the file system",
    }
    return reasons.get(problem.errno or 0) or problem.strerror or str(problem)
