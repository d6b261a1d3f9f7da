"""Selection of columns: which are the text, the pair, the words, the spans and the id, and which are carried."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from layertap.data.readers.base import BadRowError
from layertap.data.readers.options import ReadOptions
from layertap.errors import UsageError

TEXT_COLUMN = "text"
ID_COLUMN = "id"
MOST_LISTED = 20
LONGEST_LISTED = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Columns of an input by their role.

    Attributes:
        text: the column with the texts, or None: the words are the text.
        words: the column with lists of words, or None.
        pair: the column with second texts, or None.
        spans: the column with character ranges, or None.
        id: the column with the ids, or None.
        columns: the columns to carry along, in order.
    """

    text: str | None
    words: str | None
    pair: str | None
    spans: str | None
    id: str | None
    columns: tuple[str, ...]

    @property
    def wanted(self) -> tuple[str, ...]:
        """All columns that a record is made of, each once."""
        roles = (self.text, self.words, self.pair, self.spans, self.id)
        return tuple(dict.fromkeys([*(name for name in roles if name is not None), *self.columns]))

    @property
    def left_out(self) -> frozenset[str | None]:
        """Columns that are carried only where they are named: texts and ids."""
        return frozenset((self.text, self.words, self.pair, self.id))


def asked_selection(options: ReadOptions) -> Selection:
    """Return the selection that the user asked for, unchecked, for an input that does not state its columns."""
    return Selection(
        text=None if options.words_column else options.text_column or TEXT_COLUMN,
        words=options.words_column,
        pair=options.pair_column,
        spans=options.spans_column,
        id=options.id_column,
        columns=options.columns or (),
    )


def select(
    options: ReadOptions,
    *,
    file: str,
    available: Sequence[str],
    texts: Sequence[str],
    ids: Collection[str],
    origin: str = "its columns are",
    advice: str = "",
) -> Selection:
    """Give the columns of an input their roles.

    Args:
        options: what the user asked for.
        file: the input's name for messages.
        available: names of its columns, in order.
        texts: names of those that hold strings, for the advice when the text column is missing.
        ids: names of those that can be ids. A column `id` of another kind is carried as it is.
        origin: how a message introduces the columns.
        advice: what else a message says where a column is not there.

    Raises:
        UsageError: a column that is not there or cannot play its role; the message lists those that are there.
    """
    those = f"{origin} {listed(available)}" if available else "it has no columns"
    there = frozenset(available)
    asked = asked_selection(options)
    if asked.text is not None and asked.text not in there:
        only = f"; the only one with strings is {texts[0]!r}: name it (--text-column)" if len(texts) == 1 else ""
        near = [name for name in texts if name.casefold() == asked.text.casefold()]
        only = f"; did you mean {near[0]!r}? Then name it (--text-column)" if near else only
        only = "" if advice else only
        how = "" if options.text_column else " and no text column is named"
        raise UsageError(f"{file}: there is no column {asked.text!r}{how}; {those}{only}{advice}")
    roles = (options.words_column, options.pair_column, options.spans_column, options.id_column)
    missing = [name for name in (*(options.columns or ()), *roles) if name is not None and name not in there]
    if missing:
        raise UsageError(f"{file}: there is no column {listed(missing)}; {those}{advice}")
    if options.id_column is not None and options.id_column not in ids:
        raise UsageError(f"{file}: column {options.id_column!r} cannot be the id: ids are strings or whole numbers")
    id_column = options.id_column or (ID_COLUMN if ID_COLUMN in ids and asked.text != ID_COLUMN else None)
    chosen = replace(asked, id=id_column)
    if options.columns is None:
        columns = tuple(name for name in available if name not in chosen.left_out)
    else:
        columns = tuple(name for name in options.columns if (name, id_column) != (ID_COLUMN, ID_COLUMN))
    if id_column is not None and ID_COLUMN in columns:
        raise UsageError(
            f"{file}: the output's column 'id' would hold both {id_column!r} and the input's own 'id'; "
            "name the columns to carry (--columns), without 'id'"
        )
    return replace(chosen, columns=columns)


def listed(names: Sequence[str]) -> str:
    """Return the first few names for a message, quoted, and how many more there are."""
    more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    shown = (
        name if len(name) <= LONGEST_LISTED else name[: LONGEST_LISTED - 3] + "..." for name in names[:MOST_LISTED]
    )
    return ", ".join(map(repr, shown)) + more


def checked_text(value: Any, column: str) -> str:
    """Return a text; raises BadRowError for any other value."""
    if isinstance(value, str):
        return value
    if value is None:
        raise BadRowError(f"column {column!r} is null")
    words = isinstance(value, list) and all(isinstance(word, str) for word in value)
    remedy = f"; if it holds words, name it as such (--words-column {column})" if words else ""
    raise BadRowError(f"column {column!r} is {named(value)}, not a text{remedy}")


def checked_id(value: Any, column: str) -> str | int | None:
    """Return an id, or None for null (the record has none then); raises BadRowError for any other value."""
    if is_id(value):
        checked: str | int | None = value
        return checked
    raise BadRowError(f"column {column!r} is {named(value)}; ids are strings or whole numbers")


def is_id(value: Any) -> bool:
    """Return whether a value is a string, a whole number or null."""
    return value is None or (isinstance(value, str | int) and not isinstance(value, bool))


def named(value: Any) -> str:
    """Describe the kind of a value in the terms of JSON."""
    kinds = {
        str: "a string",
        bool: "true or false",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "an object",
    }
    return kinds.get(type(value), f"of type {type(value).__name__}")
