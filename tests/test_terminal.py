"""What is a terminal, how wide it is, and where colours go."""

from __future__ import annotations

import io
import os

import pytest

from layertap.terminal import UNBOUNDED, columns_of, console_of, wants_colour


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def drawn(stream: io.StringIO) -> str | None:
    from rich.text import Text

    console = console_of(stream)
    if console is None:
        return None
    console.print(Text("word " * 12, style="red"), end="")
    return stream.getvalue()


def test_a_terminal_has_colours_and_wraps(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    text = drawn(Terminal())
    assert "\x1b[31m" in text
    assert "\n" in text


@pytest.mark.parametrize(
    ("stream", "variables"),
    [
        (io.StringIO, {}),
        (Terminal, {"TERM": "dumb"}),
        (io.StringIO, {"FORCE_COLOR": "0"}),
        (io.StringIO, {"FORCE_COLOR": "1", "NO_COLOR": "1"}),
    ],
)
def test_pipes_and_dumb_terminals_get_plain_text(monkeypatch, stream, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert drawn(stream()) is None


def test_no_color_leaves_the_layout_and_takes_every_escape(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "1")
    text = drawn(Terminal())
    assert "\x1b" not in text
    assert "\n" in text


def test_forced_colours_in_a_pipe_wrap_nothing(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    stream = io.StringIO()
    assert wants_colour(stream)
    text = drawn(stream)
    assert "\x1b[31m" in text
    assert "\n" not in text
    assert console_of(stream).width == UNBOUNDED
    assert not console_of(stream).is_terminal


def test_the_width_is_what_is_stated_then_the_terminals_then_80(monkeypatch):
    assert columns_of(io.StringIO()) == 80
    master, slave = os.openpty()
    try:
        with os.fdopen(slave, "w", closefd=False) as stream:
            monkeypatch.setattr("os.get_terminal_size", lambda *_: os.terminal_size((133, 9)))
            assert columns_of(stream) == 133
            monkeypatch.setenv("COLUMNS", "61")
            assert columns_of(stream) == 61
            monkeypatch.setenv("COLUMNS", "wide")
            assert columns_of(stream) == 133
    finally:
        os.close(master)
        os.close(slave)
