"""Computing one shard: its rows are read, their features computed, and the file and its record written."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from layertap.data.folder import FolderPlan, FolderRoot, PlannedShard, ShardRecord, folder_files, shared_folder
from layertap.data.folder.contents import read_record
from layertap.data.folder.layout import DATA, FILE_COLUMN, data_name, errors_place, record_place, shard_stem
from layertap.data.formats import open_writer
from layertap.data.inputs import InputFile, InputSet
from layertap.data.readers.base import Reader, RowError
from layertap.data.writers.companions import error_list_content
from layertap.engine.preparing import label
from layertap.engine.streaming import ProgressCallback, Stream, Streams
from layertap.engine.summary import RunSummary
from layertap.errors import InputError, LayertapError, NonFiniteError, OutputError, one_line, printable
from layertap.files import reason
from layertap.files.shared import sha256_of
from layertap.jobs.folder.digest import RecordDigest
from layertap.jobs.folder.planning import column_types_of
from layertap.jobs.folder.request import features_of
from layertap.records import FeatureBatch, Record

MOST_HALVINGS = 3
"""Number of times that the token budget is halved for a shard that needs more memory than there is."""

OUT_OF_MEMORY = ("MemoryError", "OutOfMemoryError")
"""Names of errors that a smaller token budget may avoid; the second one is torch's, which jobs do not import."""


class BudgetedStreams(Streams, Protocol):
    """Interface of `Streams` whose token budget can be changed, as that of an `Extractor`."""

    @property
    def batch_tokens(self) -> int:
        """Largest number of packed tokens of a batch."""

    def with_batch_tokens(self, batch_tokens: int) -> BudgetedStreams:
        """Return the same with another token budget."""


class ShardWorker:
    """Computes shards of a plan, one at a time, and writes each of them with its record.

    Shards may be computed in any order; those of one input are read quickest in ascending order, because the input
    stays open between them. A context manager; at its end the inputs are closed and temporary files removed.

    Args:
        root: path of the folder, in which `data`, `records` and `errors` exist.
        plan: plan of the folder.
        inputs: the inputs, with the options for reading that the plan states.
        streams: what computes the results.
        max_errors: number of rows that may be left out in the whole folder; None for any number.
    """

    def __init__(
        self,
        *,
        root: FolderRoot,
        plan: FolderPlan,
        inputs: InputSet,
        streams: BudgetedStreams,
        max_errors: int | None = None,
    ) -> None:
        self.plan = plan
        self._streams = streams
        self._features = features_of(plan)
        self._inputs = {file.name: file for file in inputs}
        self._skips = plan.reading.get("on_error") == "skip"
        self._errors = ErrorCount(root, plan, max_errors)
        self._files = folder_files(root)
        self._folder = shared_folder(root)
        self._open: OpenInput | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the inputs, and remove temporary files."""
        self._close_input()
        self._folder.close()

    def compute(
        self, shard: PlannedShard, *, halvings: int = 0, on_progress: ProgressCallback | None = None
    ) -> ShardRecord:
        """Compute a shard, and write its file and its record.

        Args:
            shard: a shard of the plan.
            halvings: number of times that the token budget is halved; results do not depend on it (on the native
                backend, to the bit).
            on_progress: function called after every packed batch with the records finished by it and the tokens run.

        Returns:
            The record that counts. If another worker wrote the shard first, it is that worker's.

        Raises:
            InputError: a row that cannot be read or processed, an input that changed, or too many rows left out.
            NonFiniteError: NaN or infinity in a result.
            OutputError: the shard cannot be written; shards that are finished stay.
        """
        self._errors.check()
        while True:
            try:
                record = self._compute(shard, halvings, on_progress)
            except Exception as error:
                self._close_input()
                if type(error).__name__ in OUT_OF_MEMORY and halvings < MOST_HALVINGS:
                    halvings += 1
                    continue
                error.add_note(
                    f"shard {shard.number}: rows {shard.begin} to {shard.end - 1} of {printable(shard.input)}"
                )
                raise
            except BaseException:
                self._close_input()
                raise
            self._errors.add(record)
            return record

    def _compute(self, shard: PlannedShard, halvings: int, on_progress: ProgressCallback | None) -> ShardRecord:
        streams = self._streams
        if halvings:
            streams = streams.with_batch_tokens(max(1, streams.batch_tokens >> halvings))
        rows = self._rows(shard)
        run = ShardRun(streams, self._features, self.plan.details, on_progress)
        staged = self._folder.staged_place(f"{shard_stem(shard.number)}.parquet")
        try:
            with open_writer(
                staged,
                schemas=self.plan.schemas,
                column_types=column_types_of(self.plan.columns),
                provenance=self.plan.provenance,
                constants={FILE_COLUMN: shard.input},
            ) as writer:
                for batch in run.salvaged(rows.located()) if self._skips else run.batches(rows):
                    writer.write(batch)
            written = writer.records_written
        except OutputError as error:
            raise self._cannot_write(shard, error) from error
        if written + len(rows.errors) + len(run.errors) != shard.end - shard.begin:
            raise InputError(
                f"{printable(shard.input)}: rows {shard.begin} to {shard.end - 1} were planned, and {written:,} of "
                f"them are there with {len(rows.errors)} that cannot be read; did the file change?"
            )
        self._inputs[shard.input].check_unchanged()
        return self._publish(shard, staged, written, rows, run)

    def _publish(self, shard: PlannedShard, staged: Path, written: int, rows: ShardRows, run: ShardRun) -> ShardRecord:
        with self._folder.described():
            sha256, size = sha256_of(staged), staged.stat().st_size
        name = data_name(shard.number, sha256)
        # A file is named by its content: one that differs under the name has been damaged.
        self._folder.publish(staged, f"{DATA}/{name}", replace_other=True)
        errors = sorted([*rows.errors, *run.errors], key=lambda error: error.row)
        listed = error_list_content(errors)
        if errors:
            self._folder.replace(errors_place(shard.number), listed)
        record = ShardRecord(
            number=shard.number,
            input=shard.input,
            begin=shard.begin,
            end=shard.end,
            file=name,
            rows=written,
            size=size,
            sha256=sha256,
            digest=rows.digest(),
            tokens=run.summary.text_tokens,
            counts=run.summary.counts(),
            errors=len(errors),
            errors_sha256=hashlib.sha256(listed).hexdigest() if errors else None,
        )
        if self._folder.write_new(record_place(shard.number), record.to_bytes()):
            return record
        first = read_record(self._files, shard)
        return record if first is None else first

    def _rows(self, shard: PlannedShard) -> ShardRows:
        if self._open is None or not self._open.reaches(shard):
            self._close_input()
            file = self._inputs.get(shard.input)
            if file is None:
                raise InputError(f"{printable(shard.input)}: the plan has this input, and it is not among those given")
            file.check_unchanged()
            self._open = OpenInput(file, shard)
        return ShardRows(self._open, shard)

    def _close_input(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    def _cannot_write(self, shard: PlannedShard, error: OutputError) -> OutputError:
        cause = error.__cause__ or error
        return OutputError(
            f"{self._files.name}: shard {shard.number} cannot be written: {reason(cause)}; the shards that are "
            "finished stay, and the next run goes on from there"
        )


class OpenInput:
    """An input that is read forward, shard by shard.

    Args:
        file: the input.
        shard: the first shard to read.
    """

    def __init__(self, file: InputFile, shard: PlannedShard) -> None:
        self.file = file
        self._reader: Reader = file.input.open(range(shard.begin, sys.maxsize))
        self._located = self._reader.located()
        self._next: tuple[str, Record] | None = None
        self._row = shard.begin

    def reaches(self, shard: PlannedShard) -> bool:
        """Go on to the first row of a shard, and return whether that is worth more than opening the input again."""
        gap = shard.begin - self._row
        if self.file.name != shard.input or gap < 0 or (gap and self._reader.opens_anywhere):
            return False
        if gap:
            self._reader.skip_to(shard.begin)
            if self._next is not None and self._next[1].row < shard.begin:
                self._next = None
            self._row = shard.begin
        return True

    def located(self, end: int) -> Iterator[tuple[str, Record]]:
        """Yield the records of the next rows, up to a row that is not among them, with their places in the input."""
        while True:
            item = self._next or next(self._located, None)
            self._next = None
            if item is None or item[1].row >= end:
                self._next, self._row = item, end
                return
            yield item

    def errors(self, begin: int, end: int) -> list[RowError]:
        """Return the rows in a range that cannot be read, once the range has been read."""
        return [error for error in self._reader.errors if begin <= error.row < end]

    def close(self) -> None:
        """Close the input; no row can be read afterwards."""
        self._reader.close()


class ShardRows:
    """Records of a shard, read once, with their digest and the rows that cannot be read."""

    def __init__(self, source: OpenInput, shard: PlannedShard) -> None:
        self.errors: list[RowError] = []
        self._source = source
        self._shard = shard
        self._digest = RecordDigest()

    def __iter__(self) -> Iterator[Record]:
        return (record for _, record in self.located())

    def located(self) -> Iterator[tuple[str, Record]]:
        """Yield each record with its place in the input, for example `line 7`."""
        for where, record in self._source.located(self._shard.end):
            self._digest.add(record)
            yield where, record
        self.errors = self._source.errors(self._shard.begin, self._shard.end)
        for error in self.errors:
            self._digest.add_error(error.row, error.reason)

    def digest(self) -> str:
        """Return the digest of everything that was read."""
        return self._digest.hexdigest()


class ShardRun:
    """Computation of the records of one shard.

    Attributes:
        summary: counts of the texts.
        errors: rows that cannot be processed, if such rows are left out.
    """

    def __init__(
        self,
        streams: Streams,
        features: list[str],
        details: Sequence[str],
        on_progress: ProgressCallback | None,
    ) -> None:
        self.errors: list[RowError] = []
        self._start: Callable[..., Stream] = lambda records: streams.stream(
            records, features, details=details, on_progress=on_progress
        )
        self.summary: RunSummary = self._start([]).summary

    def batches(self, records: Iterable[Record]) -> Iterator[FeatureBatch]:
        """Yield the results of records in their order."""
        stream = self._start(records)
        yield from stream
        self._count(deepcopy(stream.summary))

    def salvaged(self, located: Iterable[tuple[str, Record]]) -> Iterator[FeatureBatch]:
        """Yield the results of records in their order, and leave out those that cannot be processed.

        Where records fail together, halves of them are tried, down to the single record that is left out.
        """
        waiting = [list(located)]
        while waiting:
            items = waiting.pop()
            stream = self._start([record for _, record in items])
            finished, done = deepcopy(stream.summary), 0
            try:
                for batch in stream:
                    yield batch
                    # Later chunks are counted before they are computed, and may fail.
                    finished, done = deepcopy(stream.summary), done + len(batch)
            except (InputError, NonFiniteError) as error:
                left = items[done:]
                if len(left) == 1:
                    where, record = left[0]
                    self.errors.append(RowError(row=record.row, where=where, reason=one_line(_reason(error, record))))
                else:
                    waiting += [left[len(left) // 2 :], left[: len(left) // 2]]
            self._count(finished)

    def _count(self, summary: RunSummary) -> None:
        self.summary.add_counts(summary.counts())
        self.summary.text_tokens += summary.text_tokens


@dataclass(slots=True)
class ErrorCount:
    """Number of rows that all shards left out so far, and the limit for it."""

    root: FolderRoot
    plan: FolderPlan
    max_errors: int | None
    known: dict[int, int] | None = None

    def add(self, record: ShardRecord) -> None:
        """Count the rows that a shard left out."""
        if self.known is not None:
            self.known[record.number] = record.errors

    def check(self) -> None:
        """Refuse to go on once more rows have been left out than allowed; shards of other workers count.

        Raises:
            InputError: there are more.
        """
        if self.max_errors is None:
            return
        known = self.known = {} if self.known is None else self.known
        files = folder_files(self.root)
        for shard in self.plan.shards:
            if shard.number not in known:
                try:
                    record = read_record(files, shard)
                except InputError:
                    continue  # a damaged record is made again
                if record is not None:
                    known[shard.number] = record.errors
        total = sum(known.values())
        if total > self.max_errors:
            raise InputError(
                f"{files.name}: {total:,} rows have been left out, more than the {self.max_errors:,} allowed "
                "(--max-errors); they are listed in the folder errors"
            )


def _reason(error: LayertapError, record: Record) -> str:
    return str(error).removeprefix(f"record {label(record)}: ")
