"""Choice of the Arrow type that holds JSON values without losing any.

A kind is `null`, `bool`, `int` (a double holds it exactly), `long` (int64 only), `float`, `string`, `text` (strings and
numbers of different kinds, which become their plain text), `json` (objects, and lists of different kinds) or
`list:<kind>`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

EXACT_IN_DOUBLE = 2**53
LIST = "list:"
SCALARS = frozenset({"bool", "int", "long", "float", "string", "text"})

MAX_LISTS = 48
"""Lists one inside another that a column may have; readers of Parquet refuse a schema that is nested deeper."""


def kind_of(value: Any) -> str:
    """Return the kind of one parsed JSON value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, str):
        return "string" if _is_text(value) else "json"
    if isinstance(value, float):
        return "float"
    if isinstance(value, int):
        if -EXACT_IN_DOUBLE <= value <= EXACT_IN_DOUBLE:
            return "int"
        return "long" if -(2**63) <= value < 2**63 else "text"
    if isinstance(value, list):
        return _list_of(reduce(merge, map(kind_of, value), "null"))
    return "json"


def merge(a: str, b: str) -> str:
    """Return the kind that holds values of both kinds without loss."""
    if a == b or b == "null":
        return a
    if a == "null":
        return b
    if {a, b} == {"int", "long"}:
        return "long"
    if {a, b} == {"int", "float"}:
        return "float"
    if a.startswith(LIST) and b.startswith(LIST):
        return _list_of(merge(a.removeprefix(LIST), b.removeprefix(LIST)))
    return "text" if {a, b} <= SCALARS else "json"


def arrow_type(kind: str) -> pa.DataType | None:
    """Return the Arrow type of a kind, or None if only JSON text holds it; a column of nulls is one of strings."""
    import pyarrow as pa

    if kind.count(LIST) > MAX_LISTS:
        return None
    if kind.startswith(LIST):
        inner = arrow_type(kind.removeprefix(LIST))
        return None if inner is None or kind.endswith("null") else pa.list_(inner)
    types: Mapping[str, pa.DataType] = {
        "bool": pa.bool_(),
        "int": pa.int64(),
        "long": pa.int64(),
        "float": pa.float64(),
        "string": pa.string(),
        "text": pa.string(),
        "null": pa.string(),
    }
    return types.get(kind)


def _list_of(inner: str) -> str:
    return "json" if inner in ("json", "text") else LIST + inner


def _is_text(value: str) -> bool:
    # Arrow strings are UTF-8, which has no lone surrogates; JSON text has an escape for them.
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
