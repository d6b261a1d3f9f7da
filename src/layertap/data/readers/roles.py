"""Records made of the columns that play a role in them: text, words, pair, spans, id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from layertap.data.readers.base import BadRowError
from layertap.data.readers.selection import Selection, checked_id, checked_text, named
from layertap.records import Record

BEGINS = ("begin", "start")


def record_of(row: int, chosen: Selection, values: Mapping[str, Any], columns: Mapping[str, Any]) -> Record:
    """Make the record of a row.

    Args:
        row: its number.
        chosen: which columns play which role.
        values: name -> value; a column that the row lacks is not in it.
        columns: what to carry along.

    Raises:
        BadRowError: a column that is not there, or holds what it cannot.
    """
    words = None if chosen.words is None else checked_words(_there(values, chosen.words), chosen.words)
    text = " ".join(words or ()) if chosen.text is None else checked_text(_there(values, chosen.text), chosen.text)
    pair = None if chosen.pair is None else checked_text(_there(values, chosen.pair), chosen.pair)
    record_id = None if chosen.id is None else checked_id(values.get(chosen.id), chosen.id)
    spans = None
    if chosen.spans is not None:
        try:
            spans = checked_spans(_there(values, chosen.spans), chosen.spans, text)
        except BadRowError as bad:
            raise BadRowError(str(bad) if record_id is None else f"record {record_id!r}: {bad}") from None
    return Record(row=row, text=text, id=record_id, columns=columns, pair=pair, words=words, spans=spans)


def checked_words(value: Any, column: str) -> tuple[str, ...]:
    """Return a list of words, any of which may be empty; raises BadRowError for any other value."""
    if not isinstance(value, list):
        raise BadRowError(f"column {column!r} is {_shown(value)}, not a list of words")
    for number, word in enumerate(value, start=1):
        if not isinstance(word, str):
            raise BadRowError(f"column {column!r}: item {number} is {_shown(word)}, not a word")
    return tuple(value)


def checked_spans(value: Any, column: str, text: str) -> tuple[tuple[int, int], ...]:
    """Return character ranges of a text; raises BadRowError for the first that is none."""
    if not isinstance(value, list):
        raise BadRowError(f"column {column!r} is {_shown(value)}, not a list of spans ([] where there are none)")
    return tuple(_range(item, f"column {column!r}: span {i}", len(text)) for i, item in enumerate(value, start=1))


def _range(item: Any, where: str, length: int) -> tuple[int, int]:
    if isinstance(item, Mapping):
        name = next((name for name in BEGINS if name in item), None)
        bounds = [item.get(name or ""), item.get("end")]
    else:
        bounds = item if isinstance(item, list) else []
    whole = [bound for bound in bounds if isinstance(bound, int) and not isinstance(bound, bool)]
    if len(bounds) != 2 or len(whole) != 2:
        raise BadRowError(f'{where} is neither [begin, end] nor {{"begin": .., "end": ..}} with whole numbers')
    begin, end = whole
    if begin < 0 or end < 0:
        raise BadRowError(f"{where}, [{begin}, {end}], has a negative bound; characters are counted from 0")
    if begin == end:
        raise BadRowError(f"{where}, [{begin}, {end}], is empty; end is one past its last character")
    if begin > end:
        raise BadRowError(f"{where}, [{begin}, {end}], ends before it begins")
    if end > length:
        raise BadRowError(f"{where}, [{begin}, {end}], is past the end of the text, which has {length} characters")
    return begin, end


def _there(values: Mapping[str, Any], column: str) -> Any:
    if column not in values:
        raise BadRowError(f"there is no column {column!r}")
    return values[column]


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return "a string"
    return "null" if value is None else named(value)
