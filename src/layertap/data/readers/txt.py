"""Plain text files, with one record per line."""

from __future__ import annotations

from collections.abc import Iterator

from layertap.data.readers.base import BadRowError, Reader, ReadOptions, refuse_roles
from layertap.data.readers.lines import decode, numbered_lines
from layertap.data.readers.source import Source
from layertap.records import Record


class TxtReader(Reader):
    """Reader of plain text: one record per line; an empty line is a record with an empty text."""

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
                "columns": "columns",
            },
            file=source.name,
            why="txt, which has no columns, and {role} asked for; "
            "leave it out, or say that the format is another (jsonl, csv, ...)",
        )

    def _rows(self) -> Iterator[tuple[int, bytes | BadRowError]]:
        return numbered_lines(self._source, self._options.max_record_bytes)

    def _parse(self, row: int, raw: bytes) -> Record:
        return Record(row=row, text=decode(raw))
