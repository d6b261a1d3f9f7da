"""Progress of a run: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO, TypeAlias

from layertap.errors import printable
from layertap.terminal import console_of, is_terminal
from layertap.words import counted, rate

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    from layertap.engine.streaming import ProgressCallback

SECONDS_BETWEEN_LINES = 10.0
"""Shortest time between two lines where standard error is not a terminal."""

DRAWINGS_A_SECOND = 8

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
        return
    console = console_of(stream) if is_terminal(stream) else None
    if console is None:
        yield _Lines(stream, Progress(total=total)).advance
        return
    with _Bar(console, Progress(total=total)) as bar:
        yield bar.advance


@contextmanager
def status_on(stream: TextIO, *, shown: bool) -> Iterator[Callable[[str], None]]:
    """Return a context with a function that says what a run is doing, for steps that are no texts.

    On a terminal each message takes the place of the one before and the last one goes away in the end. Elsewhere a
    message is a line of its own, some seconds apart, so that a log of many steps stays short.

    Args:
        stream: stream to write to, usually standard error.
        shown: whether to write at all.
    """
    if not shown:
        yield lambda _: None
        return
    console = console_of(stream) if is_terminal(stream) else None
    if console is None:
        yield _StatusLines(stream).say
        return
    from rich.text import Text

    status = console.status("", spinner="line", refresh_per_second=DRAWINGS_A_SECOND)

    def say(message: str) -> None:
        text = Text(printable(message))
        text.truncate(console.width - 3, overflow="ellipsis")
        status.update(text)
        status.start()  # with the first message: a bar may be drawn before

    try:
        yield say
    finally:
        status.stop()


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

    def words(self, room: int | None = None) -> str:
        """Describe the progress: `3,041 texts, 760 texts/s, 20,100 tokens/s, 0:12 left`.

        Args:
            room: most characters to take; what matters less is left out. None: any number.
        """
        seconds = max(1e-9, time.perf_counter() - self.started)
        share = self.share
        left = f"{clock(seconds / share - seconds)} left" if share else f"{clock(seconds)} so far"
        texts = counted(self.records, "text")
        tokens = rate(self.tokens, seconds, "token") if self.tokens else ""
        speed = rate(self.records, seconds, "text") if self.records else ""
        forms = [(texts, speed, tokens, left), (texts, speed or tokens, left), (texts, left), (left,)]
        lines = [", ".join(filter(None, form)) for form in forms]
        return next((line for line in lines if room is None or len(line) <= room), lines[-1])


def clock(seconds: float) -> str:
    """Write a duration as a clock shows it: `0:07`, `12:34`, `3:05:00`."""
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


class _Bar:
    """Progress bar on a terminal, drawn by rich; it goes on ticking while a long batch runs."""

    def __init__(self, console: Console, progress: Progress) -> None:
        from rich.progress import Progress as Drawing

        self._progress = progress
        self._drawing = Drawing(
            *_drawn_columns(progress, console.width),
            console=console,
            transient=True,
            redirect_stdout=False,  # results may go there
            refresh_per_second=DRAWINGS_A_SECOND,
        )
        self._task = self._drawing.add_task("", total=None)

    def __enter__(self) -> _Bar:
        self._drawing.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._drawing.stop()

    def advance(self, records: int, tokens: int) -> None:
        self._progress.count(records, tokens)
        share = self._progress.share
        if share is not None:
            self._drawing.update(self._task, total=1.0, completed=share)


def _drawn_columns(progress: Progress, width: int) -> list[ProgressColumn]:
    """Return what a bar consists of: the share, the bar itself, and words that are renewed at each drawing."""
    from rich.progress import BarColumn, ProgressColumn
    from rich.text import Text

    class Share(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text("" if task.total is None else f"{task.percentage:3.0f}%", style="bold")

    class Words(ProgressColumn):
        def render(self, task: Task) -> Text:  # noqa: ARG002 - the run counts, not the task
            # A line that wraps could not be drawn over: the words come in the longest form that fits.
            return Text(progress.words(width - cells - 6), no_wrap=True, overflow="ellipsis")

    cells = 10 if width < 60 else 20 if width < 100 else 40
    return [Share(), BarColumn(cells), Words()]


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


class _StatusLines:
    """Messages for logs; those that follow another within seconds are left out."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._printed = -SECONDS_BETWEEN_LINES

    def say(self, message: str) -> None:
        now = time.perf_counter()
        if now - self._printed >= SECONDS_BETWEEN_LINES:
            self._printed = now
            print(printable(message), file=self._stream, flush=True)
