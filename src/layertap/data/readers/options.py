"""Options of readers as a value: columns and their roles, how a file is written, and what to do with bad rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from layertap.errors import OptionError

OnError = Literal["raise", "skip"]
Quoting = Literal["none", "minimal"]
Records = Literal["line", "paragraph", "file"]

MAX_RECORD_BYTES = 64 << 20
"""Default of `ReadOptions.max_record_bytes`: far above any text, and a bound on what damage can make a reader hold."""

DELIMITERS = {"tab": "\t", r"\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}
"""Names of delimiters that are hard to type in a shell; any other character stands for itself."""


def _of(*formats: str) -> dict[str, Any]:
    """Metadata of an option that only some formats have."""
    return {"formats": formats}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """Options for reading: which columns play a role, and what to do with rows that cannot be read.

    Attributes:
        text_column: name of the column with the texts; None stands for `text`.
        words_column: name of the column with lists of words, which are the text then; None if words are not given.
        pair_column: name of the column with second texts; None if there are none.
        spans_column: name of the column with character ranges of the text; None if there are none.
        id_column: name of the column with the ids; None stands for `id` if the input has one.
        columns: names of other columns to carry along; None stands for all but the texts.
        delimiter: character between two fields of a table (csv, tsv), or its name in `DELIMITERS`; None: as the first
            part of the file shows it.
        quoting: "minimal" if fields of a table may stand in quotation marks (RFC 4180), "none" if these are ordinary
            characters; None: as the first part of the file shows it.
        header: whether the first row of a table names its columns; without, they are `col0`, `col1`, ...
        records: what one record of a txt file is: a "line", a "paragraph" (lines between empty lines) or the whole
            "file"; None stands for "line".
        encoding: name of the encoding of a text file, as Python names it; None stands for UTF-8. A byte order mark
            overrides it.
        on_error: `raise` stops at the first bad row, `skip` lists it and goes on.
        max_errors: number of bad rows that `skip` tolerates; None tolerates any number.
        max_record_bytes: size of the longest record that is read, in bytes of the uncompressed input.
    """

    text_column: str | None = None
    words_column: str | None = None
    pair_column: str | None = None
    spans_column: str | None = None
    id_column: str | None = None
    columns: tuple[str, ...] | None = None
    delimiter: str | None = field(default=None, metadata=_of("csv", "tsv"))
    quoting: Quoting | None = field(default=None, metadata=_of("csv", "tsv"))
    header: bool = field(default=True, metadata=_of("csv", "tsv"))
    records: Records | None = field(default=None, metadata=_of("txt"))
    encoding: str | None = field(default=None, metadata=_of("txt", "jsonl", "csv", "tsv", "conll", "conllu"))
    on_error: OnError = "raise"
    max_errors: int | None = None
    max_record_bytes: int = MAX_RECORD_BYTES

    def __post_init__(self) -> None:
        _check_choice("on_error", self.on_error, ("raise", "skip"))
        _check_choice("quoting", self.quoting, (None, "none", "minimal"))
        _check_choice("records", self.records, (None, "line", "paragraph", "file"))
        _check_choice("header", self.header, (True, False))
        self._check_columns()
        if self.delimiter is not None:
            object.__setattr__(self, "delimiter", checked_delimiter(self.delimiter))
        if self.encoding is not None:
            from layertap.data.readers.encoding import checked_encoding

            object.__setattr__(self, "encoding", checked_encoding(self.encoding))
        if self.max_errors is not None and self.on_error == "raise":
            raise OptionError("max_errors is given and on_error is 'raise'; it goes with on_error 'skip'")
        if self.max_errors is not None and self.max_errors < 0:
            raise OptionError(f"max_errors is {self.max_errors}; it can be 0 or more")
        limit = self.max_record_bytes
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise OptionError(f"max_record_bytes is {limit!r}; it can be a whole number of at least 1")

    def _check_columns(self) -> None:
        if self.text_column is not None and self.words_column is not None:
            raise OptionError(
                f"text column {self.text_column!r} and words column {self.words_column!r} are both named, and the text "
                "of given words is them with a space between; name one of the two"
            )
        if self.pair_column is not None and self.words_column is not None:
            raise OptionError(
                f"words column {self.words_column!r} and pair column {self.pair_column!r} are both named, and pairs "
                "are of texts, not of given words; name one of the two"
            )
        twice = repeated(self.columns or ())
        if twice:
            raise OptionError(f"columns name {', '.join(map(repr, twice))} twice; name each once")


def repeated(names: Iterable[str]) -> list[str]:
    """Return the names that occur more than once, sorted."""
    return sorted(name for name, count in Counter(names).items() if count > 1)


def checked_delimiter(given: object) -> str:
    """Return the character that a delimiter stands for.

    Raises:
        OptionError: it is no single character, or one that has another meaning in a table.
    """
    delimiter = DELIMITERS.get(given, given) if isinstance(given, str) else given
    if not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter in '"\r\n\0':
        raise OptionError(
            f"delimiter is {given!r}; it can be one character other than a quotation mark or a line break, or "
            f"{', '.join(name for name in DELIMITERS if name.isalpha())}"
        )
    return delimiter


def _check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    if not any(value is choice or (isinstance(choice, str) and value == choice) for choice in choices):
        *others, last = [repr(choice) for choice in choices if choice is not None]
        raise OptionError(f"{name} is {value!r}; it can be {', '.join(others)} or {last}")
