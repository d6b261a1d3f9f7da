"""The common part of CoNLL and CoNLL-U: one word per line, and a blank line between sentences."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from itertools import chain
from typing import ClassVar, TypeAlias

from layertap.data.readers.base import BadRowError, Reader, too_long
from layertap.data.readers.lines import decode, numbered_lines
from layertap.data.readers.options import ReadOptions
from layertap.data.readers.source import Source

Lines: TypeAlias = list[tuple[int, bytes]]
"""Lines of a sentence with their numbers, counted from 1."""

Sentence: TypeAlias = tuple[int, Lines | BadRowError]
"""Number of a sentence's first line, and its lines, or the reason why they cannot be read."""

BLANK = b" \t"


class SentenceReader(Reader):
    """Reader of one record per sentence; messages name the line that is bad."""

    #: first column of lines between documents, which are part of no sentence
    document_mark: ClassVar[bytes | None] = None

    def __init__(self, source: Source, options: ReadOptions) -> None:
        super().__init__(source, options)
        self._sentences = self._split()
        self._head: list[Sentence] = []

    def _rows(self) -> Iterator[Sentence]:
        return chain(self._head, self._sentences)

    def _peek(self) -> Iterator[Lines]:
        """Yield the first readable sentences, which are part of `_rows` all the same."""
        for sentence in self._sentences:
            self._head.append(sentence)
            if not isinstance(sentence[1], BadRowError):
                yield sentence[1]

    def _split(self) -> Iterator[Sentence]:
        limit = self._options.max_record_bytes
        held: Lines = []
        size = 0
        has_words = False
        bad: BadRowError | None = None
        first = 0
        for number, line in numbered_lines(self._source, limit):
            if isinstance(line, BadRowError) or not self._parts_sentences(line):
                first = first or number
                if isinstance(line, BadRowError):
                    bad = bad or at_line(line, number)
                else:
                    has_words |= not self._is_comment(line)
                    size += len(line)
                    if size > limit:
                        if not self.can_be_reread:
                            raise self._fail(f"line {first}: {too_long('the sentence', limit)}")
                        bad = bad or BadRowError(too_long("the sentence", limit))
                if bad is None:
                    assert isinstance(line, bytes)
                    held.append((number, line))
                else:
                    held = []
                continue
            if has_words or bad is not None:
                yield first, bad or held
            held, size, has_words, bad, first = [], 0, False, None, 0
        if has_words or bad is not None:
            yield first, bad or held

    @abstractmethod
    def _is_comment(self, line: bytes) -> bool:
        """Return whether a line is a comment; comments alone are no sentence."""

    def _parts_sentences(self, line: bytes) -> bool:
        return not line.strip(BLANK) or line.split(None, 1)[:1] == [self.document_mark]


def decoded(lines: Lines) -> Iterator[tuple[int, str]]:
    """Yield lines as text, with their numbers; a BadRowError names the line."""
    for number, line in lines:
        try:
            yield number, decode(line)
        except BadRowError as bad:
            raise at_line(bad, number) from None


def at_line(reason: object, number: int) -> BadRowError:
    """Return the refusal of a sentence because of one of its lines."""
    return BadRowError(str(reason), number=number)
