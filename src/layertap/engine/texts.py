"""Texts as Python users pass them, and the conversion to records."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, TypeAlias

import numpy as np

from layertap.errors import InputError, UsageError
from layertap.records import Record

Text: TypeAlias = str | tuple[str, str] | list[str] | Record
"""Accepted forms of one text: a string, a pair (tuple of two strings), a list of words, or a record."""

Lists: TypeAlias = Literal["words", "pairs", "either"]
"""Meaning of a list of two strings: two words, a pair of texts, or whichever of them its white space shows."""

SPACED = (
    "text {row} is a list, which means given words, and {word!r:.60} holds white space; a pair of texts is a tuple, as "
    "in ('a question', 'an answer')"
)


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
        raise UsageError(
            "texts: expected a list of texts, found a table; name one of its columns, as in df['text'], or give pairs "
            "of two columns, as in list(zip(df['question'], df['answer']))"
        )


def as_records(items: Iterable[Text], *, lists: Lists = "words") -> Iterator[Record]:
    """Convert texts to records, numbered from 0 in their order.

    Strings may come in any container: lists, arrays and columns of numpy, pandas, polars, pyarrow and datasets, and
    arrays of one column. Where given words hold white space, which a pair of texts in a list would do, there is one
    warning.

    Args:
        items: the texts.
        lists: meaning of a list of two strings. With "either" it is a pair if one of them holds white space or if the
            items are an array of two columns, and is refused otherwise.

    Raises:
        InputError: an item has none of the accepted forms, or is missing.
    """
    shape: tuple[int, ...] = getattr(items, "shape", ())
    one_column = len(shape) == 2 and shape[1] == 1
    if lists == "either" and len(shape) == 2 and shape[1] == 2:
        lists = "pairs"
    warned = False
    for row, given in enumerate(items):
        item = _plain(given)
        if one_column and isinstance(item, list):
            (item,) = item
        match item:
            case Record():
                yield item
            case str():
                yield Record(row=row, text=str(item))
            case (str(first), str(second)) if isinstance(item, tuple) or _is_pair(row, item, lists):
                yield Record(row=row, text=first, pair=second)
            case list() if all(isinstance(word, str) for word in item):
                spaced = next((word for word in item if has_white_space(word)), None)
                if spaced is not None and not warned:
                    warnings.warn(SPACED.format(row=row, word=spaced), UserWarning, stacklevel=2)
                    warned = True
                yield Record.of_words(row, item)
            case _:
                raise InputError(
                    f"text {row} is {_kind_of(item)}; expected a str, a pair (tuple of two), a list of words or a "
                    "Record"
                )


def has_white_space(word: str) -> bool:
    """Whether a given word is more than one word by white space."""
    return len(word.split(maxsplit=1)) > 1


def _plain(given: Any) -> Any:
    """Return the str, list or other value of an item of an array or column."""
    if isinstance(given, str | tuple | list | Record):
        return given
    if isinstance(given, np.ndarray):
        return given.tolist()
    for name in ("as_py", "to_list"):  # a scalar of pyarrow; a list in a column of polars
        convert = getattr(given, name, None)
        if callable(convert):
            return convert()
    return given


def _is_pair(row: int, item: list[str], lists: Lists) -> bool:
    """Return whether a list of two strings is a pair.

    Raises:
        InputError: it could be two words as well.
    """
    if lists != "either" or any(map(has_white_space, item)):
        return lists != "words"
    raise InputError(
        f"text {row} is the list {item!r:.80}, which could be a pair of texts or two words of one text; write a pair "
        "as a tuple, and words as Record.of_words(row, words)"
    )


def _kind_of(item: object) -> str:
    # NaN and pandas' NA stand for missing texts in a column of objects
    if item is None or type(item).__name__ in ("NAType", "NaTType") or (isinstance(item, float) and item != item):
        return f"missing ({item})"
    if isinstance(item, Mapping):
        return f"a row with the columns {', '.join(map(str, item))[:60]}, of which a text is one, as in row['text']"
    if isinstance(item, tuple):
        return f"a tuple of {len(item)}"
    return "a list of other things than words" if isinstance(item, list) else type(item).__name__
