"""Choice of the Arrow type that holds JSON values without losing any.

A kind is `null`, `bool`, `int` (a double holds it exactly), `long` (int64 only), `float`, `string`, `json` (anything
else, and mixtures) or `list:<kind>`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

EXACT_IN_DOUBLE = 2**53
LIST = "list:"

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
        return "long" if -(2**63) <= value < 2**63 else "json"
    if isinstance(value, list):
        inner: str = reduce(merge, map(kind_of, value), "null")
        return "json" if inner == "json" else LIST + inner
    return "json"


def merge(a: str, b: str) -> str:
    """Return the kind that holds values of both kinds exactly."""
    if a == b or b == "null":
        return a
    if a == "null":
        return b
    if {a, b} == {"int", "long"}:
        return "long"
    if {a, b} == {"int", "float"}:
        return "float"
    if a.startswith(LIST) and b.startswith(LIST):
        inner = merge(a.removeprefix(LIST), b.removeprefix(LIST))
        return "json" if inner == "json" else LIST + inner
    return "json"


def arrow_type(kind: str) -> pa.DataType | None:
    """Return the Arrow type of a kind, or None if only JSON text holds it (also if every value is null)."""
    import pyarrow as pa

    if kind.count(LIST) > MAX_LISTS:
        return None
    if kind.startswith(LIST):
        inner = arrow_type(kind.removeprefix(LIST))
        return None if inner is None else pa.list_(inner)
    types: Mapping[str, pa.DataType] = {
        "bool": pa.bool_(),
        "int": pa.int64(),
        "long": pa.int64(),
        "float": pa.float64(),
        "string": pa.string(),
    }
    return types.get(kind)


def _is_text(value: str) -> bool:
    # Arrow strings are UTF-8, which has no lone surrogates; JSON text has an escape for them.
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
