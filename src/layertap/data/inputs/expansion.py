"""Files that one argument stands for, and what was left out beside them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath

from layertap.data.formats import READ_FORMATS
from layertap.data.readers.compression import compression_named
from layertap.errors import printable
from layertap.words import counted

MOST_NAMED = 3
"""Number of files whose names a note on left-out files states."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """One file that an argument stands for.

    Attributes:
        source: path or URL from which the file is opened.
        name: path relative to the root of the argument, with `/` between its parts.
        size: bytes as stored.
        stamp: text that changes when the file is written to.
        identity: text that two arguments share if they stand for the same file.
    """

    source: str
    name: str
    size: int
    stamp: str
    identity: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Expansion:
    """Files that one argument stands for.

    Attributes:
        argument: the argument, as messages show it.
        files: the files.
        left_out: reason -> names of the files and folders that were left out for it.
        is_folder: whether the argument is a folder or a pattern and not a file.
    """

    argument: str
    files: tuple[FileEntry, ...]
    left_out: dict[str, list[str]]
    is_folder: bool

    @property
    def note(self) -> str | None:
        """Sentence on what was left out, or None."""
        parts = [
            _named(reason, names) if reason != HIDDEN else counted(len(names), reason)
            for reason, names in sorted(self.left_out.items())
        ]
        return f"{self.argument}: left out {', '.join(parts)}" if parts else None


HIDDEN = "hidden file"
OTHER_ENDING = "file of another ending"
FOLDER_OF_FEATURES = "folder of features"
LINKED_FOLDER = "link to a folder"
SPECIAL = "pipe or device"


def has_known_ending(name: str) -> bool:
    """Return whether a file name ends as an input does, with the ending of a compression after it or not."""
    lowered = name.lower()
    if compression_named(PurePath(lowered).suffix) is not None:
        lowered = PurePath(lowered).stem
    return lowered.endswith(known_endings())


def known_endings() -> tuple[str, ...]:
    """Return the endings of all input formats."""
    return tuple(suffix for row in READ_FORMATS.values() for suffix in row.suffixes)


def _named(reason: str, names: Iterable[str]) -> str:
    listed = sorted(names)
    plural = reason.replace("file ", "files ").replace("folder ", "folders ") if len(listed) > 1 else reason
    more = f" and {len(listed) - MOST_NAMED} more" if len(listed) > MOST_NAMED else ""
    return f"{len(listed):,} {plural} ({', '.join(map(printable, listed[:MOST_NAMED]))}{more})"
