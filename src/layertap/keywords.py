"""Keywords and attributes of other libraries that layertap does not support: tables of them, and their refusal.

A function that takes the calls of another library has the supported keywords in its signature. The others are looked up
in a table: a keyword of the table is refused by name unless its value has no effect, and any other name as unknown.
An attribute of a table does not exist, so that `hasattr` is False, and the message of the `AttributeError` gives the
reason.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from layertap.errors import OptionError

Table: TypeAlias = Mapping[str, tuple[tuple[Any, ...], str]]
"""Name of a keyword -> values that have no effect, and the reason for the refusal of others."""


def refuse_all(
    keywords: Mapping[str, Any], table: Table, accepted: Iterable[str], kinds: str = "no keyword that is known here"
) -> None:
    """Refuse every keyword: those of the table with their reason, all others as unknown.

    Args:
        keywords: keywords that are not in the signature.
        table: table of unsupported keywords.
        accepted: names in the signature, among which the nearest spelling is suggested.
        kinds: what the refusal calls an unknown name.

    Raises:
        OptionError: a keyword is unknown, or has a value with an effect.
    """
    for name, value in keywords.items():
        if name not in table:
            refuse_unknown_name(name, [*accepted, *table], kinds)
        refuse_value(name, value, *table[name])


def refuse_value(name: str, value: Any, harmless: tuple[Any, ...], why: str) -> None:
    """Refuse a keyword unless its value is one of those that have no effect.

    Raises:
        OptionError: the value has an effect.
    """
    # `is` first: a tensor or a mapping must not be compared with ==
    if not any(value is one or (isinstance(value, str) and value == one) for one in harmless):
        is_short = isinstance(value, str | bool | int | float) and "token" not in name  # a token is a secret
        shown = repr(value) if is_short else f"a {type(value).__name__}"
        raise OptionError(f"{name}={shown} is not supported: {why}")


def refuse_unknown_name(name: str, known: list[str], kinds: str) -> None:
    """Refuse a keyword that nothing knows, with the nearest spelling of those that are known.

    Raises:
        OptionError: always.
    """
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise OptionError(f"{name!r} is {kinds}{hint}")


def check_absent(owner: object, name: str, attributes: Mapping[str, str]) -> None:
    """Raise an `AttributeError` with the reason, for a name of a table."""
    if name in attributes:
        raise AttributeError(f"{type(owner).__name__}.{name} is not supported: {attributes[name]}")
