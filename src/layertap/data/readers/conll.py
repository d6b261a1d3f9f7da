"""CoNLL: one word per line with its tags in columns, and a blank line between sentences."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar

from layertap.data.readers.base import BadRowError, refuse_roles
from layertap.data.readers.conll_layout import HEAD_BYTES, layout_of
from layertap.data.readers.options import ReadOptions
from layertap.data.readers.sentences import Lines, SentenceReader, at_line, decoded
from layertap.data.readers.source import Source
from layertap.errors import UsageError
from layertap.records import Record

if TYPE_CHECKING:
    import pyarrow as pa

COLUMN = re.compile(r"col(0|[1-9][0-9]{0,8})")


class ConllReader(SentenceReader):
    r"""Reader of one record per sentence: the words of column 0, or of `words_column` ("col1", ...).

    Columns are separated by tabs if the lines of the file's first part are alike then, else by spaces or tabs; every
    line has as many as most of those. The others are carried as lists, named col1, col2, ... Naming some of those
    (`columns`) carries just them; as many other names as there are other columns name these, in their order.
    `-DOCSTART-` lines end a sentence and are no part of any. `#` is a word; a line that begins with it is a comment
    if it is written as one (`# id ...`, `# name = value`) or has other columns than words have.
    """

    document_mark: ClassVar[bytes | None] = b"-DOCSTART-"

    def __init__(self, source: Source, options: ReadOptions) -> None:
        super().__init__(source, options)
        refuse_roles(
            options,
            {
                "text_column": "text column",
                "pair_column": "pair column",
                "spans_column": "spans column",
                "id_column": "id column",
            },
            file=source.name,
            why="conll, a word a line, and {role} asked for has no place there; leave it out",
        )
        self._layout = layout_of(source.head(HEAD_BYTES))
        self._words_there = self._layout.width > 0
        self._width = max(1, self._layout.width)
        self._comments = 0
        self._numbers = 0
        self._small_o: Counter[str] = Counter()
        self._schemes: set[str] = set()
        self._words = self._words_column()
        self._carried = self._carried_columns()

    @property
    def column_types(self) -> Mapping[str, pa.DataType | None]:
        """Arrow types of the carried columns, which are all lists of strings."""
        import pyarrow as pa

        return dict.fromkeys(self._carried, pa.list_(pa.string()))

    def _parse(self, row: int, raw: Lines) -> Record:
        rows = []
        for number, line in decoded(raw):
            if self._layout.is_comment(line):
                continue
            fields = self._layout.fields(line)
            if len(fields) != self._width:
                raise at_line(self._wrong_width(len(fields)), number)
            if not fields[self._words]:
                raise at_line(
                    f"the word is empty (column {self._words} of a line is its word); write it, or delete the line",
                    number,
                )
            rows.append(fields)
        if not rows:
            raise BadRowError("there is no word in it, only comments")
        columns = list(zip(*rows, strict=True))
        carried = {name: list(columns[place]) for name, place in self._carried.items()}
        self._count_tags(carried)
        words = columns[self._words]
        self._numbers += len(words) if words == tuple(map(str, range(1, len(words) + 1))) else -len(words)
        return Record.of_words(row, words, columns=carried)

    def _is_comment(self, line: bytes) -> bool:
        is_comment = line.startswith(b"#") and self._layout.is_comment(line.decode("utf-8", "replace"))
        self._comments += is_comment
        return is_comment

    def _wrong_width(self, width: int) -> str:
        columns = "1 column" if width == 1 else f"{width} columns"
        separator = "tabs" if self._layout.by_tabs else "spaces or tabs"
        return (
            f"{columns} (split at {separator}), and the lines of this file have {self._width}; give each word as many, "
            "or pass --on-error skip"
        )

    def _count_tags(self, carried: Mapping[str, list[str]]) -> None:
        """Count tags that are no tags in any scheme of entities, beside some that are."""
        for name, tags in carried.items():
            self._small_o[name] += tags.count("o")
            if any(tag[1:2] == "-" for tag in tags):
                self._schemes.add(name)

    def _remarks(self) -> Iterator[str]:
        if self._comments:
            lines = (
                "1 line that begins with # was"
                if self._comments == 1
                else (f"{self._comments:,} lines that begin with # were")
            )
            yield f"{lines} taken as comments, not as words"
        if self._numbers > 1 and self._width > 1:
            yield f"column {self._words} counts the words; name that of the words (--words-column col{self._words + 1})"
        for name in sorted(self._schemes):
            if self._small_o[name]:
                yield (
                    f"column {name!r} has the tag 'o' {self._small_o[name]:,} times; what is no entity has the tag 'O' "
                    "in every scheme: replace it, or entities are not scored"
                )

    def _words_column(self) -> int:
        asked = self._options.words_column
        if asked is None:
            return 0
        place = _place(asked)
        if place is None or place >= self._width:
            raise UsageError(f"{self._source.name}: there is no words column {asked!r}; {self._there_are()}")
        return place

    def _carried_columns(self) -> dict[str, int]:
        """Return the columns to carry: a mapping from their names to their positions."""
        others = {f"col{place}": place for place in range(self._width) if place != self._words}
        asked = self._options.columns
        if asked is None:
            return others
        if not self._words_there:  # an empty input: at its word
            return dict.fromkeys(asked, 0)
        every = others | {f"col{self._words}": self._words}
        if all(name in every for name in asked):
            return {name: every[name] for name in asked}
        if len(asked) == len(others) and not any(map(COLUMN.fullmatch, asked)):
            return dict(zip(asked, others.values(), strict=True))
        raise UsageError(
            f"{self._source.name}: columns {', '.join(map(repr, asked))}: {self._there_are()}; name some of them, or "
            f"give the {len(others)} beside the words names of your own"
        )

    def _there_are(self) -> str:
        return f"its columns are {', '.join(_names(self._width))}, without a header"


def _names(width: int) -> Iterator[str]:
    return (f"'col{place}'" for place in range(width))


def _place(name: str) -> int | None:
    match = COLUMN.fullmatch(name)
    return None if match is None else int(match[1])
