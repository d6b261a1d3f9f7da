"""Folders that several processes write to at once: each file appears whole, under a name that is given once.

A file is written in a staging folder inside the shared folder, synchronised to the disk, and then named in one step
that never replaces a file (renaming without replacement, or a link; where a file system has neither, the name is
checked beforehand). Two processes that write the same file are a waste and no error: whoever comes second compares its
file with the one that is there.
"""

from __future__ import annotations

import contextlib
import filecmp
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from layertap.errors import OutputError, printable
from layertap.files import system
from layertap.files.commit import put_new
from layertap.files.output import FOLDER, keep_mode
from layertap.files.places import reason
from layertap.files.staging import Staging, remove_leftovers

HASHED_AT_ONCE = 1 << 20


class SharedFolder:
    """Folder in which this process writes files beside others that do the same.

    A context manager; at its end the staging folder is removed.

    Args:
        root: path of the folder, which must exist.

    Attributes:
        root: path of the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._staging: Staging | None = None
        self._count = 0

    def __enter__(self) -> SharedFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the staging folder and what is in it, and those of processes that were killed meanwhile."""
        if self._staging is not None:
            staging, self._staging = self._staging, None
            staging.discard()
        remove_leftovers(self.root, FOLDER)

    def make(self, *folders: str) -> None:
        """Create folders inside the shared folder if they do not exist.

        Raises:
            OutputError: a folder cannot be created.
        """
        with self.described():
            for name in folders:
                with contextlib.suppress(FileExistsError):
                    system.make_folder(self.root / name)

    def staged_place(self, name: str) -> Path:
        """Return a free path in the staging folder, for a file that another function writes.

        Raises:
            OutputError: the staging folder cannot be created.
        """
        with self.described():
            self._count += 1
            return self._stage().path / f"{self._count}-{name}"

    def publish(self, staged: Path, place: str, *, replace_other: bool = False) -> bool:
        """Give a finished file of the staging folder its name in the shared folder.

        Args:
            staged: path of the file, which is synchronised to the disk already.
            place: the new name.
            replace_other: whether a file that has the name is replaced if its content differs.

        Returns:
            True if the file has got its name; False if another file has it, and the staged one is removed.

        Raises:
            OutputError: the file cannot be named.
        """
        final = self.root / place
        with self.described(place):
            try:
                put_new(staged, final)
                is_named = True
            except FileExistsError:
                is_named = replace_other and not filecmp.cmp(staged, final, shallow=False)
                if is_named:
                    system.rename(staged, final)
                else:
                    system.unlink(staged)
            system.sync_folder(final.parent)
            return is_named

    def write_new(self, place: str, content: bytes) -> bool:
        """Write a small file under a name that is not taken.

        Returns:
            True if the file has been written, False if a file has the name.

        Raises:
            OutputError: the file cannot be written.
        """
        with self.described(place):
            return self.publish(self._staged(content), place)

    def replace(self, place: str, content: bytes) -> None:
        """Write a small file, in place of an earlier one if there is one.

        Raises:
            OutputError: the file cannot be written; an earlier one is as it was.
        """
        final = self.root / place
        with self.described(place):
            staged = self._staged(content)
            keep_mode(final, staged)
            system.rename(staged, final)
            system.sync_folder(final.parent)

    def remove(self, place: str) -> None:
        """Remove a file if it exists.

        Raises:
            OutputError: the file cannot be removed.
        """
        with self.described(place), contextlib.suppress(FileNotFoundError):
            system.unlink(self.root / place)
            system.sync_folder((self.root / place).parent)

    def names(self, folder: str) -> list[str]:
        """Return the sorted names of the files in a folder inside the shared folder; none if there is no such folder.

        Raises:
            OutputError: the folder cannot be read.
        """
        with self.described(folder):
            try:
                return sorted(entry.name for entry in os.scandir(self.root / folder) if not entry.is_dir())
            except FileNotFoundError:
                return []

    @contextlib.contextmanager
    def described(self, place: str = "") -> Iterator[None]:
        """Turn errors of the system into errors that name the folder, the file and the state of the others."""
        try:
            yield
        except OutputError:
            raise
        except OSError as error:
            where = self.root / place if place else self.root
            raise OutputError(
                f"{printable(where)}: cannot be written: {reason(error)}; what is finished stays, and the next run "
                "goes on from there"
            ) from error

    def _staged(self, content: bytes) -> Path:
        """Write a file into the staging folder, synchronise it to the disk, and return its path."""
        staging = self._stage()
        self._count += 1
        name = f"{self._count}"
        file = staging.create(name)
        file.write(content)
        staging.finish(name)
        return staging.path / name

    def _stage(self) -> Staging:
        if self._staging is None or not self._staging.path.is_dir():
            remove_leftovers(self.root, FOLDER)
            self._staging = Staging(self.root, FOLDER)
        return self._staging


def sha256_of(path: Path) -> str:
    """Return the hexadecimal sha256 of a file.

    Raises:
        OSError: the file cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while part := file.read(HASHED_AT_ONCE):
            digest.update(part)
    return digest.hexdigest()


@contextlib.contextmanager
def held_lock(path: Path) -> Iterator[bool | None]:
    """Hold the lock of a file while entered; the file is created if it does not exist, and stays.

    Yields:
        True while this process holds the lock, False if another one does, None if the file system has no locks.

    Raises:
        OSError: the file cannot be created.
    """
    with contextlib.suppress(FileExistsError):
        system.create(path).close()
    with system.open_existing(path) as file:
        try:
            is_held: bool | None = system.lock(file)
        except OSError:
            is_held = None
        yield is_held
