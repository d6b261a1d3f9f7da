"""JSON Lines and JSON: one record per object, on lines of their own, in an array, or over several lines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any

from layertap.data.json_types import arrow_type, kind_of, merge
from layertap.data.readers.base import BadRowError, Reader
from layertap.data.readers.json_values import items_of_array, objects_over_lines
from layertap.data.readers.lines import decode, numbered_lines
from layertap.data.readers.options import ReadOptions
from layertap.data.readers.roles import record_of
from layertap.data.readers.selection import ID_COLUMN, Selection, asked_selection, is_id, named, select
from layertap.data.readers.source import Source
from layertap.errors import UsageError
from layertap.records import Record

if TYPE_CHECKING:
    import pyarrow as pa

HEAD_ROWS = 1000
HEAD_BYTES = 16 << 20

MAX_DEPTH = 100
"""Most lists and objects one inside another; what handles values recurses once for each."""
TOO_DEEP = f"JSON nested more than {MAX_DEPTH} deep"


INFINITIES = (float("inf"), float("-inf"))
FIRST_LINE_BYTES = 1 << 16


class JsonlReader(Reader):
    """Reader of one object per line; lines of white space only are no rows.

    A file that begins with a bracket is an array, whose items are the rows; one whose first line is an opening brace
    and nothing else has objects over several lines. Both are read item by item.

    The first rows (at most 1,000, or 16 MiB) say which columns there are. A column that a row lacks is left
    out of its record; the text column must be there.
    """

    def __init__(self, source: Source, options: ReadOptions) -> None:
        super().__init__(source, options)
        self._lines = self._objects()
        self._head = self._peek()
        self._selection = self._select()
        self._types: dict[str, pa.DataType | None] | None = None

    @property
    def column_types(self) -> Mapping[str, pa.DataType | None]:
        """Arrow types that hold every value exactly (see `data.json_types`).

        A file is read through once more for it, which also finds its bad rows before any work is done. Of
        a pipe the first rows must do.
        """
        if self._types is None:
            kinds = self._kinds()
            self._types = {name: arrow_type(kind) for name, kind in kinds.items()}
        return self._types

    def _rows(self) -> Iterator[tuple[int, bytes | BadRowError]]:
        return chain(self._head, self._lines)

    def _parse(self, row: int, raw: bytes) -> Record:
        values = parse_object(raw, self.unit)
        chosen = self._selection
        if self._options.columns is None:
            columns = {key: value for key, value in values.items() if key not in chosen.left_out}
        else:
            columns = {key: values[key] for key in chosen.columns if key in values}
        return record_of(row, chosen, values, columns)

    def _objects(self) -> Iterator[tuple[int, bytes | BadRowError]]:
        limit = self._options.max_record_bytes
        first = self._source.first_line(min(FIRST_LINE_BYTES, limit + 1))
        if first.startswith(b"["):
            self.unit = "item"
            return items_of_array(self._source, limit)
        if first == b"{":
            self.unit = "item"
            return objects_over_lines(self._source, limit)
        lines = numbered_lines(self._source, limit)
        return ((number, line) for number, line in lines if isinstance(line, BadRowError) or line.strip())

    def _peek(self) -> list[tuple[int, bytes | BadRowError]]:
        head: list[tuple[int, bytes | BadRowError]] = []
        size = 0
        for number, line in self._lines:
            head.append((number, line))
            size += 0 if isinstance(line, BadRowError) else len(line)
            if len(head) == HEAD_ROWS or size >= HEAD_BYTES:
                break
        return head

    def _select(self) -> Selection:
        kinds: dict[str, str] = {}
        no_ids: set[str] = set()
        readable = 0
        lists: list[str] = []
        for number, line in self._head:
            try:
                values = parse_object(line, self.unit)
            except BadRowError as bad:
                if self._options.on_error == "raise":
                    raise self._fail(f"{self.unit} {number}: {bad}{self._remedy(number, line)}") from None
                continue
            readable += 1
            self._refuse_columns(values)
            lists = [key for key, value in values.items() if _is_list_of_objects(value)] if readable == 1 else []
            for key, value in values.items():
                kinds[key] = merge(kinds.get(key, "null"), kind_of(value))
                if not is_id(value):
                    no_ids.add(key)
        if not readable:
            # nothing to learn the columns from: take what is asked for at its word
            return asked_selection(self._options)
        return select(
            self._options,
            file=self._source.name,
            available=tuple(kinds),
            texts=[key for key, kind in kinds.items() if kind == "string"],
            # an id column that the user named is held to it row by row
            ids=[key for key in kinds if key not in no_ids or key == self._options.id_column],
            advice=self._advice(lists),
        )

    def _advice(self, lists: list[str]) -> str:
        """Return what to do about a file that is one object, with its rows in a list."""
        if not lists:
            return ""
        rows = f"jq -c '.[\"{lists[0]}\"][]' {self.name}"
        return (
            f"; the first object has a list of objects in {lists[0]!r}, and to read these: {rows} | layertap extract - "
            "--input-format jsonl -o OUTPUT"
        )

    def _refuse_columns(self, values: dict[str, Any]) -> None:
        """Refuse a file that is one object with a column in each key."""
        if len(self._head) > 1 or self._options.words_column is not None:
            return
        columns = list(values.values())
        sizes = {len(column) for column in columns if isinstance(column, dict | list)}
        if len(columns) > 1 and len(sizes) == 1 and all(type(column) is type(columns[0]) for column in columns):
            raise self._fail(
                "it is one object with a whole column in each key, as pandas.DataFrame.to_json writes it; write an "
                "object for each row: to_json(FILE, orient='records', lines=True)"
            )

    def _remedy(self, number: int, line: bytes | BadRowError) -> str:
        """Return what to do about the first row, which is no object."""
        if number != 1 or isinstance(line, BadRowError):
            return ""
        if line.startswith(b'"'):
            each = "{text: .}" if self.unit == "line" else ".[] | {text: .}"
            return f"; to make texts of strings: jq -c '{each}' {self.name} | layertap extract - --input-format jsonl"
        if line.rstrip().endswith(b","):
            return "; take the comma at its end off, or put brackets around all of them"
        if line.startswith(b"{'"):
            return "; JSON has double quotation marks, as json.dumps writes them"
        return "; expected an object on each line (JSON Lines), or one JSON array of objects"

    def initial_kinds(self) -> dict[str, str]:
        """Return the columns of the first rows, the ids first, each of kind `null`."""
        kinds = dict.fromkeys(self._selection.columns, "null")
        return {ID_COLUMN: "null"} | kinds if self._selection.id is not None else kinds

    def add_kinds(self, kinds: dict[str, str], record: Record) -> None:
        """Merge the kinds of a record's carried values into those of the records before it.

        Raises:
            UsageError: the record carries a column `id` beside its id.
        """
        for key, value in record.columns.items():
            kinds[key] = merge(kinds.get(key, "null"), kind_of(value))
        if self._selection.id is not None:
            if ID_COLUMN in record.columns:
                raise UsageError(
                    f"{self._source.name}: the output's column 'id' would hold both {self._selection.id!r} "
                    "and the input's own 'id'; name the columns to carry (--columns), without 'id'"
                )
            kinds[ID_COLUMN] = merge(kinds[ID_COLUMN], kind_of(record.id))

    def _kinds(self) -> dict[str, str]:
        kinds = self.initial_kinds()
        for record in self._once_more():
            self.add_kinds(kinds, record)
        return kinds

    def _once_more(self) -> Iterator[Record]:
        if self.can_be_reread:
            with self.again() as reader:
                yield from reader
            return
        for row, (_, line) in enumerate(self._head):
            try:
                if isinstance(line, bytes):
                    yield self._parse(row, line)
            except BadRowError:
                continue  # met again, and dealt with, when the records are read


def parse_object(line: bytes | BadRowError, unit: str = "line") -> dict[str, Any]:
    """Return the object of a line, or of another unit of a file.

    A number beyond the range of a double is its text: nothing is infinite that was written in digits.

    Raises:
        BadRowError: the line is no JSON object, is nested more than `MAX_DEPTH` deep, or could not be read at all.
    """
    if isinstance(line, BadRowError):
        raise line
    try:
        values = _DECODER.decode(decode(line, unit))
    except json.JSONDecodeError as error:
        raise BadRowError(f"broken JSON: {error.msg} at character {error.pos + 1}") from None
    except RecursionError:
        raise BadRowError(TOO_DEEP) from None
    except ValueError:  # Python's bound on the digits of whole numbers
        raise BadRowError(
            f"a whole number has more than {sys.get_int_max_str_digits():,} digits; write it as a string"
        ) from None
    if not isinstance(values, dict):
        raise BadRowError(f"{'null' if values is None else named(values)}, not an object with columns")
    # Counting brackets is quick, and nearly every row has fewer in all than may stand one inside another.
    if line.count(b"[") + line.count(b"{") > MAX_DEPTH and _is_deeper(values, MAX_DEPTH):
        raise BadRowError(TOO_DEEP)
    return values


def _float(digits: str) -> float | str:
    value = float(digits)
    return digits if value in INFINITIES else value


_DECODER = json.JSONDecoder(parse_float=_float)


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _is_deeper(value: dict[str, Any] | list[Any], depth: int) -> bool:
    """Return whether lists and objects stand more than `depth` deep inside one another, the outermost included."""
    level: list[dict[str, Any] | list[Any]] = [value]
    for _ in range(depth):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True
