"""Plain text files: a record is a line, a paragraph, or the whole file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from layertap.data.readers.base import BadRowError, Reader, refuse_roles, too_long
from layertap.data.readers.lines import decode, numbered_lines
from layertap.data.readers.options import ReadOptions
from layertap.data.readers.selection import ID_COLUMN
from layertap.data.readers.source import Source
from layertap.errors import InputError
from layertap.records import Record

if TYPE_CHECKING:
    import pyarrow as pa

MANY_EMPTY = 0.2
"""Share of empty lines from which on a file is said to be in paragraphs."""

SAMPLE_LINES = 50
SAMPLE_CHARACTERS = 1000


class TxtReader(Reader):
    """Reader of plain text; `ReadOptions.records` says what a record is.

    - "line": each line is a record; an empty line is a record with an empty text.
    - "paragraph": lines with nothing but white space part paragraphs and belong to none. The text of a paragraph is
      its lines with a line feed between.
    - "file": the file is one record, without the line breaks at its end; its id is the file's name.
    """

    def __init__(self, source: Source, options: ReadOptions) -> None:
        super().__init__(source, options)
        refuse_roles(
            options,
            {
                "text_column": "text column",
                "words_column": "words column",
                "pair_column": "pair column",
                "spans_column": "spans column",
                "id_column": "id column",
                "columns": "column",
            },
            file=source.name,
            why="txt, which has no columns, so that {role} cannot be read; "
            "leave it out, or say that the format is another (--input-format: jsonl, csv, ...)",
        )
        self._records_are = options.records or "line"
        self._id = None if source.path is None or self._records_are != "file" else source.path.name
        self._empty_lines = 0
        self._with_returns = 0
        self._sample: list[str] = []

    @property
    def column_types(self) -> Mapping[str, pa.DataType | None]:
        """Arrow types of what the records carry: their ids, if a record is a file."""
        import pyarrow as pa

        return {} if self._id is None else {ID_COLUMN: pa.string()}

    def _rows(self) -> Iterator[tuple[int, bytes | BadRowError]]:
        if self._records_are == "file":
            return self._whole()
        return self._paragraphs() if self._records_are == "paragraph" else self._lines()

    def _parse(self, row: int, raw: bytes) -> Record:
        text = decode(raw)
        if "\r" in text:
            self._with_returns += "\r" in text.replace("\r\n", "")
        if self._records_are == "line" and len(self._sample) < SAMPLE_LINES:
            self._sample.append(text[:SAMPLE_CHARACTERS])
        return Record(row=row, text=text, id=self._id)

    def _lines(self) -> Iterator[tuple[int, bytes | BadRowError]]:
        for number, line in numbered_lines(self._source, self._options.max_record_bytes):
            self._empty_lines += isinstance(line, bytes) and not line.strip()
            yield number, line

    def _paragraphs(self) -> Iterator[tuple[int, bytes | BadRowError]]:
        limit = self._options.max_record_bytes
        lines: list[bytes] = []
        size = first = 0
        bad: BadRowError | None = None
        for number, line in numbered_lines(self._source, limit):
            if isinstance(line, bytes) and not line.strip():
                if first:
                    yield first, bad or b"\n".join(lines)
                lines, size, first, bad = [], 0, 0, None
                continue
            first = first or number
            if bad is not None:
                continue
            size += len(line) + 1 if isinstance(line, bytes) else 0
            if isinstance(line, bytes) and size <= limit + 1:
                lines.append(line)
                continue
            bad = line if isinstance(line, BadRowError) else BadRowError(too_long("the paragraph", limit))
            if not self.can_be_reread:
                raise self._fail(f"line {first}: {bad}")
            lines = []
        if first:
            yield first, bad or b"\n".join(lines)

    def _whole(self) -> Iterator[tuple[int, bytes | BadRowError]]:
        limit = self._options.max_record_bytes
        content = self._source.stream.read(limit + 1)
        if len(content) > limit:
            if not self.can_be_reread:
                raise InputError(f"{self.name}: {too_long('the text', limit)}")
            yield 1, BadRowError(too_long("the file", limit))
        elif content:
            yield 1, content.rstrip(b"\r\n")

    def _remarks(self) -> Iterator[str]:
        if self._records_are == "line" and self._empty_lines > max(1, MANY_EMPTY * self._rows_seen):
            yield (
                f"{self._empty_lines:,} of {self._rows_seen:,} lines are empty, and each is a text; --records "
                "paragraph takes the lines between empty ones as a text, --records file the whole file"
            )
        format_ = looks_like(self._sample)
        if format_ is not None:
            yield (
                f"the lines look like those of a {format_} file, and each is taken as a text as a whole; "
                f"--input-format {format_} says otherwise"
            )
        if self._with_returns:
            texts = "text holds" if self._with_returns == 1 else "texts hold"
            yield (
                f"{self._with_returns:,} {texts} carriage returns, which end no line by themselves; if they should, "
                "convert the file: tr '\\r' '\\n'"
            )


def looks_like(lines: Sequence[str]) -> str | None:
    """Return the format that lines of text look like, or None: an object each, or equally many tabs or commas."""
    lines = [line for line in lines if line]
    if len(lines) < 2:
        return None
    if all(line.startswith("{") and line.rstrip().endswith("}") for line in lines):
        return "jsonl"
    for delimiter, format_, least in (("\t", "tsv", 2), (",", "csv", 5), (";", "csv", 5)):
        counts = {line.count(delimiter) for line in lines}
        if len(lines) >= least and len(counts) == 1 and 0 not in counts:
            return format_
    return None
