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
from layertap.files.places import reason
from layertap.files.staging import LOCK, Staging, remove_leftovers

FOLDER = "layertap"
"""Name of the hidden files of an output that is a folder; they stand in it: `.layertap.<...>.part`."""

SUBFOLDER = "folder"


class StagedOutput:
    """The files of one output, which appear under their names together when they are whole.

    Args:
        path: the output, or None for standard output.
        companions: for each file that belongs to the output, the function that gives its place beside it.
        overwrite: whether files that stand there are replaced.

    Attributes:
        path: the output, or None for standard output.
        is_committed: whether the files stand in their places.
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
        """Returns a new temporary file, open for writing and reading back, or standard output itself.

        Raises:
            OSError: the system refused.
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
        """Removes a temporary file whose content is not needed any more."""
        assert self._staging is not None
        self._staging.remove(self._names.pop(file))

    def commit(self, file: BinaryIO, *companions: BinaryIO | bytes | None) -> None:
        """Gives temporary files their names, all or none, and removes the others.

        Args:
            file: a file that `create` gave: the output.
            companions: for each companion a file that `create` gave, its content, or None: with `overwrite`, what
                stands in its place belongs to an earlier output and is removed.

        Raises:
            OutputError: the system refused, or a file has appeared in a place that may not be overwritten. The message
                says what stands there now, and where the finished files are.
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
        """Removes all temporary files; files in their places stay."""
        self._names.clear()
        if self._staging is not None:
            staging, self._staging = self._staging, None
            staging.discard()

    def failure(self, error: BaseException) -> OutputError:
        """Removes all temporary files and describes a failure and what it left, for the caller to raise."""
        if isinstance(error, OutputError):
            self.discard()
            return error
        if self.path is None:
            return OutputError(f"{self.name}: cannot be written: {reason(error)}; what was written before stays")
        self.discard()
        return OutputError(f"{self.name}: cannot be written: {reason(error)}; nothing is left of it{self._earlier()}")

    @property
    def standing(self) -> str:
        """Says what stands in the output's place now, as a clause for messages."""
        if self.path is None:
            return "standard output has what was written before"
        if self.is_committed:
            return f"{self.name} is whole"
        return f"{self.name} is as it was" if os.path.lexists(self.path) else f"{self.name} was not written"

    def _earlier(self) -> str:
        assert self.path is not None
        return ", and the file that stood there is as it was" if os.path.lexists(self.path) else ""

    def _finished(self, content: BinaryIO | bytes) -> str:
        """Name of a temporary file whose content is on the disk."""
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
        """Puts finished files under a name that is free, because theirs was taken during the run."""
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
    """Writes a file that appears whole or not at all.

    Args:
        path: the file. A link is followed.
        content: its bytes, or a function that writes them to the open file it is given.
        overwrite: whether a file that stands there is replaced.

    Raises:
        OutputError: the system refused, or, without `overwrite`, something stands there.
    """
    output = StagedOutput(Path(os.path.realpath(path)), overwrite=overwrite)
    try:
        file = output.create()
        if isinstance(content, bytes):
            file.write(content)
        else:
            content(file)
        output.commit(file)
    except OSError as error:
        raise output.failure(error) from error
    finally:
        output.discard()


def remove_file(path: Path) -> None:
    """Removes a file that may be absent.

    Raises:
        OutputError: the system refused.
    """
    try:
        system.unlink(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise OutputError(f"{path}: cannot be removed: {reason(error)}") from error


def make_folder(path: Path) -> None:
    """Makes a folder, and those above it, where they are missing.

    Raises:
        OutputError: the system refused.
    """
    try:
        _make_parents(path / "file")
    except OSError as error:
        raise OutputError(f"{path}: cannot be made: {reason(error)}") from error


def remove_empty_folder(path: Path) -> None:
    """Removes a folder if nothing is in it."""
    with contextlib.suppress(OSError):
        system.remove_folder(path)


@contextlib.contextmanager
def scratch_folder(folder: Path | None, name: str) -> Iterator[Path]:
    """Makes a hidden folder for temporary files, which is removed at the end.

    Args:
        folder: where it is made; None: where the system keeps temporary files.
        name: what its name begins with; by it the next run recognises what a killed one left.

    Raises:
        OutputError: the system refused.
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
    """Creates a file of `size` bytes, which are reserved on the disk.

    Raises:
        OSError: the system refused.
    """
    with system.create(path) as file:
        system.allocate(file, size)


class StagedFolder:
    """A folder under construction.

    Attributes:
        path: where libraries that write files themselves put them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def adopt(self, name: str) -> None:
        """Gives a file that a library wrote the permissions that every new file has: some write for the owner only."""
        lock = self.path.parent / LOCK
        system.set_mode(self.path / name, stat.S_IMODE(lock.stat().st_mode))

    def write(self, name: str, content: bytes) -> None:
        """Writes a file of the folder."""
        with self.create(name) as file:
            file.write(content)

    @contextlib.contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        """Creates a file of the folder, open for writing while the context is entered."""
        with cast(BinaryIO, io.BufferedRandom(system.create(self.path / name))) as file:
            yield file


@contextlib.contextmanager
def staged_folder(path: Path, *, first: str, overwrite: bool) -> Iterator[StagedFolder]:
    """Builds a folder that appears whole or not at all, or replaces files of one that exists.

    A new folder is built beside its place and renamed. In a folder that exists, the files that were built replace those
    of the same names, all or none; other files in it are not touched.

    Args:
        path: the folder.
        first: the file without which the others are not read, for example `config.json`.
        overwrite: whether the folder may exist.

    Raises:
        OutputError: the system refused, or, without `overwrite`, the folder exists.
    """
    place = Path(os.path.realpath(path))
    try:
        made = _make_parents(place) if overwrite else []
        inside = overwrite and place.is_dir()
        home, label = (place, FOLDER) if inside else (place.parent, place.name)
        settle(home, label)
        remove_leftovers(home, label)
        staging = Staging(home, label)
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
    except OSError as error:
        raise _folder_failure(path, error) from error
    finally:
        staging.discard()
        if not is_whole:
            _remove_empty(made)


def keep_mode(place: Path, new: Path) -> None:
    """Gives a new file the permission bits of the file that it will replace."""
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
    if isinstance(error, OutputError):
        return error
    left = "what stood there is as it was" if os.path.lexists(path) else "nothing is left of it"
    return OutputError(f"{path}: cannot be written: {reason(error)}; {left}")


def _make_parents(place: Path) -> list[Path]:
    """Makes the folders above a place that are missing; returns those made, the lowest first."""
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
    """Waits until all files of a folder are on the disk, whoever wrote them."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with system.open_existing(path) as file:
                system.sync(file)
    system.sync_folder(folder)
