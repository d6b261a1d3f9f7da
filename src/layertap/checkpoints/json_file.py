"""Reads a checkpoint's JSON files; whatever is wrong with one is a `ConfigError` naming file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from layertap.errors import ConfigError
from layertap.git_lfs import pointer_in_place
from layertap.models.config import short
from layertap.stored_file import read_whole

# Far beyond any real file, and far below the depth at which Python's own repr and compare give up.
MAX_DEPTH = 64


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        ConfigError: unreadable, not UTF-8, not JSON, nested deeper than `MAX_DEPTH`, a name twice with different
            values, or not an object.
    """
    value = _read(path)
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected a JSON object, found {_kind(value)}")
    return value


def read_array(path: Path) -> list[Any]:
    """Return the JSON array in a file; errors as `read_object`."""
    value = _read(path)
    if not isinstance(value, list):
        raise ConfigError(f"{path}: expected a JSON array, found {_kind(value)}")
    return value


def _read(path: Path) -> Any:
    data = read_whole(path, error=ConfigError)
    if pointer := pointer_in_place(path, data):
        raise ConfigError(pointer)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}: line {line}: not UTF-8 (byte {error.start})") from error
    try:
        value = json.loads(text, object_pairs_hook=lambda pairs: _unique(path, pairs))
    except ConfigError:
        raise
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}: line {error.lineno}, column {error.colno}: not JSON: {error.msg}") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: nested deeper than {MAX_DEPTH} levels") from error
    except ValueError as error:
        # Python refuses to convert whole numbers of more than 4,300 digits.
        raise ConfigError(f"{path}: a number with too many digits") from error
    _check_depth(path, value)
    return value


def _unique(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of its pairs; Python alone would keep the last of a name that stands twice."""
    values: dict[str, Any] = {}
    for name, value in pairs:
        # repr: true is not 1, and NaN is itself
        if name in values and repr(values[name]) != repr(value):
            raise ConfigError(f"{path}: {short(name)}: expected once, found twice, with different values")
        values[name] = value
    return values


def _check_depth(path: Path, value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for parent in level
            if isinstance(parent, dict | list)
            for child in (parent.values() if isinstance(parent, dict) else parent)
        ]
        if not level:
            return
    raise ConfigError(f"{path}: nested deeper than {MAX_DEPTH} levels")


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    names: dict[type, str] = {dict: "an object", list: "an array", str: "a string", bool: "true or false"}
    return names.get(type(value), "a number")
