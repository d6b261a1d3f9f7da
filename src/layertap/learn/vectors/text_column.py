"""A column of texts in any of the containers that users of scikit-learn pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Any, Literal

from layertap.errors import InputError, UsageError

MissingTexts = Literal["refuse", "empty"]
"""Treatment of None, NaN and NA in a column of texts: an error, or the empty text."""

EXPECTED = "expected a list, array or Series of texts, or a frame of one column"


def texts_of(column: Any, missing: MissingTexts = "refuse") -> list[str]:
    """Return the texts of a list, a numpy array, a pandas or polars Series, or a frame or array of one column.

    Args:
        column: the container.
        missing: "empty" reads None, NaN and NA as the empty text; "refuse" raises InputError.

    Raises:
        UsageError: the argument is a single text, a mapping, or has several columns.
        InputError: an item is missing or not a text; the message names its position, counted from 0.
    """
    items = _items(column)
    if missing == "empty":
        items = ["" if _is_missing(item) else item for item in items]
    for row, item in enumerate(items):
        if not isinstance(item, str):
            raise InputError(f"text {row} is {_described(item)}; every text must be a str")
    return [str(item) for item in items]


def _items(column: Any) -> list[Any]:
    if isinstance(column, str | bytes):
        raise UsageError(
            f"X is one {type(column).__name__}, {column[:40]!r}; {EXPECTED}; for a single text write [text]"
        )
    shape = getattr(column, "shape", None)
    if isinstance(shape, tuple) and len(shape) != 1:
        column = _only_column(column, shape)
    if isinstance(column, Mapping | Set) or not isinstance(column, Iterable):
        raise UsageError(f"X is of type {type(column).__name__}; {EXPECTED}")
    as_list = getattr(column, "to_pylist", None)  # pyarrow: iteration gives scalars, not str
    return list(as_list()) if callable(as_list) else list(column)


def _only_column(table: Any, shape: tuple[int, ...]) -> Any:
    if len(shape) != 2 or shape[1] != 1:
        what = f"of shape {list(shape)}" if len(shape) != 2 else f"with {shape[1]} columns"
        raise UsageError(
            f"X is a {type(table).__name__} {what}; {EXPECTED}: select the column, as in X['text'], or name it in a "
            "ColumnTransformer"
        )
    if hasattr(table, "columns"):
        names = getattr(table, "column_names", table.columns)
        return table[names[0]]
    return table[:, 0]


def _is_missing(item: object) -> bool:
    # NaN and pandas' NA stand for missing texts in a column of objects.
    return item is None or type(item).__name__ in ("NAType", "NaTType") or (isinstance(item, float) and item != item)


def _described(item: object) -> str:
    if _is_missing(item):
        return f"missing ({item})"
    if isinstance(item, list | tuple):
        return f"a {type(item).__name__} of {len(item)}"
    return f"{item!r:.60} of type {type(item).__name__}"
