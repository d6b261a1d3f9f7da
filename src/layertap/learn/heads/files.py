"""A fitted head on disk: a folder with `head.json`, its description, and `head.safetensors`, its weights.

This module reads and writes plain values and arrays; `Head.save` and `Head.load` convert them. A folder appears whole
or not at all: it is written beside its place and renamed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from layertap.errors import InputError, OutputError, UsageError, one_line
from layertap.files import FOLDER, read_settled, resolved, staged_folder
from layertap.version import __version__

JSON_FILE = "head.json"
ARRAYS_FILE = "head.safetensors"
FORMAT = "layertap-head"
VERSION = 1


def check_head_place(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that a head cannot be written to, before any work is done for it.

    A link stands for the folder that it leads to: that folder is created or replaced, and the link stays.

    Raises:
        UsageError: the folder exists and may not be replaced, or holds something else than a head.
        OutputError: the parent folder is missing or not writable.
    """
    place = resolved(folder)
    if os.path.lexists(place):
        if not (place / JSON_FILE).is_file():
            leads = f" (a link to {place})" if folder.is_symlink() else ""
            raise UsageError(f"{folder}{leads} exists and is not a head; name another folder")
        if not overwrite:
            raise UsageError(f"{folder} exists; name another folder, or allow overwriting it (--overwrite)")
    above = place.parent
    if not above.is_dir():
        raise OutputError(f"{folder}: there is no folder {above}; create it first")
    if not os.access(above, os.W_OK | os.X_OK):
        raise OutputError(f"{folder}: the folder {above} is not writable")


def write_head(
    folder: Path, stated: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[np.float32]], *, overwrite: bool
) -> None:
    """Write a head into a new folder, whole or not at all; a head that it replaces stays intact until then.

    Args:
        folder: the folder to create.
        stated: description of the head, as JSON values.
        arrays: weights by name.
        overwrite: whether a head at that place may be replaced.

    Raises:
        UsageError: the folder exists and may not be replaced.
        OutputError: the folder cannot be written.
    """
    from safetensors.numpy import save

    check_head_place(folder, overwrite=overwrite)
    whole = {"format": FORMAT, "version": VERSION, "layertap": __version__, **stated}
    with staged_folder(folder, first=JSON_FILE, overwrite=overwrite) as staged:
        staged.write(ARRAYS_FILE, save(dict(arrays)))
        staged.write(JSON_FILE, (json.dumps(whole, indent=2) + "\n").encode())


def read_head(folder: Path) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Read the description and the weights of a head.

    Raises:
        InputError: the folder is not a head, or one of its files is damaged.
    """
    return read_settled(folder / JSON_FILE, lambda: (_read_json(folder), _read_arrays(folder)), name=FOLDER)


def damaged(path: Path, why: str) -> InputError:
    """Build the error for a file of a head that does not hold what it should."""
    return InputError(f"{path} is damaged: {one_line(why)}; fit the head again")


def _read_json(folder: Path) -> dict[str, Any]:
    path = folder / JSON_FILE
    if not folder.is_dir():
        what = "it is a file, and a head is a folder" if folder.exists() else "there is no such folder"
        raise InputError(f"{folder}: {what}; `layertap fit` creates heads")
    if not path.exists():
        raise InputError(f"{folder} is not a head: it has no {JSON_FILE}; `layertap fit` creates heads")
    try:
        stated = json.loads(_content(path))
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(path, str(error)) from None
    if not isinstance(stated, dict) or stated.get("format") != FORMAT:
        raise InputError(f"{path} does not describe a head: its format is not {FORMAT!r}")
    if stated.get("version") != VERSION:
        version = one_line(repr(stated.get("version")), 80)
        raise InputError(f"{path}: its version is {version}; this version of layertap reads {VERSION}")
    return stated


def _read_arrays(folder: Path) -> dict[str, npt.NDArray[Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    path = folder / ARRAYS_FILE
    try:
        arrays: dict[str, npt.NDArray[Any]] = load(_content(path))
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise damaged(path, str(error)) from None
    return arrays


def _content(path: Path) -> bytes:
    if path.exists() and not path.is_file():  # a named pipe would wait for a writer
        raise OSError("it is not a file")
    return path.read_bytes()
