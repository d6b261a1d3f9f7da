"""The places that a run writes to or removes, compared with what it reads, before anything happens."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

from layertap.errors import OptionError, printable
from layertap.files.places import resolved

STANDARD_STREAM = "-"

Place: TypeAlias = str | os.PathLike[str]


def refuse_overlap(inputs: Iterable[Place], places: Mapping[str, Path]) -> None:
    """Refuse a run that would write to, replace or remove something that it reads.

    Files are compared as the system knows them: through links, hard links, other spellings of a path, and names in
    another case on file systems that do not tell cases apart.

    Args:
        inputs: every file or folder that the run reads: the input, models, heads. `-` is standard input. A folder
            stands for everything in it.
        places: every file or folder that the run may write, replace or remove, by what a message calls it ("the
            output", "its offsets"). `-` is standard output. A folder stands for everything in it.

    Raises:
        OptionError: an input stands in one of the places, or two places are the same.
        OutputError: a place is relative, and the current folder has been removed.
    """
    sources = [source for source in inputs if identity(source) is not None]
    roles: dict[Path, str] = {}
    for role, place in places.items():
        for source in sources:
            if _same(place, source) or _inside(source, place) or (_exists(place) and _inside(place, source)):
                raise OptionError(_clash(role, place, source))
        if os.fspath(place) == STANDARD_STREAM:
            continue
        other = roles.setdefault(resolved(place), role)
        if other != role:
            raise OptionError(f"{printable(place)} would be {other} and {role} at once; name another file for one")


def identity(place: Place, *, writing: bool = False) -> tuple[int, int] | None:
    """Return device and inode of a file or folder, or None if there is none; `-` is a standard stream."""
    try:
        if os.fspath(place) == STANDARD_STREAM:
            # Not the number 0 or 1: a program that embeds layertap may have put something else there.
            status = os.fstat((sys.stdout if writing else sys.stdin).fileno())
        else:
            status = Path(place).stat()
    except (OSError, ValueError, AttributeError):  # AttributeError: a closed stream is None
        return None
    return status.st_dev, status.st_ino


def _exists(place: Path) -> bool:
    return identity(place, writing=True) is not None


def _same(place: Path, source: Place) -> bool:
    there = identity(place, writing=True)
    if there is None or there != identity(source):
        return False
    # A terminal, and /dev/null, are read and written at once without harm.
    return os.fspath(place) != STANDARD_STREAM or stat.S_ISREG(os.fstat(sys.stdout.fileno()).st_mode)


def _inside(inner: Place, outer: Place) -> bool:
    """Return whether a file or folder is somewhere in a folder."""
    if STANDARD_STREAM in (os.fspath(inner), os.fspath(outer)):
        return False
    there = identity(outer)
    if there is None or not Path(outer).is_dir():
        return False
    return any(identity(above) == there for above in resolved(inner).parents)


def _clash(role: str, place: Path, source: Place) -> str:
    if os.fspath(place) == STANDARD_STREAM:
        return "standard output is the input too; write to another file"
    where = printable(place)
    if os.fspath(source) != STANDARD_STREAM and os.path.realpath(place) == os.path.realpath(source):
        return f"{where} is the input too, and {role} would replace it; name another output"
    name = "standard input" if os.fspath(source) == STANDARD_STREAM else printable(os.fspath(source))
    return f"{where} would be replaced by {role}, and {name}, which is read, stands there; name another output"
