"""CoNLL: one word per line with its tags in columns, and a blank line between sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar

from layertap.data.readers.base import BadRowError, refuse_roles
from layertap.data.readers.options import ReadOptions
from layertap.data.readers.sentences import Lines, SentenceReader, at_line, decoded
from layertap.data.readers.source import Source
from layertap.errors import UsageError
from layertap.records import Record

if TYPE_CHECKING:
    import pyarrow as pa

COLUMN = re.compile(r"col(0|[1-9][0-9]{0,8})")
SPACES = re.compile(r"[ \t]+")


class ConllReader(SentenceReader):
    r"""Reader of one record per sentence: the words of column 0, or of `words_column` ("col1", ...).

    Columns are separated by tabs where the first line has one, else by spaces or tabs, and every line has as many as
    the first. The others are carried as lists, named col1, col2, ... Naming some of those (`columns`)
    carries just them; as many other names as there are other columns name these, in their order.
    `-DOCSTART-` lines end a sentence and are no part of any. There are no comments: `#` is a word.
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
        self._by_tabs, self._width = self._layout()
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
            fields = self._fields(line)
            if len(fields) != self._width:
                raise at_line(f"{len(fields)} columns, and the file's first line has {self._width}", number)
            if not fields[self._words]:
                raise at_line("the word is empty", number)
            rows.append(fields)
        columns = list(zip(*rows, strict=True))
        carried = {name: list(columns[place]) for name, place in self._carried.items()}
        return Record.of_words(row, columns[self._words], columns=carried)

    def _fields(self, line: str) -> list[str]:
        # Not str.split(): a no-break space may be a word.
        return line.split("\t") if self._by_tabs else SPACES.split(line.strip(" \t"))

    def _layout(self) -> tuple[bool, int]:
        """Return whether tabs separate columns, and the number of columns, as the first readable line has them."""
        for lines in self._peek():
            try:
                _, line = next(decoded(lines))
            except BadRowError:
                continue
            self._by_tabs = "\t" in line
            return self._by_tabs, len(self._fields(line))
        return False, 1

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
        if not self._head:  # an empty input: at its word
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
