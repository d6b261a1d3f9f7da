"""Progress of a run to a folder: one line for people, or a line of JSON for machines."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TextIO

from layertap.engine.progress import clock, status_on
from layertap.jobs.folder.drive import FolderRun
from layertap.jobs.folder.runner import Event, Report, ShardFailed, ShardFinished, TextsComputed, WorkersAlive

Form = Literal["auto", "json", "none"]

SECONDS_BETWEEN_DRAWINGS = 0.2
SECONDS_BETWEEN_OBJECTS = 1.0


@dataclass(slots=True, kw_only=True)
class FolderProgress:
    """Counts of a run so far.

    Attributes:
        shards: number of shards of this run.
        rows: number of rows of these shards.
        done: number of shards that are finished.
        rows_done: rows of the shards that are finished.
        texts: texts computed so far, those of unfinished shards included.
        tokens: tokens computed so far.
        failed: number of shards that were given up.
        workers: number of workers at work.
        started: time at which the run began, in seconds of `time.perf_counter`.
    """

    shards: int
    rows: int
    done: int = 0
    rows_done: int = 0
    texts: int = 0
    tokens: int = 0
    failed: int = 0
    workers: int = 0
    started: float = field(default_factory=time.perf_counter)

    @classmethod
    def of(cls, run: FolderRun) -> FolderProgress:
        """Return the progress of a run that has not begun."""
        return cls(shards=len(run.pending), rows=sum(shard.end - shard.begin for shard in run.pending))

    def count(self, event: Event) -> None:
        """Add what an event tells."""
        if isinstance(event, TextsComputed):
            self.texts += event.records
            self.tokens += event.tokens
        elif isinstance(event, ShardFinished):
            self.done += 1
            self.rows_done += event.record.end - event.record.begin
        elif isinstance(event, ShardFailed):
            self.failed += event.is_final
        elif isinstance(event, WorkersAlive):
            self.workers = event.count

    @property
    def seconds(self) -> float:
        """Seconds since the run began."""
        return time.perf_counter() - self.started

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds to the end, or None before anything is computed."""
        finished = max(self.rows_done, min(self.texts, self.rows))
        return None if not finished else self.seconds * (self.rows - finished) / finished

    def words(self) -> str:
        """Describe the progress: `3 of 40 shards, 760 texts/s, 20,100 tokens/s, 4:12 left, 2 workers`."""
        parts = [f"{self.done:,} of {self.shards:,} shards"]
        if self.texts:
            seconds = max(self.seconds, 1e-9)
            parts += [f"{self.texts / seconds:,.0f} texts/s", f"{self.tokens / seconds:,.0f} tokens/s"]
        if self.seconds_left is not None:
            parts.append(f"{clock(self.seconds_left)} left")
        if self.failed:
            parts.append(f"{self.failed:,} failed")
        if self.workers:
            parts.append(f"{self.workers} worker{'' if self.workers == 1 else 's'}")
        return ", ".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """Return the progress as JSON values."""
        left = self.seconds_left
        return {
            "shards": self.shards,
            "shards_done": self.done,
            "shards_failed": self.failed,
            "texts": self.texts,
            "tokens": self.tokens,
            "seconds": round(self.seconds, 3),
            "seconds_left": None if left is None else round(left, 3),
            "workers": self.workers,
        }


@contextmanager
def report_on(stream: TextIO, run: FolderRun, form: Form) -> Iterator[Report | None]:
    """Return a context with the callback for events of a run, or with None where progress is not shown.

    Args:
        stream: stream to write on, usually standard error.
        run: the run, which has not begun.
        form: "auto" draws one line on a terminal and prints lines now and then elsewhere, "json" prints an object a
            line, "none" prints nothing.
    """
    progress = FolderProgress.of(run)
    if form == "none" or not run.pending:
        yield None
    elif form == "json":
        objects = _Objects(stream, progress)
        objects.show()
        yield objects.hear
        objects.show()
    else:
        with status_on(stream, shown=True) as show:
            yield _Line(show, progress).hear


class _Line:
    """Progress on one line of a terminal, which takes the place of the one before, or on lines of a log."""

    def __init__(self, show: Callable[[str], None], progress: FolderProgress) -> None:
        self._show = show
        self._progress = progress
        self._shown = time.perf_counter()

    def hear(self, event: Event) -> None:
        self._progress.count(event)
        now = time.perf_counter()
        if now - self._shown >= SECONDS_BETWEEN_DRAWINGS:
            self._shown = now
            self._show(self._progress.words())


class _Objects:
    """Progress as lines of JSON, at most a second apart, and one for every shard."""

    def __init__(self, stream: TextIO, progress: FolderProgress) -> None:
        self._stream = stream
        self._progress = progress
        self._printed = time.perf_counter()

    def hear(self, event: Event) -> None:
        self._progress.count(event)
        is_due = time.perf_counter() - self._printed >= SECONDS_BETWEEN_OBJECTS
        if is_due or isinstance(event, ShardFinished | ShardFailed | WorkersAlive):
            self.show()

    def show(self) -> None:
        self._printed = time.perf_counter()
        print(json.dumps(self._progress.as_dict()), file=self._stream, flush=True)
