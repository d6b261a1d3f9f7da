from __future__ import annotations

import io
import itertools
import re
import time
from types import SimpleNamespace

import pytest

from layertap.engine import progress
from layertap.engine.progress import Progress, Total, clock, progress_on, status_on


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


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


def lines_of(stream: Terminal) -> list[str]:
    """What was drawn, line after line, without escapes."""
    return [
        line.strip("\n")
        for line in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue()).split("\r")
        if line.strip()
    ]


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    stream = Terminal()
    with progress_on(stream, shown=True, total=4000) as on_progress:
        assert on_progress is not None
        on_progress(1000, 30000)
        on_progress(1000, 30000)
    last = lines_of(stream)[-1]
    assert last.startswith(" 50% ")
    assert "2,000 texts, " in last
    assert "texts/s, " in last
    assert "tokens/s, " in last
    assert last.rstrip().endswith(" left")
    assert all("\n" not in line for line in lines_of(stream)), "one line, drawn over"


def test_a_bar_without_a_total_says_how_long_it_has_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    stream = Terminal()
    with progress_on(stream, shown=True, total=None) as on_progress:
        assert on_progress is not None
        on_progress(5, 50)
    last = lines_of(stream)[-1]
    assert "5 texts, " in last
    assert "%" not in last
    assert last.rstrip().endswith(" so far")


@pytest.mark.parametrize("columns", [30, 45, 60, 80, 100])
def test_a_bar_is_never_wider_than_the_terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    stream = Terminal()
    with progress_on(stream, shown=True, total=10) as on_progress:
        assert on_progress is not None
        on_progress(5, 50)
    assert max(map(len, lines_of(stream))) <= columns
    assert all("left" in line or "so far" in line for line in lines_of(stream)), "cut in the middle"


def test_the_bar_goes_where_the_work_fails() -> None:
    stream = Terminal()
    with pytest.raises(KeyError), progress_on(stream, shown=True, total=10):
        raise KeyError
    assert stream.getvalue().endswith("\x1b[2K"), "the line is erased"


def test_words_take_the_room_they_have_and_fitting_units(seconds: None) -> None:
    progress = Progress(total=100, records=2, tokens=7000, started=0.0)
    object.__setattr__(progress, "started", time.perf_counter() - 100)
    whole = progress.words()
    assert whole.startswith("2 texts, 1.")
    assert "texts/min, " in whole
    assert " tokens/s, " in whole
    assert [len(progress.words(room)) <= room for room in (60, 40, 25, 14)] == [True] * 4
    assert progress.words(14).endswith(" left")
    long_text = Progress(total=100, records=0, tokens=500, started=progress.started)
    assert "tokens/s" in long_text.words(), "a long first text is not standing still"


def test_a_status_on_a_terminal_goes_away_and_elsewhere_is_a_line_now_and_then(monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    stream = Terminal()
    with status_on(stream, shown=True) as say:
        say("probing a\x1b[2Jb")
        say("fitting " + "x" * 60)
    assert max(map(len, lines_of(stream)), default=0) <= 40
    assert "\x1b[2J" not in stream.getvalue()
    log = io.StringIO()
    with status_on(log, shown=True) as say:
        for number in range(50):
            say(f"step {number}")
    assert log.getvalue() == "step 0\n"
    with status_on(log, shown=False) as say:
        say("nothing")
    assert log.getvalue() == "step 0\n"


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
