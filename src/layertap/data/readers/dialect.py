"""Dialect of a table: delimiter, quotation marks and header, as asked for or as the first part of the file shows it."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from layertap.data.readers.options import DELIMITERS, Quoting, ReadOptions
from layertap.errors import UsageError

HEAD_BYTES = 1 << 18
"""First bytes of a table that its dialect is decided from."""

CANDIDATES = (",", "\t", ";", "|")
CONSISTENT = 0.9
"""Share of rows that have as many fields as the first, from which on a delimiter is believed."""

PREAMBLE = re.compile(r"sep=([^\w\s\"]|\t)\r?\n", re.IGNORECASE)
QUOTED = re.compile(r'"((?:[^"]|"")*+)"')
PLAIN = re.compile(r"[^\n]*")
UNQUOTED_VALUE = re.compile(r"(NA|NaN|NULL|null|[-+0-9.eE]*)\r?")
"""Fields that writers which quote all strings leave without quotation marks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How the rows of a table are written.

    Attributes:
        delimiter: character between two fields.
        quoting: "minimal" if fields may stand in quotation marks, "none" if these are characters like others.
        header: whether the first row names the columns.
        spaced: whether a space follows each delimiter, which is no part of a field.
        preamble: whether the first line names the delimiter (`sep=;`, as Excel writes) and is no row.
        notes: remarks on what was decided from the file, where it is not what the file's name says.
    """

    delimiter: str
    quoting: Quoting
    header: bool
    spaced: bool = False
    preamble: bool = False
    notes: tuple[str, ...] = ()

    @property
    def shown_delimiter(self) -> str:
        """The delimiter for messages."""
        return shown(self.delimiter)


def dialect_of(head: bytes, options: ReadOptions, *, expected: str, file: str) -> Dialect:
    """Decide the dialect of a table.

    Args:
        head: first part of the file, in UTF-8; it may end within a row.
        options: what the user asked for, which counts.
        expected: delimiter that the format's name says.
        file: name of the file for messages.

    Raises:
        UsageError: the first row is one field, and looks like several that another character separates.
    """
    text = head.decode("utf-8", "replace")
    is_whole = len(head) < HEAD_BYTES
    if not is_whole and "\n" in text:
        text = text[: text.rindex("\n") + 1]
    notes = []
    delimiter = options.delimiter
    preamble = PREAMBLE.match(text)
    if preamble is not None and delimiter in (None, preamble[1]):
        delimiter = preamble[1]
        text = text[preamble.end() :]
    if delimiter is None:
        delimiter = _delimiter_of(text, options, expected=expected, file=file)
        if delimiter != expected:
            notes.append(
                f"fields are separated by {shown(delimiter)}, it seems, and not by {shown(expected)}; --delimiter says "
                "otherwise"
            )
    quoting = options.quoting
    if quoting is None:
        # Only of tab-separated files are there two kinds; everything else is written with quotation marks.
        quoting = "minimal" if delimiter != "\t" or is_quoted(text, delimiter, header=options.header) else "none"
        if quoting == "minimal" and delimiter == "\t":
            notes.append("fields stand in quotation marks (RFC 4180), it seems; --quoting none takes them as they are")
    first, *others = text.partition("\n")[0].split(delimiter)
    spaced = delimiter != " " and bool(others) and all(name[:1] == " " and name.strip() for name in others)
    return Dialect(
        delimiter=delimiter,
        quoting=quoting,
        header=options.header,
        spaced=spaced and options.header and first[:1] != " ",
        preamble=preamble is not None,
        notes=tuple(notes),
    )


def shown(delimiter: str) -> str:
    """Return a delimiter for messages: its name where it has one, else itself in quotation marks."""
    return next(
        (f"{name}s" for name, one in DELIMITERS.items() if one == delimiter and name.isalpha()), f"{delimiter!r}"
    )


def is_quoted(text: str, delimiter: str, *, header: bool) -> bool:
    """Return whether a text shows quoting as of RFC 4180 throughout.

    A quotation mark must open and close a field, and be doubled inside one. Some field must need its marks (it holds a
    delimiter, a line break or a mark), or a column must have them in every row. A field of several lines counts against
    it if each of these lines is a whole row by itself.

    Args:
        text: the first part of a table.
        delimiter: character between two fields.
        header: whether the first row names the columns.
    """
    needed = False
    with_commas, bare_commas = 0, 0
    #: column -> whether each of its fields is quoted, values that need no marks aside
    quoted: dict[int, list[bool]] = {}
    width: int | None = None
    for row, lines in _strict_rows(text, delimiter):
        if row is None:
            return False
        width = len(row) if width is None else width
        for column, (field, has_marks) in enumerate(row):
            if not has_marks:
                bare_commas += "," in field
                if not UNQUOTED_VALUE.fullmatch(field):
                    quoted.setdefault(column, []).append(False)
                continue
            if "\n" in field:
                if all(line.count(delimiter) + 1 == width for line in lines):
                    return False
                needed = True
            elif delimiter in field or '"' in field:
                needed = True
            elif "," in field:
                with_commas += 1
            elif field.strip() == field != "":
                quoted.setdefault(column, []).append(True)
    if with_commas and bare_commas:
        return False
    always = [all(marks) for marks in quoted.values() if any(marks)]
    least = 2 if header else 1
    return all(always) and (needed or any(all(marks) and len(marks) >= least for marks in quoted.values()))


def _strict_rows(text: str, delimiter: str) -> Iterator[tuple[list[tuple[str, bool]] | None, list[str]]]:
    """Yield rows as RFC 4180 has them: fields, each with whether it is quoted, and the lines that hold the row.

    None stands for a row that is none, and ends the iteration; a row that the text does not hold whole is left out.
    """
    plain = re.compile(f"[^{re.escape(delimiter)}\n]*")
    position, end = 0, len(text)
    while position < end:
        begin = position
        row: list[tuple[str, bool]] = []
        while True:
            match = QUOTED.match(text, position)
            if match is None and text.startswith('"', position):
                # Not closed: in the part of the file that is not there, if no other mark follows.
                if text.find('"', position + 1) >= 0:
                    yield None, []
                return
            part = match or plain.match(text, position)
            assert part is not None
            field = part[0] if match is None else match[1].replace('""', '"')
            row.append((field, match is not None))
            position = part.end()
            if match is None and '"' in field:
                yield None, []
                return
            if text.startswith(delimiter, position):
                position += 1
                continue
            rest = text[position : position + 2]
            if rest and not rest.startswith("\n") and rest != "\r\n":
                yield None, []
                return
            position += 2 if rest == "\r\n" else 1
            break
        lines = text[begin : position - 1].split("\n")
        if lines != [""]:
            yield row, lines


def _delimiter_of(text: str, options: ReadOptions, *, expected: str, file: str) -> str:
    """Return the delimiter that a text shows: the expected one unless another fits, and that one does not."""
    shares = {one: _consistency(text, one) for one in (expected, *(one for one in CANDIDATES if one != expected))}
    width, share = shares.pop(expected)
    fitting = {one: (its, width_) for one, (width_, its) in shares.items() if width_ > 1 and its >= CONSISTENT}
    if width > 1:
        perfect = [one for one, (its, _) in fitting.items() if its == 1.0]
        return perfect[0] if share < CONSISTENT and len(perfect) == 1 else expected
    if fitting:
        return max(fitting, key=lambda one: fitting[one])
    first, _, rest = text.partition("\n")
    suspects = [one for one in shares if one in first and (options.header or _most_lines_have(one, rest))]
    if suspects:
        flag = next(name for name, one in DELIMITERS.items() if one == suspects[0] and name.isalpha())
        raise UsageError(
            f"{file}: its first line, {first.strip()[:60]!r}, is one field if {shown(expected)} separate fields, and "
            f"several if {shown(suspects[0])} do; say which, with --delimiter {flag} or --delimiter "
            + next(name for name, one in DELIMITERS.items() if one == expected and name.isalpha())
        )
    return expected


def _consistency(text: str, delimiter: str) -> tuple[int, float]:
    """Return the number of fields of the first row, and the share of rows that have as many."""
    first = text.partition("\n")[0]
    if delimiter not in first:
        return 1, 1.0
    widths = [len(row) for row in _rows(text, delimiter) if row]
    return (widths[0], sum(width == widths[0] for width in widths) / len(widths)) if widths else (1, 1.0)


def _rows(text: str, delimiter: str) -> Sequence[list[str]]:
    lines = text.splitlines(keepends=True) if "\r" not in text else re.split(r"(?<=\n)", text)
    if delimiter == "\t":
        return [line.rstrip("\r\n").split("\t") for line in lines if line.strip()]
    rows: list[list[str]] = []
    try:
        rows.extend(csv.reader(lines, delimiter=delimiter))
    except csv.Error:
        return rows
    return rows


def _most_lines_have(delimiter: str, text: str) -> bool:
    lines = [line for line in text.split("\n") if line]
    return sum(delimiter in line for line in lines) >= CONSISTENT * len(lines)
