from __future__ import annotations

import io
import itertools
import time
from types import SimpleNamespace

import pytest

from layertap.engine import progress
from layertap.engine.progress import Progress, Total, clock, progress_on


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that goes on by one second at every look."""
    ticks = itertools.count(time.perf_counter() + 1)
    monkeypatch.setattr(progress, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    monkeypatch.setenv("COLUMNS", "100")


def test_nothing_is_shown_where_nothing_is_wanted() -> None:
    stream = Terminal()
    with progress_on(stream, shown=False, total=10) as on_progress:
        assert on_progress is None
    assert stream.getvalue() == ""


def test_a_bar_on_a_terminal(seconds: None) -> None:
    stream = Terminal()
    with progress_on(stream, shown=True, total=4000) as on_progress:
        assert on_progress is not None
        on_progress(1000, 30000)
        on_progress(1000, 30000)
    start, first, second, blank, end = stream.getvalue().split("\r")[1:]
    assert start.rstrip() == "  0% [........................] 0 texts"
    assert first.startswith(" 25% [######..................] 1,000 texts, ")
    assert "texts/s, " in first
    assert "tokens/s, " in first
    assert second.startswith(" 50% [############............] 2,000 texts, ")
    assert second.endswith(" left")
    assert (blank, end) == (" " * 99, "")


def test_a_bar_without_a_total_says_how_long_it_has_run(seconds: None) -> None:
    stream = Terminal()
    with progress_on(stream, shown=True, total=None) as on_progress:
        assert on_progress is not None
        on_progress(5, 50)
    line = stream.getvalue().split("\r")[2]
    assert line.startswith("5 texts, ")
    assert line.endswith(" so far")


def test_a_bar_is_never_wider_than_the_terminal(seconds: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    stream = Terminal()
    with progress_on(stream, shown=True, total=10) as on_progress:
        assert on_progress is not None
        on_progress(5, 50)
    assert max(map(len, stream.getvalue().split("\r"))) == 29


def test_the_bar_goes_where_the_work_fails() -> None:
    stream = Terminal()
    with pytest.raises(KeyError), progress_on(stream, shown=True, total=10):
        raise KeyError
    assert stream.getvalue().endswith(" \r")


def test_a_line_now_and_then_elsewhere(seconds: None) -> None:
    stream = io.StringIO()
    with progress_on(stream, shown=True, total=1000) as on_progress:
        assert on_progress is not None
        for _ in range(25):
            on_progress(10, 100)
    lines = stream.getvalue().splitlines()
    assert 1 <= len(lines) <= 3  # one in ten seconds of some 27
    assert all("texts/s" in line and line.endswith(" left") for line in lines)


@pytest.mark.parametrize(
    ("total", "share"), [(None, None), (200, 0.5), (lambda: 50, 1.0), (lambda: None, None), (0, 1.0)]
)
def test_share(total: Total, share: float | None) -> None:
    assert Progress(total=total, records=100).share == share


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (7.4, "0:07"), (59.6, "1:00"), (754, "12:34"), (11100, "3:05:00")]
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text
