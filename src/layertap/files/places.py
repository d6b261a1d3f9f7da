"""Checks of the places that a run will write to, before any work is done."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from layertap.errors import OutputError, UsageError
from layertap.files.commit import settle


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
    return error.strerror or str(error)


def _check_name(path: Path) -> None:
    if "\0" in os.fspath(path):
        raise UsageError(f"{os.fspath(path)!r}: the name of a file holds no NUL character")
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        path.lstat()  # raises where the name is too long


def _check_parent(path: Path) -> None:
    if not path.parent.is_dir():
        raise OutputError(f"{path}: there is no folder {path.parent}; make it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise OutputError(f"{path}: the folder {path.parent} is not writable")
