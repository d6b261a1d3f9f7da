"""Strict reading of JSON objects: each value has the type that the format states, or the file is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from layertap.errors import InputError, one_line, printable


class Fields:
    """One JSON object of a file, whose values are taken by name and type.

    Args:
        values: the parsed object.
        file: name of the file for messages.
    """

    def __init__(self, values: Any, file: str) -> None:
        self.file = file
        if not isinstance(values, Mapping):
            raise self.fail(f"{one_line(repr(values), 40)} stands where an object is expected")
        self.values: Mapping[str, Any] = values

    @classmethod
    def parse(cls, content: bytes, file: str) -> Fields:
        """Parse a file that holds one JSON object.

        Raises:
            InputError: the content is no JSON object.
        """
        try:
            values = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{printable(file)}: it is damaged: no JSON ({one_line(error)})") from None
        return cls(values, file)

    def fail(self, message: str) -> InputError:
        """Return the error that the file is damaged."""
        return InputError(f"{printable(self.file)}: it is damaged: {message}")

    def text(self, name: str) -> str:
        """Return a string, or refuse the file."""
        return str(self._value(name, str, "a string"))

    def text_or_none(self, name: str) -> str | None:
        """Return a string or None (JSON null), or refuse the file."""
        return None if self._there(name) is None else self.text(name)

    def count(self, name: str) -> int:
        """Return a whole number of at least 0, or refuse the file."""
        value = self._value(name, int, "a whole number")
        if isinstance(value, bool) or value < 0:
            raise self.fail(f"{name!r} is {value!r}, not a whole number of at least 0")
        return int(value)

    def truth(self, name: str) -> bool:
        """Return true or false, or refuse the file."""
        return bool(self._value(name, bool, "true or false"))

    def mapping(self, name: str) -> Mapping[str, Any]:
        """Return an object as it was parsed, or refuse the file."""
        value: Mapping[str, Any] = self._value(name, dict, "an object")
        return value

    def items(self, name: str) -> list[Any]:
        """Return a list as it was parsed, or refuse the file."""
        value: list[Any] = self._value(name, list, "a list")
        return value

    def objects(self, name: str) -> list[Fields]:
        """Return a list of objects, or refuse the file."""
        return [Fields(value, self.file) for value in self.items(name)]

    def counts(self, name: str) -> tuple[int, ...]:
        """Return a list of whole numbers of at least 0, or refuse the file."""
        values = self.items(name)
        if not all(type(value) is int and value >= 0 for value in values):
            raise self.fail(f"{name!r} is no list of whole numbers")
        return tuple(values)

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of strings, or refuse the file."""
        values = self.items(name)
        if not all(isinstance(value, str) for value in values):
            raise self.fail(f"{name!r} is no list of strings")
        return tuple(values)

    def _there(self, name: str) -> Any:
        if name not in self.values:
            raise self.fail(f"{name!r} is missing")
        return self.values[name]

    def _value(self, name: str, kind: type, words: str) -> Any:
        value = self._there(name)
        if not isinstance(value, kind):
            raise self.fail(f"{name!r} is {one_line(repr(value), 40)}, not {words}")
        return value


def as_json(values: Mapping[str, Any]) -> bytes:
    """Encode an object as the folder's files have it: equal values give equal bytes."""
    return json.dumps(values, indent=1).encode("ascii") + b"\n"
