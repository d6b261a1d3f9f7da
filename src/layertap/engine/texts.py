"""Texts as Python users pass them, and the conversion to records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias

import numpy as np

from layertap.errors import InputError, UsageError
from layertap.records import Record

Text: TypeAlias = str | tuple[str, str] | list[str] | Record
"""Accepted forms of one text: a string, a pair (tuple of two strings), a list of words, or a record."""


def check_iterable(texts: object) -> None:
    """Refuse an argument that is not a list of texts.

    A string is an iterable of texts too (its characters), and a set has no order that the results could follow.

    Raises:
        UsageError: the argument is one text, a table, a mapping, a set, or no iterable at all.
    """
    if not isinstance(texts, Iterable) or isinstance(texts, str | bytes | Mapping | set | frozenset):
        raise UsageError(f"texts: expected a list of texts, found {type(texts).__name__}")
    if getattr(texts, "shape", None) == ():
        raise UsageError("texts: expected a list of texts, found an array without an axis; its .item() is one text")
    if hasattr(texts, "columns"):
        raise UsageError("texts: expected a list of texts, found a table; name one of its columns, as in df['text']")


def as_records(items: Iterable[Text]) -> Iterator[Record]:
    """Convert texts to records, numbered from 0 in their order.

    Raises:
        InputError: an item has none of the accepted forms.
    """
    for row, given in enumerate(items):
        item = given.tolist() if isinstance(given, np.ndarray) else given
        match item:
            case Record():
                yield item
            case str():
                yield Record(row=row, text=str(item))
            case (str(first), str(second)) if isinstance(item, tuple):
                yield Record(row=row, text=first, pair=second)
            case list() if all(isinstance(word, str) for word in item):
                yield Record.of_words(row, item)
            case _:
                raise InputError(
                    f"text {row} is {_kind_of(item)}; expected a str, a pair (tuple of two), a list of words or a "
                    "Record"
                )


def _kind_of(item: object) -> str:
    if isinstance(item, tuple):
        return f"a tuple of {len(item)}"
    return "a list of other things than words" if isinstance(item, list) else type(item).__name__
