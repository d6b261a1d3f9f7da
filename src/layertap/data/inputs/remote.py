"""Remote files: what a URL, the URL of a folder, or a pattern in a URL stands for."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from layertap.data.folder.layout import PLAN
from layertap.data.inputs.expansion import (
    FOLDER_OF_FEATURES,
    HIDDEN,
    OTHER_ENDING,
    Expansion,
    FileEntry,
    has_known_ending,
)
from layertap.data.remote import RemoteEntry, RemotePlace
from layertap.errors import InputError, OptionError, printable


def find_remote(argument: str, *, any_ending: bool) -> Expansion:
    """Find the files that a URL, the URL of a folder, or a pattern stands for.

    Args:
        argument: URL, in which `*`, `?`, `[...]` and `**` are wildcards unless a file has this very name.
        any_ending: whether files of all endings count, as they do where the format is named.

    Raises:
        InputError: there is no such file, or the store does not answer or refuses.
        OptionError: layertap does not read from such places, or the URL is that of a folder of features.
    """
    place = RemotePlace.of(argument)
    entry = place.entry()
    left_out: dict[str, list[str]] = {}
    if entry is not None:
        file = _file(place, entry, PurePosixPath(entry.path).parent)
        return Expansion(argument=printable(argument), files=(file,), left_out={}, is_folder=False)
    if glob.has_magic(place.path):
        root, entries = _fixed_part(place.path), place.matches()
        if not entries:
            raise InputError(f"{printable(argument)}: no file matches this pattern")
    else:
        root, entries = PurePosixPath(place.path), place.entries()
        if not entries:
            raise InputError(f"{printable(argument)}: no such file or folder")
        if any(PurePosixPath(entry.path) == root / PLAN for entry in entries):
            raise OptionError(f"{printable(argument)} is a folder of features and not of texts; layertap.open reads it")
    files = tuple(_inputs(place, root, entries, left_out, any_ending))
    return Expansion(argument=printable(argument), files=files, left_out=left_out, is_folder=True)


def _inputs(
    place: RemotePlace,
    root: PurePosixPath,
    entries: Iterable[RemoteEntry],
    left_out: dict[str, list[str]],
    any_ending: bool,
) -> Iterator[FileEntry]:
    """Yield the files among entries that are inputs, and note the others."""
    listed = list(entries)
    features = {PurePosixPath(entry.path).parent for entry in listed if PurePosixPath(entry.path).name == PLAN}
    for folder in sorted(features):
        left_out.setdefault(FOLDER_OF_FEATURES, []).append(_relative(folder, root))
    for entry in listed:
        path = PurePosixPath(entry.path)
        name = _relative(path, root)
        if not features.isdisjoint(path.parents):
            continue
        if any(part.startswith(".") for part in PurePosixPath(name).parts):
            left_out.setdefault(HIDDEN, []).append(name)
        elif not (any_ending or has_known_ending(path.name)):
            left_out.setdefault(OTHER_ENDING, []).append(name)
        else:
            yield _file(place, entry, root)


def _file(place: RemotePlace, entry: RemoteEntry, root: PurePosixPath) -> FileEntry:
    url = place.at(entry.path).url
    return FileEntry(
        source=url,
        name=_relative(PurePosixPath(entry.path), root),
        size=entry.size,
        stamp=entry.stamp,
        identity=url,
    )


def _relative(path: PurePosixPath, root: PurePosixPath) -> str:
    return path.relative_to(root).as_posix()


def _fixed_part(pattern: str) -> PurePosixPath:
    """Return the folder that all matches of a pattern lie in: its parts before the first one with a wildcard."""
    parts = PurePosixPath(pattern).parts
    first = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    return PurePosixPath(*parts[:first])
