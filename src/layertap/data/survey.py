"""A first look at an input: how many records it has, as far as that is cheap to know, and a sample of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from layertap.data.readers.base import Reader
from layertap.errors import InputError
from layertap.records import Record

SURVEY_BYTES = 16 << 20
"""Bytes that are read of a larger file, which takes a fraction of a second."""

SURVEY_RECORDS = 1_000_000
"""Records that are read of a file with more, as a small compressed one may be."""

SAMPLE_TEXTS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """Result of a first look at an input.

    Attributes:
        sample: the first records.
        num_records: number of records in all, or None if it is not known.
        estimated: whether `num_records` was extrapolated from the size of the file.
    """

    sample: tuple[Record, ...]
    num_records: int | None
    estimated: bool


def survey(reader: Reader) -> Survey:
    """Read a small input through, a part of a large one, and the first texts of a pipe."""
    sample: list[Record] = []
    count = 0
    for record in reader:
        if len(sample) < SAMPLE_TEXTS:
            sample.append(record)
        count += 1
        if count >= SAMPLE_TEXTS and _is_enough(reader, count):
            return Survey(sample=tuple(sample), num_records=extrapolated(reader, count), estimated=True)
    return Survey(sample=tuple(sample), num_records=count, estimated=False)


def count_records(reader: Reader) -> int | None:
    """Count the records of a small file by reading it through, so that its bad rows are met before any work is done.

    Args:
        reader: an open input; the records are those of `reader.again()`, and none of its own is taken.

    Returns:
        The number of records; None if the file is large, or can be read once only.

    Raises:
        InputError: a row that cannot be read.
    """
    if not reader.can_be_reread or reader.bytes_total is None or reader.bytes_total > SURVEY_BYTES:
        return None
    with reader.again() as again:
        count = 0
        for _ in again:
            count += 1
            if count > SURVEY_RECORDS:
                return None
        return count


class CountedRecords:
    """Records of a reader, counted as they are taken.

    Attributes:
        count: number of records taken so far.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.count = 0

    def __iter__(self) -> Iterator[Record]:
        for record in self._reader:
            self.count += 1
            yield record

    def total(self, known: int | None) -> Callable[[], int | None]:
        """Return a function for the number of records in all: the known one, or an estimate that gets better."""
        return lambda: extrapolated(self._reader, self.count) if known is None else known

    def check(self, *, counted: int | None, written: int) -> None:
        """Refuse a run that did not write each record of its input once.

        Args:
            counted: number of records in a reading before the run, or None if there was none.
            written: number of records in the output.

        Raises:
            InputError: the three numbers of records differ.
        """
        if written != self.count:
            raise InputError(f"{self._reader.name}: {self.count:,} records were read and {written:,} written")
        if counted is not None and counted != self.count:
            raise InputError(
                f"{self._reader.name} changed while it was read: it had {counted:,} records before the run and "
                f"{self.count:,} in it; run again when nothing writes to it, or on a copy"
            )


def extrapolated(reader: Reader, count: int) -> int | None:
    """Estimate the number of records, as if the rest of the file were like the part with the first `count`."""
    if reader.bytes_total is None or not reader.bytes_read:
        return None
    return round(count * reader.bytes_total / reader.bytes_read)


def _is_enough(reader: Reader, count: int) -> bool:
    if reader.bytes_total is None:
        return True
    is_all_read = reader.bytes_read >= reader.bytes_total
    return not is_all_read and (reader.bytes_read >= SURVEY_BYTES or count >= SURVEY_RECORDS)
