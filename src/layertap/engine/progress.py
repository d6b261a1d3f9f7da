"""Progress of a run: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TextIO, TypeAlias

from layertap.engine.streaming import ProgressCallback

SECONDS_BETWEEN_LINES = 10.0
"""Shortest time between two lines where standard error is not a terminal."""

SECONDS_BETWEEN_DRAWINGS = 0.1
BAR_CELLS = 24

Total: TypeAlias = int | Callable[[], int | None] | None
"""Number of all records: a number, a function whose estimate improves during the run, or None where unknown."""


@contextmanager
def progress_on(stream: TextIO, *, shown: bool, total: Total) -> Iterator[ProgressCallback | None]:
    """Return a context with the callback for packed batches, or with None where progress is not shown.

    Args:
        stream: stream to draw on, usually standard error.
        shown: whether to draw at all.
        total: number of all records, or None where it is not known before the end.
    """
    if not shown:
        yield None
    elif stream.isatty():
        bar = _Bar(stream, Progress(total=total))
        try:
            bar.draw()
            yield bar.advance
        finally:
            bar.clear()
    else:
        yield _Lines(stream, Progress(total=total)).advance


@dataclass(slots=True, kw_only=True)
class Progress:
    """Counts of a run so far, and a line of text about them.

    Attributes:
        total: number of all records.
        records: records finished so far.
        tokens: tokens run so far.
        started: time at which the run began, in seconds of `time.perf_counter`.
    """

    total: Total
    records: int = 0
    tokens: int = 0
    started: float = field(default_factory=time.perf_counter)

    def count(self, records: int, tokens: int) -> None:
        """Add the records and tokens of a batch."""
        self.records += records
        self.tokens += tokens

    @property
    def share(self) -> float | None:
        """Finished share of all records, 0 to 1, or None where the total is not known."""
        total = self.total() if callable(self.total) else self.total
        return None if total is None else min(1.0, self.records / max(1, total))

    def words(self) -> str:
        """Describe the progress: `3,041 texts, 760 texts/s, 20,100 tokens/s, 0:12 left`."""
        seconds = time.perf_counter() - self.started
        parts = [f"{self.records:,} text{'' if self.records == 1 else 's'}"]
        if self.records and seconds > 0:
            parts += [f"{self.records / seconds:,.0f} texts/s", f"{self.tokens / seconds:,.0f} tokens/s"]
            share = self.share
            parts.append(f"{clock(seconds / share - seconds)} left" if share else f"{clock(seconds)} so far")
        return ", ".join(parts)


def clock(seconds: float) -> str:
    """Write a duration as a clock shows it: `0:07`, `12:34`, `3:05:00`."""
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


class _Bar:
    """Progress bar on one line of a terminal."""

    def __init__(self, stream: TextIO, progress: Progress) -> None:
        self._stream = stream
        self._progress = progress
        self._drawn = 0.0
        self._width = 0

    def advance(self, records: int, tokens: int) -> None:
        self._progress.count(records, tokens)
        if time.perf_counter() - self._drawn >= SECONDS_BETWEEN_DRAWINGS:
            self.draw()

    def draw(self) -> None:
        share = self._progress.share
        line = self._progress.words()
        if share is not None:
            done = round(share * BAR_CELLS)
            line = f"{share:4.0%} [{'#' * done}{'.' * (BAR_CELLS - done)}] {line}"
        # A line that wraps could not be drawn over.
        line = line[: _columns()]
        self._stream.write("\r" + line.ljust(self._width))
        self._stream.flush()
        self._width = len(line)
        self._drawn = time.perf_counter()

    def clear(self) -> None:
        # The whole width: Ctrl-C leaves a ^C behind the line.
        self._stream.write("\r" + " " * _columns() + "\r")
        self._stream.flush()


def _columns() -> int:
    return max(1, shutil.get_terminal_size().columns - 1)


class _Lines:
    """Lines of progress for logs, some seconds apart."""

    def __init__(self, stream: TextIO, progress: Progress) -> None:
        self._stream = stream
        self._progress = progress
        self._printed = progress.started

    def advance(self, records: int, tokens: int) -> None:
        self._progress.count(records, tokens)
        now = time.perf_counter()
        if now - self._printed >= SECONDS_BETWEEN_LINES:
            self._printed = now
            print(self._progress.words(), file=self._stream, flush=True)
