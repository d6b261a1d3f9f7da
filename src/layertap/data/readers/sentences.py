"""Files of a word a line, a blank line between sentences: what CoNLL and CoNLL-U have in common."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import ClassVar, TypeAlias

from layertap.data.readers.base import BadRowError, Reader, ReadOptions
from layertap.data.readers.lines import decode, numbered_lines
from layertap.data.readers.source import Source

Lines: TypeAlias = list[tuple[int, bytes]]
"""The lines of a sentence with their numbers, counted from 1."""

BLANK = b" \t"


class SentenceReader(Reader):
    """A record a sentence; where one is bad, messages name its first line and the line that is."""

    #: what comments begin with
    comment: ClassVar[bytes | None] = None
    #: first column of lines between documents, which are part of no sentence
    document_mark: ClassVar[bytes | None] = None

    def __init__(self, source: Source, options: ReadOptions) -> None:
        super().__init__(source, options)
        self._sentences = self._split()
        self._head: list[Lines] = []

    def _rows(self) -> Iterator[tuple[int, Lines]]:
        for lines in chain(self._head, self._sentences):
            yield lines[0][0], lines

    def _peek(self) -> Iterator[Lines]:
        """The first sentences, which are read again afterwards."""
        for lines in self._sentences:
            self._head.append(lines)
            yield lines

    def _split(self) -> Iterator[Lines]:
        held: Lines = []
        has_words = False
        for number, line in numbered_lines(self._source.stream):
            columns = line.split(None, 1)
            if line.strip(BLANK) and columns[:1] != [self.document_mark]:
                held.append((number, line))
                has_words = has_words or self.comment is None or not line.startswith(self.comment)
                continue
            if has_words:
                yield held
            held, has_words = [], False
        if has_words:
            yield held


def decoded(lines: Lines, *, first: int) -> Iterator[tuple[int, str]]:
    """Lines as text; raises BadRowError naming the line where it is not `first`."""
    for number, line in lines:
        try:
            yield number, decode(line)
        except BadRowError as bad:
            raise at_line(bad, number, first) from None


def at_line(reason: object, number: int, first: int) -> BadRowError:
    """A reason with its line, where that is not the sentence's first (which every message names)."""
    return BadRowError(str(reason) if number == first else f"{reason} (line {number})")
