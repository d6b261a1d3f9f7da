"""A head on disk: `head.json` says what it is, `head.safetensors` holds its numbers.

Both stand in a folder that appears whole or not at all: it is written beside its place and renamed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from layertap.engine.options import Semantics
from layertap.errors import InputError, LayertapError, OutputError, UsageError
from layertap.features.parse import parse
from layertap.files import staged_folder
from layertap.learn.heads.head import FittedOn, Head
from layertap.learn.tags import SCHEMES
from layertap.version import __version__

JSON_FILE = "head.json"
ARRAYS_FILE = "head.safetensors"
FORMAT = "layertap-head"
VERSION = 1

KEYS = ("name", "task", "scheme", "feature", "labels", "model", "semantics", "options", "metrics")


def check_head_place(folder: Path, *, overwrite: bool) -> None:
    """Refuses a place where a head cannot be put, before any work is done for it.

    Raises:
        UsageError: it exists and may not be replaced, or is something else than a head.
        OutputError: the folder above is missing or not writable.
    """
    if folder.is_symlink() or folder.exists():
        if not (folder / JSON_FILE).is_file() or folder.is_symlink():
            raise UsageError(f"{folder} exists and is no head; name another folder")
        if not overwrite:
            raise UsageError(f"{folder} exists; name another folder, or ask for overwriting (--overwrite)")
    above = folder.resolve().parent
    if not above.is_dir():
        raise OutputError(f"{folder}: there is no folder {above}; make it first")
    if not os.access(above, os.W_OK | os.X_OK):
        raise OutputError(f"{folder}: the folder {above} is not writable")


def save_head(head: Head, folder: Path, *, overwrite: bool) -> None:
    """Writes a head into a new folder, whole or not at all; an old one stays as it was until then."""
    from safetensors.numpy import save

    check_head_place(folder, overwrite=overwrite)
    arrays = {"weight": head.weight, "bias": head.bias}
    if head.mix is not None:
        arrays["mix"] = head.mix
    stated = {"format": FORMAT, "version": VERSION, "layertap": __version__}
    stated |= {key: getattr(head, key) for key in KEYS} | {"labels": list(head.labels)}
    stated |= {"model": asdict(head.model), "semantics": asdict(head.semantics)}
    with staged_folder(folder, first=JSON_FILE, overwrite=overwrite) as staged:
        staged.write(ARRAYS_FILE, save(arrays))
        staged.write(JSON_FILE, (json.dumps(stated, indent=2) + "\n").encode())


def load_head(folder: Path) -> Head:
    """Reads a head.

    Raises:
        InputError: there is none, or its files do not fit together.
    """
    stated = _stated(folder)
    arrays = _arrays(folder)
    try:
        head = _head(stated, arrays)
    except (KeyError, TypeError, ValueError, LayertapError) as error:
        raise _damaged(folder / JSON_FILE, f"{type(error).__name__}: {error}") from None
    classes, width = len(head.labels), head.weight.shape[-1]
    if head.weight.shape != (classes, width) or head.bias.shape != (classes,) or classes < 2:
        raise _damaged(
            folder / ARRAYS_FILE,
            f"weight {list(head.weight.shape)} and bias {list(head.bias.shape)} do not fit {classes} labels",
        )
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise _damaged(folder / ARRAYS_FILE, "it holds NaN or infinity")
    return head


def _head(stated: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[np.float32]]) -> Head:
    if stated["task"] not in ("text", "words") or (stated["task"] == "words") != (stated["scheme"] in SCHEMES):
        raise ValueError(f"task {stated['task']!r} with scheme {stated['scheme']!r}")
    return Head(
        name=str(stated["name"]),
        task=stated["task"],
        scheme=stated["scheme"],
        feature=str(parse(stated["feature"])),
        labels=tuple(map(str, stated["labels"])),
        weight=arrays["weight"],
        bias=arrays["bias"],
        mix=arrays.get("mix"),
        model=FittedOn(**stated["model"]),
        semantics=Semantics(**stated["semantics"]),
        options=dict(stated["options"]),
        metrics=dict(stated["metrics"]),
    )


def _stated(folder: Path) -> dict[str, Any]:
    path = folder / JSON_FILE
    if not folder.is_dir():
        what = "it is a file, and a head is a folder" if folder.exists() else "there is no such folder"
        raise InputError(f"{folder}: {what}; `layertap fit` makes heads")
    try:
        stated = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise InputError(f"{folder} is no head: it has no {JSON_FILE}; `layertap fit` makes heads") from None
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from None
    if not isinstance(stated, dict) or stated.get("format") != FORMAT:
        raise InputError(f"{path} is not of a head: its format is not {FORMAT!r}")
    if stated.get("version") != VERSION:
        raise InputError(f"{path}: its version is {stated.get('version')!r}; this layertap reads {VERSION}")
    return stated


def _arrays(folder: Path) -> dict[str, npt.NDArray[np.float32]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    path = folder / ARRAYS_FILE
    try:
        arrays: dict[str, npt.NDArray[np.float32]] = load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise _damaged(path, str(error)) from None
    return arrays


def _damaged(path: Path, why: str) -> InputError:
    return InputError(f"{path} is damaged: {why}; fit the head anew")
