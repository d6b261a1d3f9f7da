"""How far a run is: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TextIO, TypeAlias

from layertap.engine.streaming import ProgressCallback

SECONDS_BETWEEN_LINES = 10.0
"""Where there is no terminal, a line is printed at most so often."""

SECONDS_BETWEEN_DRAWINGS = 0.1
BAR_CELLS = 24

Total: TypeAlias = int | Callable[[], int | None] | None
"""Records in all: known, or asked again at every look because the estimate gets better, or not known."""


@contextmanager
def progress_on(stream: TextIO, *, shown: bool, total: Total) -> Iterator[ProgressCallback | None]:
    """What to call after each packed batch, or None where nothing is to be shown.

    Args:
        stream: where to draw, usually standard error.
        shown: whether to draw at all.
        total: records in all, or None where that is not known before the end.
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
    """Counts of a run, and what they say in words.

    Attributes:
        total: records in all.
        records: finished so far.
        tokens: run so far.
        started: when it began, in the seconds of `time.perf_counter`.
    """

    total: Total
    records: int = 0
    tokens: int = 0
    started: float = field(default_factory=time.perf_counter)

    def count(self, records: int, tokens: int) -> None:
        """Adds what one batch did."""
        self.records += records
        self.tokens += tokens

    @property
    def share(self) -> float | None:
        """0 to 1: how much is done, as far as that is known."""
        total = self.total() if callable(self.total) else self.total
        return None if total is None else min(1.0, self.records / max(1, total))

    def words(self) -> str:
        """`3,041 texts, 760 texts/s, 20,100 tokens/s, 0:12 left`."""
        seconds = time.perf_counter() - self.started
        parts = [f"{self.records:,} text{'' if self.records == 1 else 's'}"]
        if self.records and seconds > 0:
            parts += [f"{self.records / seconds:,.0f} texts/s", f"{self.tokens / seconds:,.0f} tokens/s"]
            share = self.share
            parts.append(f"{clock(seconds / share - seconds)} left" if share else f"{clock(seconds)} so far")
        return ", ".join(parts)


def clock(seconds: float) -> str:
    """`0:07`, `12:34`, `3:05:00`."""
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


class _Bar:
    """One line of a terminal, drawn over and over."""

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
    """A line now and then, for logs."""

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
