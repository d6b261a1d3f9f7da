"""CoNLL-U, the format of Universal Dependencies (https://universaldependencies.org/format.html)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

from layertap.data.readers.base import BadRowError, refuse_roles
from layertap.data.readers.options import ReadOptions
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
NUMBER = re.compile(r"[0-9]{1,9}")
OTHER_LINE = re.compile(r"[0-9]{1,9}(-[0-9]{1,9}|\.[1-9][0-9]{0,8})")
COMMENT = re.compile(r"# *(sent_id|text) *= *(.*)")


class ConlluReader(SentenceReader):
    """Reader of one record per sentence: its syntactic words (lines whose id is a whole number), as form or lemma.

    Lines of multiword tokens (`1-2`) and empty nodes (`8.1`) are no words. `# sent_id` is the id and `# text` the
    column `text`, where the first sentence has them. Of the other columns, `upos` is carried, or those named:
    lists of strings, `head` a list of whole numbers (null for `_`).

    With `text_column` "text" the record's text is the raw sentence of `# text` instead, and each syntactic word is a
    span of it: forms must follow one another there with nothing but white space between. `gonna` is `gon` and `na`;
    of a multiword token that is not its words written together (`du`: `de`, `le`) each word has the whole.
    """

    def __init__(self, source: Source, options: ReadOptions) -> None:
        super().__init__(source, options)
        refuse_roles(
            options,
            {"pair_column": "pair column", "spans_column": "spans column"},
            file=source.name,
            why="conllu, a word a line, and {role} asked for has no place there; leave it out",
        )
        if options.text_column not in (None, TEXT_COLUMN):
            raise UsageError(f"{source.name}: the text column is {options.text_column!r}; conllu has {TEXT_COLUMN!r}")
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
        """Arrow types of the carried columns: lists of strings, of int32 for `head`, and strings for ids and texts."""
        import pyarrow as pa

        types = {HEAD: pa.list_(pa.int32()), TEXT_COLUMN: pa.string()}
        carried = {name: types.get(name, pa.list_(pa.string())) for name in self._columns}
        return {ID_COLUMN: pa.string()} | carried if self._has_ids else carried

    def _parse(self, row: int, raw: Lines) -> Record:
        rows: list[list[str]] = []
        tokens: list[list[str]] = []
        for number, line in decoded([entry for entry in raw if not _is_comment(entry)]):
            fields = line.split("\t")
            if len(fields) != len(FIELDS):
                reason = f"{len(fields)} columns separated by tabs, and CoNLL-U has {len(FIELDS)}"
                raise at_line(reason, number)
            if not fields[PLACES["form"]]:
                raise at_line("the form is empty", number)
            if fields[0] == str(len(rows) + 1):
                rows.append(fields)
                tokens.append(fields)
            elif "-" in fields[0] and OTHER_LINE.fullmatch(fields[0]):
                tokens.append(fields)
            elif OTHER_LINE.fullmatch(fields[0]) is None:
                raise at_line(f"the id is {fields[0]!r}, and the next word is {len(rows) + 1}", number)
        if not rows:
            raise BadRowError("there is no word: no line's id is a whole number")
        comments = _comments(raw)
        columns: dict[str, Any] = {}
        for name in self._columns:
            columns[name] = comments.get(TEXT_COLUMN) if name == TEXT_COLUMN else _column(rows, name)
        sentence_id = comments.get(SENT_ID) if self._has_ids else None
        if self._options.text_column is None:
            return Record.of_words(row, [fields[self._words] for fields in rows], id=sentence_id, columns=columns)
        if TEXT_COLUMN not in comments:
            raise BadRowError("there is no comment '# text = ...'")
        text = comments[TEXT_COLUMN]
        return Record(row=row, text=text, id=sentence_id, columns=columns, spans=_word_ranges(text, tokens))

    def _is_comment(self, line: bytes) -> bool:
        return line.startswith(b"#")

    def _first_comments(self) -> dict[str, str]:
        for lines in self._peek():
            try:
                return _comments(lines)
            except BadRowError:
                continue  # met again when the records are read
        return {}

    def _carried_columns(self, *, has_text: bool) -> tuple[str, ...]:
        if self._options.columns is None:
            return DEFAULT_COLUMNS if has_text and self._options.text_column is None else DEFAULT_COLUMNS[1:]
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
        if value != "_" and not (NUMBER.fullmatch(value) and int(value) <= len(rows)):
            raise BadRowError(f"the head of word {number} is {value!r}, not the number of a word or 0")
        heads.append(None if value == "_" else int(value))
    return heads


def _word_ranges(text: str, tokens: list[list[str]]) -> tuple[tuple[int, int], ...]:
    """Return the characters [begin, end) of each syntactic word in the raw sentence.

    Args:
        text: the raw sentence.
        tokens: fields of the lines of words, and of the multiword tokens before theirs, in order.

    Raises:
        BadRowError: a form that does not stand where it is expected.
    """
    spans: list[tuple[int, int]] = []
    position = covered = 0
    for place, fields in enumerate(tokens):
        first, _, last = fields[0].partition("-")
        if int(first) <= covered:
            continue  # a word of a multiword token
        covered = int(last or first)
        form = fields[PLACES["form"]]
        if not text.startswith(form, position):
            raise BadRowError(f"word {first}, {form!r}, is not in '# text' at character {position}")
        end = position + len(form)
        count = covered - int(first) + 1
        words = [word[PLACES["form"]] for word in tokens[place + 1 : place + 1 + count]] if last else [form]
        if len(words) != count:
            raise BadRowError(f"the multiword token {fields[0]} is of more words than there are")
        spans.extend(_parts(form, words, position))
        position = end
        while position < len(text) and text[position].isspace():
            position += 1
    return tuple(spans)


def _parts(form: str, words: list[str], begin: int) -> list[tuple[int, int]]:
    """Return the characters of the words of a multiword token: their own if they make it up, else all of it."""
    if "".join(words) != form:
        return [(begin, begin + len(form))] * len(words)
    ends = list(accumulate(map(len, words), initial=begin))
    return list(pairwise(ends))


def _comments(lines: Lines) -> dict[str, str]:
    """Return the comments `sent_id` and `text` of a sentence, as far as it has them."""
    comments: dict[str, str] = {}
    for _, line in decoded([entry for entry in lines if _is_comment(entry)]):
        comment = COMMENT.match(line)
        if comment is not None:
            comments.setdefault(comment[1], comment[2].strip())
    return comments


def _is_comment(entry: tuple[int, bytes]) -> bool:
    return entry[1].startswith(b"#")
