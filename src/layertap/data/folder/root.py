"""Place of a folder of features, on a disk or on an object store, and access to it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeAlias

from layertap.data.folder.contents import LocalFiles
from layertap.data.folder.layout import PLAN
from layertap.data.folder.remote import RemoteFiles, RemoteFolder
from layertap.data.remote import RemotePlace, is_remote
from layertap.files import resolved
from layertap.files.shared import SharedFolder

FolderRoot: TypeAlias = Path | RemotePlace
"""Absolute path of a folder on a disk, or the place of one on an object store."""

FolderWriter: TypeAlias = SharedFolder | RemoteFolder
"""Write access to a folder."""


def folder_root(place: str | os.PathLike[str]) -> FolderRoot:
    """Return the root of a folder that a user named by its path or URL.

    Raises:
        OptionError: a URL of a kind that layertap does not know.
        InputError: the package for such URLs is not installed.
    """
    return RemotePlace.of(os.fspath(place)) if is_remote(place) else resolved(place)


def folder_files(root: FolderRoot) -> LocalFiles | RemoteFiles:
    """Return read access to the files of a folder."""
    return RemoteFiles(root=root) if isinstance(root, RemotePlace) else LocalFiles(root=root)


def shared_folder(root: FolderRoot) -> FolderWriter:
    """Return write access to a folder, for one of several processes.

    Raises:
        OutputError: layertap does not write to such places.
    """
    return RemoteFolder(root) if isinstance(root, RemotePlace) else SharedFolder(root)


def is_feature_folder(place: str | os.PathLike[str]) -> bool:
    """Return whether a path or URL is that of a folder with a plan in it.

    Raises:
        InputError: a store does not answer, or refuses.
    """
    if not is_remote(place):
        try:
            return (Path(place) / PLAN).is_file()
        except OSError:  # a name that is too long, or a folder that may not be entered
            return False
    return folder_files(folder_root(place)).size(PLAN) is not None
