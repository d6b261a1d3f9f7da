"""Commits: the files of an output get their names, all of them or none, even if the process is killed halfway.

No file system renames several files in one step. A commit therefore keeps a record, `.<name>.commit`, beside the files
while it moves them, and follows an order in which files of two different outputs never appear side by side:

1. The record lists the files, and is synchronised to the disk before any file is moved.
2. The companions of an earlier output are moved into the staging folder.
3. If there is an earlier output, the new main file replaces its main file, and the new companions follow. Otherwise the
   companions are moved first and the main file last, so that the output appears whole.
4. The files of the earlier output and the record are removed.

If a step fails, the steps before it are undone. If the process is killed, the record remains, and `settle` completes
the commit if the main file is in place, and undoes it otherwise. Everything that writes an output or reads it back
calls `settle` first. A commit of a single file is one renaming; its record is empty, and only makes commits of the same
output take turns.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from layertap.errors import OutputError
from layertap.files import system
from layertap.files.staging import Staging, hidden_name, is_locked_by, remove_tree, system_id

T = TypeVar("T")

ENDING = ".commit"

LONGEST_COMMIT = 60.0
"""Seconds after which a commit is considered abandoned if locks cannot tell; a commit takes milliseconds."""

POLL = 0.01
"""Seconds between two checks of a commit of another process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One file of a commit.

    Attributes:
        place: name of the file in the folder of the output.
        new: name of the new file in the staging folder, or None if the place is to be empty afterwards.
        old: name in the staging folder for the earlier file, or None if there was none.
        size, mtime_ns: size and modification time of the new file, by which it is recognised.
    """

    place: str
    new: str | None
    old: str | None
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """Moves of a commit; their progress is read from the disk alone, so that another process can continue.

    Attributes:
        folder: folder of the output.
        staging: the staging folder.
        moves: the moves, that of the main file first.
    """

    folder: Path
    staging: Path
    moves: tuple[Move, ...]

    @property
    def is_done(self) -> bool:
        """Whether the main file is in place, from which point on the commit is completed and not undone."""
        main = self.moves[0]
        assert main.new is not None
        new = self.staging / main.new
        return not os.path.lexists(new) or _is_same(new, self.folder / main.place)

    def apply(self, *, overwrite: bool) -> None:
        """Move all files to their places.

        Raises:
            FileExistsError: a file has appeared in one of the places.
            OSError: a step failed.
        """
        main, *companions = self.moves
        for move in companions:
            if move.old is not None:
                system.rename(self.folder / move.place, self.staging / move.old)
        if main.old is not None:
            self._keep(main)
            self._put(main, overwrite=True)
        for move in companions:
            self._put(move, overwrite=overwrite)
        if main.old is None:
            self._put(main, overwrite=overwrite)

    def undo(self) -> None:
        """Restore the earlier state, however far `apply` got.

        Raises:
            OSError: a step failed; the record must be kept.
        """
        main, *companions = self.moves
        for move in (*companions, main):
            self._take_back(move)
        for move in self.moves:
            self._restore(move)
        with contextlib.suppress(OSError):  # all that stood there stands there again
            system.sync_folder(self.folder)

    def complete(self) -> None:
        """Move the remaining files of a killed process to their places."""
        for move in self.moves:
            if move.new is None or not os.path.lexists(self.staging / move.new):
                continue
            if _is_same(self.staging / move.new, self.folder / move.place):
                system.unlink(self.staging / move.new)
            else:
                system.rename(self.staging / move.new, self.folder / move.place)
        system.sync_folder(self.folder)

    def is_new(self, move: Move) -> bool:
        """Return whether the new file is in its place."""
        try:
            status = (self.folder / move.place).lstat()
        except FileNotFoundError:
            return False
        return (status.st_size, status.st_mtime_ns) == (move.size, move.mtime_ns)

    def _keep(self, main: Move) -> None:
        """Keep the main file of an earlier output in the staging folder, if possible without removing its name."""
        assert main.old is not None
        try:
            system.link(self.folder / main.place, self.staging / main.old)
        except OSError as error:
            if error.errno not in system.UNSUPPORTED:
                raise
            system.rename(self.folder / main.place, self.staging / main.old)

    def _put(self, move: Move, *, overwrite: bool) -> None:
        if move.new is None:
            return
        if overwrite:
            system.rename(self.staging / move.new, self.folder / move.place)
        else:
            put_new(self.staging / move.new, self.folder / move.place)

    def _take_back(self, move: Move) -> None:
        if move.new is None:
            return
        new, place = self.staging / move.new, self.folder / move.place
        if _is_same(new, place):
            system.unlink(place)
        elif not os.path.lexists(new) and self.is_new(move):
            system.rename(place, new)

    def _restore(self, move: Move) -> None:
        if move.old is None or not os.path.lexists(self.staging / move.old):
            return
        old, place = self.staging / move.old, self.folder / move.place
        if _is_same(old, place):
            system.unlink(old)
        else:
            put_new(old, place)


def put_new(source: Path, place: Path) -> None:
    """Rename a file or a folder, and never replace anything.

    If the system cannot do that in one step, a file is linked to its new name; if the file system has no links either,
    the name is checked beforehand.

    Raises:
        FileExistsError: the name is taken.
    """
    try:
        system.rename_new(source, place)
        return
    except OSError as error:
        if error.errno not in system.UNSUPPORTED:
            raise
    try:
        system.link(source, place)
    except OSError as error:
        if error.errno not in system.UNSUPPORTED:
            raise
        if os.path.lexists(place):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(place)) from None
        system.rename(source, place)
        return
    system.unlink(source)


def put_in_place(
    staging: Staging, folder: Path, name: str, files: Sequence[tuple[str, str | None]], *, overwrite: bool
) -> None:
    """Move the files of a staging folder to their places, all of them or none.

    Args:
        staging: the staging folder, on the same file system as `folder`; its files are closed and synchronised.
        folder: folder of the output.
        name: name of the output, from which that of the record follows.
        files: pairs of names in `folder` and in `staging`, the main file first. None as the second name removes the
            file of an earlier output, if `overwrite` is set.
        overwrite: whether existing files are replaced.

    Raises:
        FileExistsError: a file exists in one of the places, and `overwrite` is not set; nothing has changed.
        OSError: a step failed; the earlier state has been restored.
        OutputError: a step failed, and the earlier state could not be restored; the message describes the state.
    """
    with _record(folder, name) as record:
        commit = Commit(folder=folder, staging=staging.path, moves=_moves(staging.path, folder, files, overwrite))
        several = len(commit.moves) > 1
        if several:
            system.write(record, _as_json(commit))
            system.sync(record)
            system.sync_folder(folder)
        try:
            commit.apply(overwrite=overwrite)
            if several:
                system.sync_folder(folder)
        except BaseException:
            if several or not commit.is_done:
                _undo(commit, staging)
            raise
    if not several:
        try:
            system.sync_folder(folder)
        except OSError as error:
            raise OutputError(
                f"{folder / files[0][0]}: stands there whole, but may be lost in a power cut: its folder cannot be "
                f"synchronised ({error.strerror})"
            ) from error


def settle(folder: Path, name: str) -> None:
    """Complete or undo a commit whose process was killed, and wait for a commit in progress.

    Args:
        folder: folder of the output.
        name: name of the output.

    Raises:
        OutputError: the commit cannot be settled.
    """
    path = folder / hidden_name(name, ENDING)
    if not os.path.lexists(path):
        return
    try:
        _settle(path, folder)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(
            f"{folder / name}: a run that was killed left it unfinished, and it cannot be settled "
            f"({error.strerror}); do anything with it as a user who may write in {folder}"
        ) from error


def read_settled(path: Path, read: Callable[[], T], *, name: str | None = None) -> T:
    """Read several files that belong together, and read them again if they were replaced meanwhile.

    Args:
        path: the main file.
        read: function that reads the files.
        name: name of the output, if it differs from that of the main file.

    Returns:
        The result of `read`.

    Raises:
        OutputError: a commit that was interrupted by a kill cannot be settled.
    """
    while True:
        settle(path.parent, name or path.name)
        before = _stamp(path)
        try:
            result = read()
        except Exception:
            if _stamp(path) == before and not _is_under_way(path.parent, name or path.name):
                raise
            continue
        if _stamp(path) == before and not _is_under_way(path.parent, name or path.name):
            return result


def _is_same(one: Path, other: Path) -> bool:
    """Return whether two names refer to the same file."""
    try:
        return os.path.samestat(one.lstat(), other.lstat())
    except FileNotFoundError:
        return False


def _is_under_way(folder: Path, name: str) -> bool:
    return os.path.lexists(folder / hidden_name(name, ENDING))


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _moves(staging: Path, folder: Path, files: Sequence[tuple[str, str | None]], overwrite: bool) -> tuple[Move, ...]:
    moves = []
    for i, (place, new) in enumerate(files):
        try:
            mode = (folder / place).lstat().st_mode
        except FileNotFoundError:
            mode = None
        except OSError as error:
            # Nothing has a name that is too long, so that there is nothing to remove either.
            if new is not None or error.errno != errno.ENAMETOOLONG:
                raise
            mode = None
        if new is None and (mode is None or not overwrite):
            continue
        if mode is not None and not overwrite:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(folder / place))
        if mode is not None and not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
            # Removing an earlier output must never remove a user's folder.
            kind = "a directory" if stat.S_ISDIR(mode) else "no regular file"
            raise OSError(errno.EISDIR, f"what stands there is {kind}", str(folder / place))
        status = None if new is None else (staging / new).stat()
        moves.append(
            Move(
                place=place,
                new=new,
                old=None if mode is None else f"old-{i}",
                size=0 if status is None else status.st_size,
                mtime_ns=0 if status is None else status.st_mtime_ns,
            )
        )
    # One renaming replaces what stands there: nothing has to be moved aside.
    return (replace(moves[0], old=None),) if len(moves) == 1 else tuple(moves)


def _undo(commit: Commit, staging: Staging) -> None:
    try:
        commit.undo()
    except OSError as error:
        staging.leave()
        raise _UnsettledError(
            f"{commit.folder / commit.moves[0].place}: cannot be written, and what stood there cannot be restored "
            f"({error.strerror}); it is kept in {staging.path}, and the next run that writes or opens the output "
            "completes or restores it"
        ) from error


class _UnsettledError(OutputError):
    """Error of a commit that is neither complete nor undone, so that its record must be kept."""


@contextlib.contextmanager
def _record(folder: Path, name: str) -> Iterator[system.RawFile]:
    """Create the record of a commit, empty and locked, and remove it at the end; waits for other commits."""
    path = folder / hidden_name(name, ENDING)
    while True:
        try:
            file = system.create(path)
        except FileExistsError:
            settle(folder, name)
            continue
        with file:
            try:
                if not _is_ours(file, path):
                    continue
                yield file
            except _UnsettledError:
                raise
            except BaseException:
                _remove_record(path)
                raise
            try:
                _remove_record(path)
            except BaseException:  # Ctrl-C
                _remove_record(path)
                raise
            return


def _is_ours(file: system.RawFile, path: Path) -> bool:
    """Return whether a new record could be locked before another process considered it abandoned."""
    try:
        return system.lock(file) and is_locked_by(file, path)
    except OSError:
        return True  # a file system without locks: that the record could be created is what counts


def _remove_record(path: Path) -> None:
    try:
        system.unlink(path)
    except OSError as error:
        warnings.warn(f"{path}: cannot be removed ({error.strerror}); a later run removes it", stacklevel=5)


def _as_json(commit: Commit) -> bytes:
    moves = [asdict(move) for move in commit.moves]
    return json.dumps({"system": system_id(), "staging": commit.staging.name, "moves": moves}).encode()


def _read(content: bytes, folder: Path) -> tuple[str, Commit] | None:
    """Decode the system and the commit of a record; an incomplete record gives None, since nothing was moved yet."""
    try:
        stated: dict[str, Any] = json.loads(content)
        moves = tuple(Move(**move) for move in stated["moves"])
        commit = Commit(folder=folder, staging=folder / stated["staging"], moves=moves)
        names = [commit.staging.name, *(name for move in moves for name in (move.place, move.new, move.old) if name)]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    # Nobody's record may lead out of the two folders.
    if stated["staging"] != commit.staging.name or any(part in ("", ".", "..") for n in names for part in n.split("/")):
        raise OutputError(f"{folder}: a record of a commit there names a file outside of it; remove the record")
    return str(stated["system"]), commit


def _settle(path: Path, folder: Path) -> None:
    started = time.monotonic()
    while True:
        try:
            file = system.open_existing(path)
        except FileNotFoundError:
            return
        with file:
            age = time.time() - os.fstat(file.fileno()).st_mtime
            try:
                is_free, by_lock = system.lock(file), True
            except OSError:
                is_free, by_lock = True, False
            if not is_locked_by(file, path):
                continue
            if is_free:
                content = _read(file.read() or b"", folder)
                if (by_lock and (content is None or content[0] == system_id())) or age > LONGEST_COMMIT:
                    _recover(path, folder, None if content is None else content[1])
                    return
        if time.monotonic() - started > LONGEST_COMMIT + 1:
            raise OSError(errno.EBUSY, "another process has been putting files in place for a minute")
        time.sleep(POLL)


def _recover(path: Path, folder: Path, commit: Commit | None) -> None:
    if commit is not None:
        status = commit.staging.lstat() if os.path.lexists(commit.staging) else None
        if status is not None:
            if not stat.S_ISDIR(status.st_mode) or os.geteuid() not in {status.st_uid} & {path.lstat().st_uid}:
                raise PermissionError(errno.EACCES, "it belongs to another user")
            if not commit.is_done:
                commit.undo()
                said = "was taken back"
            elif commit.is_new(commit.moves[0]):
                commit.complete()
                said = "was completed"
            else:
                said = "was given up: the file has been replaced since"
            remove_tree(commit.staging)
            warnings.warn(
                f"{folder / commit.moves[0].place}: a run was killed while it put this output in place; this {said}",
                stacklevel=5,
            )
    system.unlink(path)
