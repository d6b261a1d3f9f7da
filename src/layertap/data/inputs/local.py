"""Files on disks: what a path, a folder or a pattern stands for."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from layertap.data.folder import is_feature_folder
from layertap.data.inputs.expansion import (
    FOLDER_OF_FEATURES,
    HIDDEN,
    LINKED_FOLDER,
    OTHER_ENDING,
    SPECIAL,
    Expansion,
    FileEntry,
    has_known_ending,
)
from layertap.errors import InputError, OptionError, printable


def find_local(argument: str, *, any_ending: bool) -> Expansion:
    """Find the files that a path, a folder or a pattern stands for.

    Args:
        argument: path of a file or folder, or a pattern with `*`, `?`, `[...]` or `**`.
        any_ending: whether files of all endings count, as they do where the format is named.

    Raises:
        InputError: there is no such file, or it cannot be read.
        OptionError: the argument is a pipe, a device or a folder of features.
    """
    if not os.path.lexists(argument) and glob.has_magic(argument):
        return _pattern(argument, any_ending)
    path = Path(argument)
    return _folder(path, any_ending) if path.is_dir() else _file(path)


def local_state(path: Path) -> tuple[int, str]:
    """Return the size of a file in bytes, and a text that changes when the file is written to.

    Raises:
        InputError: there is no such file, or it cannot be looked at.
    """
    return _state(_status(path))


def _file(path: Path) -> Expansion:
    status = _status(path)
    if not stat.S_ISREG(status.st_mode):
        raise OptionError(
            f"{printable(path)}: this is a pipe or a device, which can be read once only, and a folder of features "
            "reads its inputs again; write it to a file first, and name that"
        )
    file = _entry(path.absolute(), path.absolute().parent, status)
    return Expansion(argument=printable(path), files=(file,), left_out={}, is_folder=False)


def _folder(path: Path, any_ending: bool) -> Expansion:
    if is_feature_folder(path):
        raise OptionError(
            f"{printable(path)} is a folder of features and not of texts; layertap.open reads it in Python, and "
            "`layertap export` makes one file of it"
        )
    root = path.absolute()
    left_out: dict[str, list[str]] = {}
    files = tuple(_inputs(_walk(root, left_out), root, left_out, any_ending))
    return Expansion(argument=printable(path), files=files, left_out=left_out, is_folder=True)


def _pattern(argument: str, any_ending: bool) -> Expansion:
    root = _fixed_part(argument).absolute()
    matches = map(Path, glob.iglob(argument, recursive=True))  # noqa: PTH207 - patterns may be absolute
    paths = sorted({path.absolute() for path in matches if not path.is_dir()})
    if not paths:
        raise InputError(f"{printable(argument)}: no file matches this pattern")
    left_out: dict[str, list[str]] = {}
    paths = _outside_features(paths, root, left_out)
    files = tuple(_inputs(paths, root, left_out, any_ending))
    return Expansion(argument=printable(argument), files=files, left_out=left_out, is_folder=True)


def _inputs(paths: Iterable[Path], root: Path, left_out: dict[str, list[str]], any_ending: bool) -> Iterator[FileEntry]:
    """Yield the files among paths that are inputs, and note the others."""
    for path in paths:
        if not (any_ending or has_known_ending(path.name)):
            left_out.setdefault(OTHER_ENDING, []).append(_relative(path, root))
            continue
        status = _status(path)
        if stat.S_ISREG(status.st_mode):
            yield _entry(path, root, status)
        else:
            left_out.setdefault(SPECIAL, []).append(_relative(path, root))


def _outside_features(paths: Iterable[Path], root: Path, left_out: dict[str, list[str]]) -> list[Path]:
    """Return the paths that lie in no folder of features, which a pattern may reach into."""
    known: dict[Path, bool] = {}

    def is_inside(path: Path) -> bool:
        folder = path.parent
        if folder not in known:
            if is_feature_folder(folder):
                left_out.setdefault(FOLDER_OF_FEATURES, []).append(_relative(folder, root))
                known[folder] = True
            else:
                known[folder] = folder not in (root, folder.parent) and is_inside(folder)
        return known[folder]

    return [path for path in paths if not is_inside(path)]


def _walk(root: Path, left_out: dict[str, list[str]]) -> Iterator[Path]:
    """Yield the paths of all files below a folder; links to folders are not followed, as they may form a ring."""

    def fail(error: OSError) -> None:
        raise _unreadable(Path(error.filename), error) from None

    for folder, folders, names in os.walk(root, onerror=fail):
        for name in tuple(folders):
            path = Path(folder, name)
            reason = _why_not(path)
            if reason is not None:
                folders.remove(name)
                left_out.setdefault(reason, []).append(_relative(path, root))
        for name in names:
            path = Path(folder, name)
            if name.startswith("."):
                left_out.setdefault(HIDDEN, []).append(_relative(path, root))
            else:
                yield path


def _why_not(folder: Path) -> str | None:
    """Return the reason for leaving out a folder in a folder, or None."""
    if folder.name.startswith("."):
        return HIDDEN
    if folder.is_symlink():
        return LINKED_FOLDER
    return FOLDER_OF_FEATURES if is_feature_folder(folder) else None


def _entry(path: Path, root: Path, status: os.stat_result) -> FileEntry:
    if not os.access(path, os.R_OK):
        raise InputError(f"{printable(path)}: permission to read it is denied")
    size, stamp = _state(status)
    return FileEntry(
        source=str(path),
        name=_relative(path, root),
        size=size,
        stamp=stamp,
        identity=f"{status.st_dev}:{status.st_ino}",
    )


def _state(status: os.stat_result) -> tuple[int, str]:
    return status.st_size, str(status.st_mtime_ns)


def _relative(path: Path, root: Path) -> str:
    return Path(os.path.relpath(path, root)).as_posix()


def _fixed_part(pattern: str) -> Path:
    """Return the folder that all matches of a pattern lie in: its parts before the first one with a wildcard."""
    parts = Path(pattern).parts
    first = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:first])


def _status(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError | ValueError) -> InputError:
    name = printable(path)
    if isinstance(error, ValueError):  # a NUL in the name
        return InputError(f"{name}: cannot be read: {error}")
    if isinstance(error, FileNotFoundError | NotADirectoryError) and path.is_symlink():
        return InputError(f"{name}: this link leads to a file that does not exist; remove it, or restore the file")
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return InputError(f"{name}: no such file or folder")
    if isinstance(error, PermissionError):
        return InputError(f"{name}: permission to read it is denied")
    return InputError(f"{name}: cannot be read: {error.strerror or error}")
