"""Reads `config.json` values with their types; every error names file, field, expected and found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from layertap.errors import ConfigError, UnsupportedModelError

MAX_SIZE = 2**31 - 1
MAX_LAYERS = 10_000
"""Layers at most in families whose specs hold something for each layer."""


@dataclass(frozen=True, slots=True)
class ConfigReader:
    """Typed access to a parsed `config.json`.

    Attributes:
        values: the parsed JSON object.
        file: what to call it in messages.
    """

    values: Mapping[str, Any]
    file: str = "config.json"

    def with_defaults(self, defaults: Mapping[str, Any]) -> ConfigReader:
        """Return a config with values for fields that this one does not state."""
        return ConfigReader({**defaults, **self.values}, self.file)

    def fail(self, field: str, expected: str) -> ConfigError:
        """Return the error for a field with an impossible value."""
        shown = short(self.values[field]) if field in self.values else "nothing"
        return ConfigError(f"{self.file}: {field}: expected {expected}, found {shown}")

    def name_of(self, *names: str) -> str:
        """Return the first of a field's names that the file states, or the last one; what it says twice has to be the
        same.
        """
        stated = [name for name in names if self.values.get(name) is not None]
        for other in stated[1:]:
            if self.values[other] != self.values[stated[0]]:
                raise self.fail(other, f"what {stated[0]} says ({short(self.values[stated[0]])})")
        return next(iter(stated), next((name for name in names if name in self.values), names[-1]))

    def size(self, field: str, default: int | None = None, *, minimum: int = 1, maximum: int = MAX_SIZE) -> int:
        """Return a whole number from `minimum` to `maximum`."""
        value = self.values.get(field, default)
        if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
            raise self.fail(field, f"a whole number from {minimum} to {maximum}")
        return value

    def number(self, field: str, default: float, *, low: float, high: float) -> float:
        """Return a number with `low <= number <= high`."""
        value = self.values.get(field, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise self.fail(field, f"a number from {low} to {high}")
        return float(value)

    def fraction(self, field: str, default: float) -> float:
        """Return a number from 0 to 1, such as a dropout probability or the eps of a norm."""
        return self.number(field, default, low=0.0, high=1.0)

    def flag(self, field: str, default: bool) -> bool:
        """Return a field that must be true or false."""
        value = self.values.get(field, default)
        if not isinstance(value, bool):
            raise self.fail(field, "true or false")
        return value

    def optional_id(self, field: str, default: int | None) -> int | None:
        """Return a token id, or None where the file says null."""
        if self.values.get(field, default) is None:
            return None
        return self.size(field, default, minimum=0)

    def one_of(self, field: str, default: str, allowed: Mapping[str, Any]) -> Any:
        """Return the meaning in `allowed` of a field with a fixed set of values."""
        value = self.values.get(field, default)
        if not isinstance(value, str) or value not in allowed:
            raise self.fail(field, "one of " + ", ".join(allowed))
        return allowed[value]

    def refuse_unless(self, field: str, harmless: tuple[Any, ...], why: str) -> None:
        """Refuses a field that changes the forward pass in a way that layertap does not compute."""
        if field in self.values and self.values[field] not in harmless:
            raise UnsupportedModelError(f"{self.file}: {field} is {short(self.values[field])}: {why}")


def short(value: Any) -> str:
    """Return a value as messages show it: its repr, cut to 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
