"""Checks of the places that a run will write to, before any work is done."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from pathlib import Path

from layertap.errors import OutputError, UsageError, printable
from layertap.files.commit import settle

LONGEST_CHAIN = 40
"""Number of symbolic links that a system follows one after the other."""

_DESCRIPTORS = re.compile(r"/proc/[^/]+(/task/[^/]+)?/fd")


def check_place(path: Path, *, overwrite: bool) -> None:
    """Refuse a path at which no file can be written.

    A commit that was interrupted there by a kill is settled first.

    Raises:
        UsageError: the file exists, and `overwrite` is not set.
        OutputError: the path is not a regular file, or its folder is missing or cannot be written.
    """
    try:
        _check_name(path)
        settle(path.parent, path.name)
        refuse_descriptor(path)
        if path.is_dir():
            raise OutputError(f"{path}: this is a directory; name a file in it")
        if path.exists() and not path.is_file():
            raise OutputError(f"{path}: this is no regular file, and an output is written beside and renamed")
        if path.exists() and not overwrite:
            raise UsageError(f"{path} exists; name another output, or ask for overwriting (--overwrite)")
        _check_parent(path)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{path}: cannot be written: {reason(error)}") from error


def refuse_descriptor(path: Path | str | os.PathLike[str]) -> None:
    """Refuse a path such as `/dev/stdout`, which is a name of an open file.

    An output replaces the file of its name. Where a shell has redirected a stream to a file, that would take away what
    other programs write into it.

    Raises:
        OutputError: the path is the name of an open file of this process or of another one, perhaps through links.
    """
    place = Path(path)
    for _ in range(LONGEST_CHAIN):
        folder = os.path.realpath(place.parent)
        if folder == "/dev/fd" or _DESCRIPTORS.fullmatch(folder):
            raise OutputError(
                f"{printable(path)}: this is the name of an open file, and an output replaces the file of its name; "
                "name a file, or - for standard output where a format can be written there"
            )
        try:
            place = Path(folder) / place.readlink()
        except OSError:  # no link
            return


def check_new_folder(path: Path) -> None:
    """Refuse a path at which no new folder can be created.

    Raises:
        UsageError: the path exists.
        OutputError: its parent is missing or cannot be written.
    """
    try:
        _check_name(path)
        if os.path.lexists(path):
            raise UsageError(f"{path} exists; name another folder, or remove it")
        _check_parent(path.absolute())
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{path}: cannot be written: {reason(error)}") from error


def resolved(path: str | os.PathLike[str]) -> Path:
    """Return an absolute path without symbolic links.

    Raises:
        UsageError: the path holds a NUL character.
        OutputError: the path is relative, and the current folder has been removed.
    """
    try:
        return Path(os.path.realpath(path))
    except FileNotFoundError:
        raise OutputError(f"{printable(path)}: cannot be written: the current folder is not there any more") from None
    except ValueError:
        raise UsageError(f"{printable(path)}: the name of a file holds no NUL character") from None


def reason(error: BaseException) -> str:
    """Return the reason of an error of the system, in words for a message."""
    if not isinstance(error, OSError):
        return str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "permission to write there is denied"
    if error.errno == errno.EPIPE:
        return "whoever reads it has stopped reading"
    if error.errno == errno.EBADF:
        return "it is closed"
    if error.errno == errno.ENAMETOOLONG:
        return "its name is longer than the file system allows"
    if error.errno == errno.ENOENT:
        return "its folder is not there any more"
    if error.errno == errno.ELOOP:
        return "it is a symbolic link that leads to itself"
    return error.strerror or str(error)


def _check_name(path: Path) -> None:
    if "\0" in os.fspath(path):
        raise UsageError(f"{os.fspath(path)!r}: the name of a file holds no NUL character")
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        path.stat()  # raises where the name is too long, or where links form a ring


def _check_parent(path: Path) -> None:
    if not path.parent.is_dir():
        raise OutputError(f"{path}: there is no folder {path.parent}; make it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise OutputError(f"{path}: the folder {path.parent} is not writable")
