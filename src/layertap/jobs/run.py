"""Doing a job: the input is opened, counted and forecast, then run, and the output appears whole or not at all."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import accumulate, islice
from pathlib import Path
from typing import TYPE_CHECKING

from layertap.data.forecast import check_space
from layertap.data.formats import open_writer
from layertap.data.readers.base import Reader
from layertap.data.survey import CountedRecords, count_records, survey
from layertap.data.writers.base import Writer
from layertap.engine.forecast import Forecast
from layertap.engine.progress import progress_on
from layertap.engine.streaming import Streams
from layertap.engine.summary import RunSummary
from layertap.engine.variants import lengths_of
from layertap.errors import LayertapError, OptionError, OutputError, printable
from layertap.jobs.job import Job
from layertap.words import counted

if TYPE_CHECKING:
    import pyarrow as pa

FORECAST_CHARACTERS = 64
"""Characters for each token of the limit; a forecast does not look at more of a text."""

COLUMNS_SHOWN = 5

FORECAST_SAMPLE = 1 << 21
"""Characters of the first texts that a forecast tokenizes, which takes about a second."""


@contextmanager
def open_job(job: Job) -> Iterator[OpenJob]:
    """Open the input of a job, and check it as far as that goes without the model.

    Raises:
        InputError: the input cannot be read; of a small file every row is tried.
        UsageError: a column that is not there, an unknown format.
    """
    with job.source.open() as reader:
        yield OpenJob(job=job, reader=reader, num_records=count_records(reader), column_types=reader.column_types)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OpenJob:
    """A job whose input is open; it can be run once.

    Attributes:
        job: what is to be done.
        reader: the open input.
        num_records: number of its records, or None if they have not been counted: of large files and pipes.
        column_types: Arrow types of what the records carry.
    """

    job: Job
    reader: Reader
    num_records: int | None
    column_types: Mapping[str, pa.DataType | None]

    def forecast(self, streams: Streams) -> None:
        """Refuse results that would pass the limit, or the disk's room, as far as the first texts tell.

        The texts of a pipe, which can be read once only, tell nothing beforehand.

        Raises:
            OptionError: the results would take more than the job's limit.
            OutputError: the disk has less room than the output needs.
        """
        if not self.reader.can_be_reread:
            return
        job = self.job
        windows = streams.semantics.long == "window"
        schemas = streams.schema(job.features, details=job.details)
        longest = max(view.max_length for view in streams.plan(job.features).inputs)
        if self.num_records is not None and not windows:
            with suppress(OptionError, OutputError):
                _check_forecast(job, Forecast.of(schemas, [longest], num_records=self.num_records))
                return
        with self.reader.again() as again:
            look = survey(again)
        if not look.sample or look.num_records is None:
            return
        # What is far beyond the limit of a text that is cut need not be tokenized.
        room = None if windows else longest * FORECAST_CHARACTERS
        sample = [
            replace(record, text=record.text[:room], pair=None if record.pair is None else record.pair[:room])
            for record in look.sample
        ]
        characters = accumulate(len(record.text) + len(record.pair or "") for record in sample)
        within = sum(total <= FORECAST_SAMPLE for total in characters)
        lengths = lengths_of(streams.tokenizer, sample[: max(1, within)])
        seen = lengths if windows else [min(length, longest) for length in lengths]
        _check_forecast(job, Forecast.of(schemas, seen, num_records=look.num_records))

    def run(self, streams: Streams, *, progress: bool = False) -> RunSummary:
        """Compute the results of all records, and write the output.

        Args:
            streams: what computes them.
            progress: whether to show progress on standard error.

        Returns:
            The counts of the run.

        Raises:
            OptionError: a result with the name of a column that the records carry.
            InputError: a row that cannot be read, or an input that changed meanwhile.
            OutputError: the output cannot be written.
            NonFiniteError: NaN or infinity in a result.
        """
        job, reader = self.job, self.reader
        taken = sorted(self.column_types.keys() & streams.column_types.keys())
        if taken:
            raise OptionError(
                f"{taken[0]!r} is the name of a result and of a column of {reader.name}; rename the result, or name "
                "the columns to carry (--columns) without it"
            )
        records = CountedRecords(reader)
        with progress_on(sys.stderr, shown=progress, total=records.total(self.num_records)) as on_progress:
            stream = streams.stream(records, job.features, details=job.details, on_progress=on_progress)
            writer: Writer | None = None
            try:
                with open_writer(
                    job.output,
                    format=job.format.name,
                    schemas=streams.schema(job.features, details=job.details),
                    column_types={**self.column_types, **streams.column_types},
                    provenance=streams.provenance(job.features),
                    overwrite=job.overwrite,
                ) as writer:
                    for batch in stream:
                        writer.write(batch)
                    records.check(counted=self.num_records, written=writer.records_written)
                    writer.list_errors(reader.errors)
            except BaseException as error:
                error.add_note(_progress_note(job, stream.summary.records, error, writer))
                raise
        stream.summary.skipped = len(reader.errors)
        stream.summary.input_notes = (*reader.notes, *writer.notes, *self._left_columns())
        return stream.summary

    def _left_columns(self) -> tuple[str, ...]:
        """Name the columns of the first record that the output's format has no place for; a pipe is not read again."""
        job = self.job
        if not (job.leaves_columns and self.reader.can_be_reread):
            return ()
        names: list[str] = []
        with suppress(LayertapError):
            whole = replace(job.source, options=replace(job.source.options, columns=None))
            with whole.open() as reader:
                names = [repr(name) for record in islice(reader, 1) for name in record.columns]
        if not names:
            return ()
        more = f" and {len(names) - COLUMNS_SHOWN} more" if len(names) > COLUMNS_SHOWN else ""
        shown = ", ".join(names[:COLUMNS_SHOWN]) + more
        noun = "column" if len(names) == 1 else "columns"
        return (f"{job.format.name} has no place for other columns (parquet and jsonl have): {noun} {shown} left out",)


def _check_forecast(job: Job, forecast: Forecast) -> None:
    forecast.refuse_past(job.max_output_bytes)
    largest = max(forecast.by_name.values())
    check_space(job.output, forecast.total, format=job.format.name, largest_bytes=largest)


def _progress_note(job: Job, records: int, error: BaseException, writer: Writer | None) -> str:
    """Say, for the error message, how far an interrupted run got and what it left on disk."""
    done = f"{counted(records, 'text')} {'was' if records == 1 else 'were'} done"
    if isinstance(error, OutputError):
        return done  # what is left stands in the message
    if writer is not None:
        return f"{done}; {writer.standing}"
    standing = "is as it was" if Path(job.output).exists() else "was not written"
    return f"{done}; {printable(job.output)} {standing}"
