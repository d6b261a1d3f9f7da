"""Outputs that appear whole or not at all: one file, a file with companions, or a folder."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, cast

from layertap.errors import OutputError
from layertap.files import system
from layertap.files.commit import put_in_place, settle
from layertap.files.places import reason, resolved
from layertap.files.staging import LOCK, Staging, remove_leftovers

FOLDER = "layertap"
"""Base of the names of hidden files in an output that is a folder: `.layertap.<...>.part`, `.layertap.commit`."""

SUBFOLDER = "folder"


class StagedOutput:
    """Output of one file and its companions, which appear under their names together.

    Args:
        path: path of the output, or None for standard output.
        companions: functions that return the path of each companion for the path of the output.
        overwrite: whether existing files are replaced.

    Attributes:
        path: path of the output, or None for standard output.
        is_committed: whether the files are in their places.
    """

    def __init__(
        self, path: Path | None, *, companions: Sequence[Callable[[Path], Path]] = (), overwrite: bool
    ) -> None:
        self.path = path
        self.is_committed = False
        self._companions = tuple(companions)
        self._overwrite = overwrite
        self._staging: Staging | None = None
        self._names: dict[BinaryIO, str] = {}
        self._count = 0
        self._standing = ""

    @property
    def name(self) -> str:
        """Name of the output in messages."""
        return "standard output" if self.path is None else str(self.path)

    def create(self) -> BinaryIO:
        """Create a temporary file, open for writing and reading; return standard output if the output is that.

        Raises:
            OSError: the file cannot be created.
        """
        if self.path is None:
            if sys.stdout is None:
                raise OutputError("standard output is closed; name a file")
            return sys.stdout.buffer
        if self._staging is None:
            settle(self.path.parent, self.path.name)
            remove_leftovers(self.path.parent, self.path.name)
            self._staging = Staging(self.path.parent, self.path.name)
        name = f"new-{self._count}"
        self._count += 1
        file = self._staging.create(name)
        self._names[file] = name
        return file

    def remove(self, file: BinaryIO) -> None:
        """Remove a temporary file whose content is no longer needed."""
        assert self._staging is not None
        self._staging.remove(self._names.pop(file))

    def commit(self, file: BinaryIO, *companions: BinaryIO | bytes | None) -> None:
        """Move temporary files to their places, all of them or none, and remove the others.

        Args:
            file: the temporary file that becomes the output.
            companions: for each companion a temporary file, its content, or None; None removes the companion of an
                earlier output, if `overwrite` is set.

        Raises:
            OSError: a step failed; the earlier state has been restored.
            OutputError: a file has appeared in one of the places and is not overwritten, or the earlier state could not
                be restored. The message describes the state, and where the finished files are.
        """
        if self.path is None:
            file.flush()
            return
        assert self._staging is not None
        assert len(companions) == len(self._companions)
        try:
            names = [self._finished(file), *(None if one is None else self._finished(one) for one in companions)]
            self._put(self.path, names, overwrite=self._overwrite)
        except FileExistsError as error:
            raise self._kept_elsewhere(names, error) from error
        self.discard()

    def discard(self) -> None:
        """Remove all temporary files; committed files are kept."""
        self._names.clear()
        if self._staging is not None:
            staging, self._staging = self._staging, None
            staging.discard()

    def failure(self, error: BaseException) -> OutputError:
        """Remove all temporary files, and return the error that describes a failure and what it left.

        An `OutputError` describes its own failure: whoever catches one raises it again as it is.
        """
        if self.path is None:
            return OutputError(f"{self.name}: cannot be written: {reason(error)}; what was written before stays")
        self.discard()
        return OutputError(f"{self.name}: cannot be written: {reason(error)}; nothing is left of it{self._earlier()}")

    @property
    def standing(self) -> str:
        """Clause for messages that describes the current state of the output."""
        if self.path is None:
            return "standard output has what was written before"
        if self.is_committed:
            return f"{self.name} is whole"
        return f"{self.name} is as it was" if os.path.lexists(self.path) else f"{self.name} was not written"

    def _earlier(self) -> str:
        assert self.path is not None
        return ", and the file that stood there is as it was" if os.path.lexists(self.path) else ""

    def _finished(self, content: BinaryIO | bytes) -> str:
        """Synchronise a temporary file, or one with the given content, to the disk, and return its name."""
        assert self._staging is not None
        if isinstance(content, bytes):
            file = self.create()
            file.write(content)
        else:
            file = content
        name = self._names.pop(file)
        self._staging.finish(name)
        return name

    def _put(self, path: Path, names: Sequence[str | None], *, overwrite: bool) -> None:
        assert self._staging is not None
        places = [path, *(place_of(path) for place_of in self._companions)]
        for name, place in zip(names, places, strict=True):
            if name is not None and overwrite:
                keep_mode(place, self._staging.path / name)
        files = [(place.name, name) for place, name in zip(places, names, strict=True)]
        try:
            put_in_place(self._staging, path.parent, path.name, files, overwrite=overwrite)
        finally:
            # A signal can arrive after the last renaming: what counts is what is there.
            assert names[0] is not None
            self.is_committed = not os.path.lexists(self._staging.path / names[0])

    def _kept_elsewhere(self, names: Sequence[str | None], error: FileExistsError) -> OutputError:
        """Keep finished files under a free name, because theirs was taken during the run."""
        assert self.path is not None
        taken = error.filename2 or error.filename or self.name
        free = self.path.with_name(f"{self.path.stem[:60]}.{os.urandom(4).hex()}{self.path.suffix}")
        said = f"{taken} has appeared during the run and is not overwritten"
        try:
            self._put(free, names, overwrite=False)
        except OSError as again:
            self.discard()
            return OutputError(f"{said}; the finished output could not be kept under another name: {reason(again)}")
        self.discard()
        return OutputError(f"{said}; the finished output is {free}: rename it, or run again with --overwrite")


def write_file(path: Path, content: bytes | Callable[[BinaryIO], object], *, overwrite: bool) -> None:
    """Write a file that appears whole or not at all.

    Args:
        path: path of the file; symbolic links are followed.
        content: content of the file, or a function that writes it to an open file.
        overwrite: whether an existing file is replaced.

    Raises:
        OutputError: the file cannot be written, or exists and `overwrite` is not set.
    """
    output = StagedOutput(resolved(path), overwrite=overwrite)
    try:
        file = output.create()
        if isinstance(content, bytes):
            file.write(content)
        else:
            content(file)
        output.commit(file)
    except OutputError:
        raise
    except OSError as error:
        raise output.failure(error) from error
    finally:
        output.discard()


def remove_file(path: Path) -> None:
    """Remove a file if it exists.

    Raises:
        OutputError: the file cannot be removed.
    """
    try:
        system.unlink(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise OutputError(f"{path}: cannot be removed: {reason(error)}") from error


def make_folder(path: Path) -> None:
    """Create a folder and its parents if they do not exist.

    Raises:
        OutputError: the folder cannot be created.
    """
    try:
        _make_parents(path / "file")
    except OSError as error:
        raise OutputError(f"{path}: cannot be made: {reason(error)}") from error


def remove_empty_folder(path: Path) -> None:
    """Remove a folder if it is empty."""
    with contextlib.suppress(OSError):
        system.remove_folder(path)


@contextlib.contextmanager
def scratch_folder(folder: Path | None, name: str) -> Iterator[Path]:
    """Create a hidden folder for temporary files, which is removed at the end.

    Args:
        folder: parent of the folder; None stands for the system's folder of temporary files.
        name: beginning of its name, by which later runs recognise the folders of killed ones.

    Raises:
        OutputError: the folder cannot be created.
    """
    home = Path(tempfile.gettempdir()) if folder is None else folder
    remove_leftovers(home, name)
    try:
        staging = Staging(home, name)
    except OSError as error:
        raise OutputError(f"{home}: temporary files cannot be written there: {reason(error)}") from error
    try:
        yield staging.path
    finally:
        staging.discard()


def allocate_file(path: Path, size: int) -> None:
    """Create a file of `size` bytes that are reserved on the disk.

    Raises:
        OSError: the disk has no room for the file.
    """
    with system.create(path) as file:
        system.allocate(file, size)


class StagedFolder:
    """Folder under construction, to which files are added.

    Attributes:
        path: path of the folder, for libraries that write files themselves.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def adopt(self, name: str) -> None:
        """Set the default permissions of new files on a file that a library wrote for its owner only."""
        lock = self.path.parent / LOCK
        system.set_mode(self.path / name, stat.S_IMODE(lock.stat().st_mode))

    def write(self, name: str, content: bytes) -> None:
        """Write a file into the folder."""
        with self.create(name) as file:
            file.write(content)

    @contextlib.contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        """Create a file in the folder, or in a new folder in it; it is open for writing within the context."""
        inner = (self.path / name).parent
        if not inner.is_dir():
            system.make_folder(inner)
        with cast(BinaryIO, io.BufferedRandom(system.create(self.path / name))) as file:
            yield file


@contextlib.contextmanager
def staged_folder(path: Path, *, first: str, overwrite: bool) -> Iterator[StagedFolder]:
    """Build a folder that appears whole or not at all, or replace files of an existing folder, all of them or none.

    A new folder is built beside its place and renamed. In an existing folder, the new files replace those of the same
    names together; its other files are not touched.

    Args:
        path: path of the folder.
        first: main file, without which the others are not read, for example `config.json`.
        overwrite: whether the folder may exist.

    Yields:
        The folder to add files to.

    Raises:
        OutputError: the folder cannot be written, or exists and `overwrite` is not set.
    """
    place = resolved(path)
    try:
        made = _make_parents(place) if overwrite else []
        inside = overwrite and place.is_dir()
        home, label = (place, FOLDER) if inside else (place.parent, place.name)
        settle(home, label)
        remove_leftovers(home, label)
        staging = Staging(home, label)
    except OutputError:
        raise
    except OSError as error:
        raise _folder_failure(path, error) from error
    is_whole = False
    try:
        system.make_folder(staging.path / SUBFOLDER)
        yield StagedFolder(staging.path / SUBFOLDER)
        _sync_tree(staging.path / SUBFOLDER)
        if inside:
            _put_files(staging, place, first)
        else:
            _put_folder(staging, place, first, overwrite=overwrite)
        is_whole = True
    except OutputError:
        raise
    except OSError as error:
        raise _folder_failure(path, error) from error
    finally:
        staging.discard()
        if not is_whole:
            _remove_empty(made)


def keep_mode(place: Path, new: Path) -> None:
    """Copy the permission bits of a file to the new file that will replace it."""
    with contextlib.suppress(FileNotFoundError):
        system.set_mode(new, stat.S_IMODE(place.stat().st_mode))


def _put_files(staging: Staging, folder: Path, first: str) -> None:
    names = sorted((path.name for path in (staging.path / SUBFOLDER).iterdir()), key=lambda name: (name != first, name))
    for name in names:
        keep_mode(folder / name, staging.path / SUBFOLDER / name)
    put_in_place(staging, folder, FOLDER, [(name, f"{SUBFOLDER}/{name}") for name in names], overwrite=True)


def _put_folder(staging: Staging, place: Path, first: str, *, overwrite: bool) -> None:
    try:
        put_in_place(staging, place.parent, place.name, [(place.name, SUBFOLDER)], overwrite=False)
        return
    except FileExistsError as error:
        if not overwrite:
            free = place.with_name(f"{place.name[:60]}.{os.urandom(4).hex()}")
            put_in_place(staging, place.parent, free.name, [(free.name, SUBFOLDER)], overwrite=False)
            raise OutputError(
                f"{place} has appeared during the run and is not overwritten; the finished folder is {free}: rename it"
            ) from error
    # Another process made the folder meanwhile: the files go into it.
    inner = Staging(place, FOLDER)
    try:
        system.rename(staging.path / SUBFOLDER, inner.path / SUBFOLDER)
        _put_files(inner, place, first)
    finally:
        inner.discard()


def _folder_failure(path: Path, error: OSError) -> OutputError:
    left = "what stood there is as it was" if os.path.lexists(path) else "nothing is left of it"
    return OutputError(f"{path}: cannot be written: {reason(error)}; {left}")


def _make_parents(place: Path) -> list[Path]:
    """Create the missing parents of a path, and return those that were created, the innermost first."""
    missing = []
    for folder in place.parents:
        if folder.exists():
            break
        missing.append(folder)
    made: list[Path] = []
    try:
        for folder in reversed(missing):
            with contextlib.suppress(FileExistsError):
                system.make_folder(folder)
                made.insert(0, folder)
    except OSError:
        _remove_empty(made)
        raise
    return made


def _remove_empty(folders: Sequence[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):  # something stands in it by now
            system.remove_folder(folder)


def _sync_tree(folder: Path) -> None:
    """Synchronise all files of a folder, and of folders in it, to the disk."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with system.open_existing(path) as file:
                system.sync(file)
        else:
            system.sync_folder(path)
    system.sync_folder(folder)
