"""CoNLL-U, the format of Universal Dependencies (https://universaldependencies.org/format.html)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from layertap.data.readers.base import BadRowError, ReadOptions, refuse_roles
from layertap.data.readers.selection import ID_COLUMN, TEXT_COLUMN
from layertap.data.readers.sentences import Lines, SentenceReader, at_line, decoded
from layertap.data.readers.source import Source
from layertap.errors import UsageError
from layertap.records import Record

if TYPE_CHECKING:
    import pyarrow as pa

FIELDS = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
PLACES = {name: place for place, name in enumerate(FIELDS) if name != "id"}
HEAD = "head"
DEFAULT_COLUMNS = (TEXT_COLUMN, "upos")
WORDS = ("form", "lemma")
SENT_ID = "sent_id"
OTHER_LINE = re.compile(r"[0-9]+(-[0-9]+|\.[1-9][0-9]*)")
COMMENT = re.compile(r"# *(sent_id|text) *= *(.*)")


class ConlluReader(SentenceReader):
    """A record a sentence: its syntactic words (lines whose id is a whole number), `form` or `lemma` of them.

    Lines of multiword tokens (`1-2`) and empty nodes (`8.1`) are no words. `# sent_id` is the id and `# text` the
    column `text`, where the first sentence has them. Of the other columns, `upos` is carried, or those named:
    lists of strings, `head` a list of whole numbers (null for `_`).
    """

    comment: ClassVar[bytes | None] = b"#"

    def __init__(self, source: Source, options: ReadOptions) -> None:
        super().__init__(source, options)
        refuse_roles(
            options,
            {"text_column": "text column", "pair_column": "pair column", "spans_column": "spans column"},
            file=source.name,
            why="conllu, a word a line, and {role} asked for has no place there; leave it out",
        )
        if options.id_column not in (None, SENT_ID):
            raise UsageError(f"{source.name}: the id column is {options.id_column!r}; conllu has {SENT_ID!r}")
        words = options.words_column or WORDS[0]
        if words not in WORDS:
            raise UsageError(f"{source.name}: the words column is {words!r}; it can be 'form' or 'lemma'")
        self._words = PLACES[words]
        comments = self._first_comments()
        self._has_ids = SENT_ID in comments or options.id_column is not None
        self._columns = self._carried_columns(has_text=TEXT_COLUMN in comments)

    @property
    def column_types(self) -> Mapping[str, pa.DataType | None]:
        """Lists of strings (`head`: of int32), strings for ids and texts."""
        import pyarrow as pa

        types = {HEAD: pa.list_(pa.int32()), TEXT_COLUMN: pa.string()}
        found = {name: types.get(name, pa.list_(pa.string())) for name in self._columns}
        return {ID_COLUMN: pa.string()} | found if self._has_ids else found

    def _parse(self, row: int, raw: Lines) -> Record:
        first = raw[0][0]
        rows: list[list[str]] = []
        for number, line in decoded([entry for entry in raw if not _is_comment(entry)], first=first):
            fields = line.split("\t")
            if len(fields) != len(FIELDS):
                reason = f"{len(fields)} columns separated by tabs, and CoNLL-U has {len(FIELDS)}"
                raise at_line(reason, number, first)
            if fields[0] == str(len(rows) + 1):
                rows.append(fields)
            elif OTHER_LINE.fullmatch(fields[0]) is None:
                raise at_line(f"the id is {fields[0]!r}, and the next word is {len(rows) + 1}", number, first)
        if not rows:
            raise BadRowError("there is no word: no line's id is a whole number")
        comments = _comments(raw) if self._has_ids or TEXT_COLUMN in self._columns else {}
        columns: dict[str, Any] = {}
        for name in self._columns:
            columns[name] = comments.get(TEXT_COLUMN) if name == TEXT_COLUMN else _column(rows, name)
        found_id = comments.get(SENT_ID) if self._has_ids else None
        return Record.of_words(row, [fields[self._words] for fields in rows], id=found_id, columns=columns)

    def _first_comments(self) -> dict[str, str]:
        for lines in self._peek():
            try:
                return _comments(lines)
            except BadRowError:
                continue  # met again when the records are read
        return {}

    def _carried_columns(self, *, has_text: bool) -> tuple[str, ...]:
        if self._options.columns is None:
            return DEFAULT_COLUMNS if has_text else DEFAULT_COLUMNS[1:]
        unknown = [name for name in self._options.columns if name not in PLACES and name != TEXT_COLUMN]
        if unknown:
            raise UsageError(
                f"{self._source.name}: there is no column {', '.join(map(repr, unknown))}; conllu has 'text', "
                + ", ".join(map(repr, PLACES))
            )
        return self._options.columns


def _column(rows: list[list[str]], name: str) -> list[Any]:
    values = [fields[PLACES[name]] for fields in rows]
    if name != HEAD:
        return values
    heads: list[Any] = []
    for number, value in enumerate(values, start=1):
        if value != "_" and not (value.isascii() and value.isdigit() and int(value) <= len(rows)):
            raise BadRowError(f"the head of word {number} is {value!r}, not the number of a word or 0")
        heads.append(None if value == "_" else int(value))
    return heads


def _comments(lines: Lines) -> dict[str, str]:
    """`sent_id` and `text` of a sentence."""
    found: dict[str, str] = {}
    for _, line in decoded([entry for entry in lines if _is_comment(entry)], first=lines[0][0]):
        comment = COMMENT.match(line)
        if comment is not None:
            found.setdefault(comment[1], comment[2].strip())
    return found


def _is_comment(entry: tuple[int, bytes]) -> bool:
    return entry[1].startswith(b"#")
