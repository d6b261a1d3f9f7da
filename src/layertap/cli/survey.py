"""How many records an input has, as far as that is cheap to know, and what its texts are like."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from layertap.cli.options import InputOptions

if TYPE_CHECKING:
    from layertap.data import Reader
    from layertap.records import Record

SURVEY_BYTES = 16 << 20
"""Of a larger file, this much is read; it is a fraction of a second."""

SURVEY_RECORDS = 1_000_000
"""A small file may unpack to a large one."""

SAMPLE_TEXTS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What a first look at an input shows.

    Attributes:
        sample: the first ones.
        num_records: records in all, or None: not known.
        estimated: whether `num_records` was worked out from the size of the file.
    """

    sample: tuple[Record, ...]
    num_records: int | None
    estimated: bool


def survey(reader: Reader) -> Survey:
    """Reads a small input through, of a large one some, of a pipe the first texts."""
    sample: list[Record] = []
    count = 0
    for record in reader:
        if len(sample) < SAMPLE_TEXTS:
            sample.append(record)
        count += 1
        if count >= SAMPLE_TEXTS and _is_enough(reader, count):
            return Survey(sample=tuple(sample), num_records=extrapolated(reader, count), estimated=True)
    return Survey(sample=tuple(sample), num_records=count, estimated=False)


def count_records(options: InputOptions, reader: Reader) -> int | None:
    """Records of a small file, read through once for it: its bad rows are met before any work is done.

    Args:
        options: how `reader` was opened.
        reader: tells the size; nothing is read from it.

    Raises:
        InputError: a row that cannot be read.
    """
    if reader.bytes_total is None or reader.bytes_total > SURVEY_BYTES:
        return None
    with options.open() as again:
        count = 0
        for _ in again:
            count += 1
            if count > SURVEY_RECORDS:
                return None
        return count


class CountedRecords:
    """Records of a reader, counted as they are taken."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.count = 0

    def __iter__(self) -> Iterator[Record]:
        for record in self._reader:
            self.count += 1
            yield record

    def total(self, known: int | None) -> Callable[[], int | None]:
        """What to ask for the number of records in all: the known one, or an estimate that gets better."""
        return lambda: extrapolated(self._reader, self.count) if known is None else known


def extrapolated(reader: Reader, count: int) -> int | None:
    """Records in all, if the rest of the file is like the part with the first `count`."""
    if reader.bytes_total is None or not reader.bytes_read:
        return None
    return round(count * reader.bytes_total / reader.bytes_read)


def _is_enough(reader: Reader, count: int) -> bool:
    if reader.bytes_total is None:
        return True
    is_all_read = reader.bytes_read >= reader.bytes_total
    return not is_all_read and (reader.bytes_read >= SURVEY_BYTES or count >= SURVEY_RECORDS)
