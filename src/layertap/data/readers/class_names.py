"""Names of classes that a Parquet file stores in the metadata of the Hugging Face library datasets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

METADATA_KEY = b"huggingface"
NO_CLASS = -1
"""Number that stands for a missing label."""


def class_names_of(schema: pa.Schema) -> dict[str, tuple[str, ...]]:
    """Return the names of the classes of each column whose whole numbers, or lists of them, stand for classes.

    Metadata that cannot be read counts as none.
    """
    import pyarrow as pa

    try:
        features = json.loads((schema.metadata or {}).get(METADATA_KEY, b"{}"))["info"]["features"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return {}
    named = {}
    for field in schema if isinstance(features, dict) else ():
        names = _names(features.get(field.name))
        type_ = field.type
        while names and (
            pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_)
        ):
            type_ = type_.value_type
        if names and pa.types.is_integer(type_):
            named[field.name] = names
    return named


def _names(feature: Any) -> tuple[str, ...]:
    """Return the names that the description of a column has: of a ClassLabel, or of what a sequence is made of."""
    for _ in range(3):  # lists of lists are not nested deeper
        if isinstance(feature, list) and len(feature) == 1:
            feature = feature[0]
        elif isinstance(feature, Mapping) and "feature" in feature:
            feature = feature["feature"]
    if not isinstance(feature, Mapping) or feature.get("_type") != "ClassLabel":
        return ()
    names = feature.get("names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return ()
    return tuple(names)


def named_type(type_: pa.DataType) -> pa.DataType:
    """Return the type of a column of numbers when these are replaced by names."""
    import pyarrow as pa

    return pa.string() if pa.types.is_integer(type_) else pa.list_(named_type(type_.value_type))


def named_column(column: pa.Array, names: Sequence[str]) -> tuple[pa.Array, dict[int, int]]:
    """Replace the numbers of classes by their names; the number for a missing label by null.

    Args:
        column: whole numbers, or lists of them.
        names: names of the classes.

    Returns:
        The column, and the rows with a number that has no name: row -> number.
    """
    import pyarrow as pa

    table: dict[int | None, str | None] = {NO_CLASS: None, None: None, **dict(enumerate(names))}
    unknown: dict[int, int] = {}

    def named(value: Any, row: int) -> Any:
        if isinstance(value, list):
            return [named(item, row) for item in value]
        if value not in table:
            unknown.setdefault(row, value)
        return table.get(value)

    values = [named(value, row) for row, value in enumerate(column.to_pylist())]
    return pa.array(values, named_type(column.type)), unknown
