"""Plain text: a record a line."""

from __future__ import annotations

from collections.abc import Iterator

from layertap.data.readers.base import Reader, ReadOptions
from layertap.data.readers.lines import decode, numbered_lines
from layertap.data.readers.source import Source
from layertap.errors import OptionError
from layertap.records import Record


class TxtReader(Reader):
    """A record a line; an empty line is a record with an empty text."""

    def __init__(self, source: Source, options: ReadOptions) -> None:
        super().__init__(source, options)
        for option, names in (
            ("text column", options.text_column),
            ("id column", options.id_column),
            ("columns", options.columns),
        ):
            if names:
                raise OptionError(
                    f"{source.name} is read as txt, which has no columns, and the {option} {names!r} asked for; "
                    "leave it out, or say that the format is jsonl, csv or tsv"
                )

    def _rows(self) -> Iterator[tuple[int, bytes]]:
        return numbered_lines(self._source.stream)

    def _parse(self, row: int, raw: bytes) -> Record:
        return Record(row=row, text=decode(raw))
