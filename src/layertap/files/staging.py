"""Staging folders: hidden folders in which the files of an output are written before they are put in place."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import platform
import re
import stat
import time
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import BinaryIO, cast

from layertap.files import system

BUFFER_BYTES = 1 << 20
LOCK = "lock"
ENDING = ".part"

LONGEST_NAME = 80
"""Largest number of bytes of an output's name in the names of its hidden files; file systems allow 143 or more."""

SAFE_AGE = 24 * 60 * 60.0
"""Seconds without a write after which a staging folder of another system is considered abandoned."""


class Staging:
    """Staging folder `.<name>.<system>-<random>.part`, beside the output, or inside an output that is a folder.

    The file `lock` in it is locked while the process lives. A folder whose lock is free was therefore left by a process
    that was killed, and `remove_leftovers` removes it. Locks prove nothing about processes on other systems that share
    the disk; folders of those are removed when they have not been written to for a day.

    Attributes:
        path: path of the staging folder.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.path, self._lock = _new_staging(folder, name)
        self._files: dict[str, BinaryIO] = {}
        self._is_left = False

    def create(self, name: str) -> BinaryIO:
        """Create a file in the staging folder, open for writing and reading."""
        # A user's umask decides who may read the file once it has its name.
        file = cast(BinaryIO, io.BufferedRandom(system.create(self.path / name), BUFFER_BYTES))
        self._files[name] = file
        return file

    def finish(self, name: str) -> None:
        """Synchronise a file to the disk and close it."""
        file = self._files[name]
        file.flush()
        system.sync(file)
        file.close()
        del self._files[name]

    def remove(self, name: str) -> None:
        """Close and remove a file of the folder."""
        self._files.pop(name).close()
        system.unlink(self.path / name)

    def discard(self) -> None:
        """Remove the staging folder and its files, with a warning if that fails."""
        if self._is_left:
            return
        self._close_files()
        try:
            _remove(self.path)
        except BaseException:  # Ctrl-C
            _remove(self.path)
            raise
        finally:
            self.leave()

    def leave(self) -> None:
        """Close all files and release the lock, without removing the folder."""
        self._is_left = True
        self._close_files()
        self._lock.close()

    def _close_files(self) -> None:
        for file in self._files.values():
            # Closing flushes, which fails again where writing failed; the content is not needed.
            with contextlib.suppress(OSError):
                file.close()
        self._files.clear()


def hidden_name(name: str, ending: str) -> str:
    """Return the name of a hidden file that belongs to an output; long names are shortened."""
    encoded = os.fsencode(name)
    if len(encoded) > LONGEST_NAME:
        digest = hashlib.blake2b(encoded, digest_size=4).hexdigest()
        name = f"{encoded[: LONGEST_NAME - 9].decode('utf-8', 'ignore')}~{digest}"
    return f".{name}{ending}"


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove staging folders of processes that were killed, with a warning for each.

    Args:
        folder: folder of the outputs.
        name: name of the output; None stands for all outputs.
    """
    for path in _stagings(folder, name):
        lock = _abandoned_lock(path)
        if lock is None:
            continue
        with contextlib.closing(lock):
            size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
            try:
                remove_tree(path)
            except OSError as error:
                if not os.path.lexists(path):
                    continue  # another process has removed it
                warnings.warn(
                    f"{path}: {size:,} bytes that a killed run left cannot be removed ({error.strerror}); remove them",
                    stacklevel=3,
                )
                continue
        if size:  # nothing in it: perhaps a process that had not locked it yet, and now makes another
            warnings.warn(f"{path}: removed, with {size:,} bytes that a killed run left there", stacklevel=3)


def remove_tree(path: Path) -> None:
    """Remove a staging folder, its lock last, so that a partly removed folder is still recognised."""
    entries = sorted(os.scandir(path), key=lambda entry: entry.name == LOCK)
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            remove_tree(Path(entry.path))
        else:
            system.unlink(Path(entry.path))
    system.remove_folder(path)


def is_locked_by(file: io.FileIO, path: Path) -> bool:
    """Return whether a locked file still has its name; another process may have removed it before it was locked."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.lstat())
    except FileNotFoundError:
        return False


@cache
def system_id() -> str:
    """Return an identifier of the running system, which containers on one system share, as they share locks."""
    try:
        name = Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        name = platform.node()
    return hashlib.blake2b(name.encode(), digest_size=4).hexdigest()


def _new_staging(folder: Path, name: str) -> tuple[Path, system.RawFile]:
    while True:
        # Never by process number: two containers that share a folder can have equal ones.
        path = folder / hidden_name(name, f".{system_id()}-{os.urandom(8).hex()}{ENDING}")
        try:
            system.make_folder(path, 0o700)
        except FileExistsError:
            continue
        lock = None
        try:
            lock = system.create(path / LOCK)
            is_own = True
            with contextlib.suppress(OSError):  # without locks nobody takes the folder for one that was left behind
                is_own = system.lock(lock)
            # Otherwise another process was quicker, and removes the folder as one that was left behind.
            if is_own and is_locked_by(lock, path / LOCK):
                return path, lock
            lock.close()
        except FileNotFoundError:
            continue  # another process took the empty folder for one that was left behind
        except BaseException:
            if lock is not None:
                lock.close()
            _remove(path)
            raise


def _remove(path: Path) -> None:
    """Remove a staging folder, with a warning if that fails."""
    try:
        remove_tree(path)
    except OSError as error:
        if not os.path.lexists(path):
            return  # somebody removed the folder of the output
        warnings.warn(
            f"{path}: temporary files cannot be removed ({error.strerror}); a later run that writes the same output "
            "removes them",
            stacklevel=4,
        )


def _stagings(folder: Path, name: str | None) -> Iterator[Path]:
    stem = r"\..*\." if name is None else re.escape(hidden_name(name, "."))
    pattern = re.compile(stem + "[0-9a-f]{8}-[0-9a-f]{16}" + re.escape(ENDING))
    try:
        paths = sorted(folder / entry.name for entry in os.scandir(folder) if pattern.fullmatch(entry.name))
    except OSError:
        return
    for path in paths:
        with contextlib.suppress(OSError):
            status = path.lstat()
            # In a folder that several people write to, nobody else's files are touched.
            if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid():
                yield path


def _abandoned_lock(path: Path) -> system.RawFile | None:
    """Take the lock of a staging folder whose process has ended; return None if it lives or may live."""
    with contextlib.suppress(OSError):
        if not any(path.iterdir()):
            system.remove_folder(path)  # killed before it created its lock
            return None
        lock = system.open_existing(path / LOCK)
        try:
            if system.lock(lock) and is_locked_by(lock, path / LOCK) and _is_proof(path):
                return lock
        except OSError:
            pass
        except BaseException:  # Ctrl-C
            lock.close()
            raise
        lock.close()
    return None


def _is_proof(path: Path) -> bool:
    """Return whether a free lock proves that the process has ended."""
    if f".{system_id()}-" in path.name:
        return True
    newest = max(file.lstat().st_mtime for file in path.rglob("*"))
    return time.time() - newest > SAFE_AGE
