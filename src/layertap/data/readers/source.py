"""An input opened for reading: a file, a pipe or standard input, plain or compressed, in any encoding."""

from __future__ import annotations

import io
import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from layertap.data.folder.layout import PLAN
from layertap.data.readers.compression import BUFFER_BYTES, compression_named, compression_of, uncompressed
from layertap.data.readers.encoding import BOMS, UTF8, Transcoded, same_family
from layertap.data.readers.signatures import check_is_no_tar, check_is_text, may_be_other
from layertap.data.remote import RemoteEntry, RemotePlace, is_remote
from layertap.errors import InputError, printable

STANDARD_INPUT = "-"

SNIFFED_BYTES = 32
"""First bytes that are looked at to recognise compressions, byte order marks and files that are no text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileState:
    """Identity, size and time of a regular file; two equal states mean that the file has not changed in between.

    Attributes:
        device, inode: the file itself, whatever its name is.
        size: bytes as stored.
        modified_ns: time of the last change, in nanoseconds.
        stamp: what tells versions of a remote file apart, which has no device, inode and time.
    """

    device: int
    inode: int
    size: int
    modified_ns: int
    stamp: str = ""

    @classmethod
    def of(cls, file: int | Path) -> FileState | None:
        """Read the state of a descriptor or path; None for pipes, devices and whatever else is no regular file."""
        status = os.stat(file)  # noqa: PTH116 - takes descriptors too
        if not stat.S_ISREG(status.st_mode):
            return None
        return cls(device=status.st_dev, inode=status.st_ino, size=status.st_size, modified_ns=status.st_mtime_ns)


def can_be_reread(where: str | os.PathLike[str]) -> bool:
    """Return whether an input can be opened more than once: a regular file can, a pipe and standard input cannot.

    A path that does not exist, or that cannot be looked at, counts as one that can: opening it says what is wrong.
    """
    if os.fspath(where) == STANDARD_INPUT:
        return False
    if is_remote(where):
        return True
    try:
        return Path(where).is_dir() or FileState.of(Path(where)) is not None
    except (OSError, ValueError):
        return True


def name_of(where: str | os.PathLike[str]) -> str:
    """Return the name of an input for messages."""
    return "standard input" if os.fspath(where) == STANDARD_INPUT else printable(os.fspath(where))


class Source:
    """Input that is open for reading.

    Args:
        where: a file, the URL of one, or `-` for standard input.
        encoding: name of its encoding, or None for UTF-8; a byte order mark overrides it.

    Attributes:
        name: name of the input for messages.
        where: the place that was given.
        path: the file, or None for standard input; of a remote file only its name.
        is_remote: whether the file is not on a disk.
        state: identity, size and time of a regular file when it was opened; None if the input cannot be opened a
            second time (standard input, a pipe, a device).
        notes: remarks on how the input is read, in whole sentences.
    """

    def __init__(self, where: str | os.PathLike[str], *, encoding: str | None = None) -> None:
        self.where = where
        self.is_remote = is_remote(where)
        self.path = None if os.fspath(where) == STANDARD_INPUT else Path(where)
        self.name = name_of(where)
        self.state: FileState | None = None
        self.notes: list[str] = []
        if self.path is None:
            if sys.stdin is None:
                raise InputError("standard input is closed; name a file, or redirect one")
            raw: Any = sys.stdin.buffer
        elif self.is_remote:
            raw = RemotePlace.of(os.fspath(where)).open()
            self.path = Path(PurePosixPath(raw.place.path).name)
            self.state = _remote_state(raw.entry)
        else:
            raw = open_raw(self.path)
            self.state = FileState.of(raw.fileno())
        self._raw = raw
        self._counter = _Counter(raw)
        self._encoding = encoding
        self._stream: BinaryIO | None = None

    @property
    def stream(self) -> BinaryIO:
        """Bytes of the text: uncompressed, in UTF-8, without a byte order mark.

        Raises:
            InputError: the first bytes are those of a file that is no text.
        """
        if self._stream is None:
            self._stream = self._opened()
        return self._stream

    def head(self, size: int) -> bytes:
        """Return the first `size` bytes of the stream (all of a shorter one), which are read again afterwards.

        It has to be called before anything is read from the stream.
        """
        stream = self.stream
        begin = stream.read(size)
        self._stream = _replayed(begin, stream)
        return begin

    def first_line(self, size: int) -> bytes:
        """Return the first line that is not blank, or its first `size` bytes; it is read again afterwards.

        It has to be called before anything is read from the stream.
        """
        stream = self.stream
        lines: list[bytes] = []
        left = size
        while line := stream.readline(size):
            lines.append(line)
            left -= len(line)
            if line.strip() or left <= 0:
                break
        self._stream = _replayed(b"".join(lines), stream)
        return lines[-1].strip() if lines else b""

    def _opened(self) -> BinaryIO:
        if self.path is not None:
            check_is_no_tar(self.path, name=self.name)
        counted: Any = io.BufferedReader(self._counter, BUFFER_BYTES)
        begin = _first_bytes(counted)
        stream = _replayed(begin, counted)
        compression = compression_of(begin)
        expected = None if self.path is None else compression_named(self.path.suffix)
        if compression is not None:
            stream = uncompressed(stream, compression)
            begin = _first_bytes(stream)
            stream = _replayed(begin, stream)
        elif expected is not None and begin:
            raise InputError(
                f"{self.name}: the name ends in {expected.suffix}, but this is not a file that {expected.name} made; "
                f"take {expected.suffix} off its name"
            )
        check_is_text(begin, name=self.name, path=self.path)
        mark = next((mark for mark in BOMS if begin.startswith(mark)), b"")
        encoding = self._encoding or UTF8
        if mark:
            stream.read(len(mark))
            if self._encoding is not None and not same_family(self._encoding, BOMS[mark]):
                self.notes.append(f"read as {BOMS[mark]}, as its byte order mark says, and not as {self._encoding}")
            encoding = BOMS[mark]
        if encoding == UTF8:
            return stream
        return cast(BinaryIO, io.BufferedReader(Transcoded(stream, encoding), BUFFER_BYTES))

    @property
    def bytes_total(self) -> int | None:
        """Size of the file as stored, or None if it has none (standard input, a pipe)."""
        return None if self.state is None else self.state.size

    @property
    def bytes_read(self) -> int:
        """Bytes taken from the file so far, as stored."""
        return self._counter.count

    @property
    def can_be_reread(self) -> bool:
        """Whether the input can be opened a second time from its beginning (a regular file)."""
        return self.state is not None

    def check_unchanged(self) -> None:
        """Refuse a file whose size or time of change is no longer what it was when the file was opened.

        Raises:
            InputError: the file grew, shrank or was written to in the meantime.
        """
        if self.state is not None:
            now = self.state_now() if self.is_remote else FileState.of(self._raw.fileno())
            check_same(self.name, self.state, now)

    def state_now(self) -> FileState | None:
        """Return the state of the file at the input's place at this moment.

        Raises:
            InputError: a remote file cannot be looked at.
        """
        if self.path is None:
            return None
        if self.is_remote:
            entry = self._raw.place.entry()
            return None if entry is None else _remote_state(entry)
        return FileState.of(self.path)

    def for_arrow(self) -> Any:
        """Return what Arrow opens: the path of a local file, and a remote file itself."""
        return self._raw if self.is_remote else self.path

    def close(self) -> None:
        """Close the file; standard input stays open."""
        if self.path is not None:
            self._raw.close()


def _remote_state(entry: RemoteEntry) -> FileState:
    return FileState(device=0, inode=0, size=entry.size, modified_ns=0, stamp=entry.stamp)


def check_same(name: str, before: FileState | None, now: FileState | None) -> None:
    """Refuse an input of which two readings, or the beginning and the end of one, do not see the same file.

    Args:
        name: name of the input for messages.
        before: state of the file when it was opened first.
        now: its state now.

    Raises:
        InputError: another file stands there now, or the file was written to.
    """
    if now == before:
        return
    if now is None or before is None or (now.device, now.inode) != (before.device, before.inode):
        what = "another file took its place"
    elif now.size != before.size:
        what = f"it had {before.size:,} bytes at first and has {now.size:,} now"
    else:
        what = "something wrote to it"
    raise InputError(f"{name} changed while it was read: {what}; run again when nothing writes to it, or on a copy")


def _first_bytes(stream: Any) -> bytes:
    """Read as many first bytes as are needed to tell what a stream is: from a pipe, not more than it may have to offer.

    A text is told from everything else by its first bytes; only one that begins as another kind of file does is read
    further.
    """
    begin = b""
    while len(begin) < SNIFFED_BYTES and may_be_other(begin):
        more = stream.read1(SNIFFED_BYTES - len(begin))
        if not more:
            break
        begin += more
    return begin


def _replayed(begin: bytes, rest: Any) -> BinaryIO:
    """Return a stream of the bytes that have been read, and then of the rest."""
    return cast(BinaryIO, io.BufferedReader(_Replayed(begin, rest), BUFFER_BYTES)) if begin else rest


class _Replayed(io.RawIOBase):
    """Raw stream of bytes that are held, and then of another stream."""

    def __init__(self, begin: bytes, rest: Any) -> None:
        self._begin = begin
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._begin:
            count: int = self._rest.readinto1(buffer)
            return count
        count = min(len(buffer), len(self._begin))
        buffer[:count] = self._begin[:count]
        self._begin = self._begin[count:]
        return count


class _Counter(io.RawIOBase):
    """Raw stream that counts the bytes that pass through it."""

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
    """Open a file for reading, unbuffered.

    Raises:
        InputError: the file cannot be opened; the message says why.
    """
    name = printable(path)
    try:
        return path.open("rb", buffering=0)
    except FileNotFoundError:
        pattern = any(character in name for character in "*?[")
        more = "; for all files of a pattern, let the output be a folder (-o FOLDER/)" if pattern else ""
        raise InputError(f"{name}: no such file{more}") from None
    except IsADirectoryError:
        if (path / PLAN).is_file():
            raise InputError(
                f"{name}: this is a folder of features, and a file of records is expected; layertap.open reads it, and "
                f"'layertap export {name} -o FILE' makes one file of it"
            ) from None
        raise InputError(
            f"{name}: this is a directory; name a file in it, or let the output be a folder (-o FOLDER/), or join its "
            f"files: cat {name}/* | layertap extract - ..."
        ) from None
    except PermissionError:
        raise InputError(f"{name}: permission to read it is denied") from None
    except OSError as error:
        raise InputError(f"{name}: cannot be opened: {error.strerror or error}") from None
    except ValueError as error:  # a NUL in the name
        raise InputError(f"{name}: cannot be opened: {error}") from None
