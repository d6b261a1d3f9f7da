"""Facts and tables in a pipe and on terminals of several widths."""

from __future__ import annotations

import io

import pytest

from layertap.cli.tables import (
    Chart,
    print_command,
    print_facts,
    print_laid_out,
    print_message,
    print_paragraph,
    print_table,
)
from layertap.words import aligned


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


HEADER = ("feature", "accuracy", "95% interval", "random labels", "selectivity", "C")
ROWS = [(f"hidden_states[{i}].mean", "0.732", "0.697 to 0.765", "0.225", "+0.507", "0.01 to 0.1") for i in range(3)]
CHART = Chart(draw=lambda width: ["|" + "-" * (width - 2) + "|"] * 4)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


def table(stream: io.StringIO) -> list[str]:
    print_table(HEADER, ROWS, best=1, dispensable=(5, 4, 3), chart=CHART, stream=stream)
    return stream.getvalue().rstrip("\n").split("\n")


def test_a_table_in_a_pipe_is_plain_and_whole():
    first, *others = table(io.StringIO())
    assert first.split("  ")[0] == "feature"
    assert [line.split()[-1] for line in others] == ["|" + "-" * 30 + "|", "best", "|" + "-" * 30 + "|"]
    assert all("0.697 to 0.765" in line and "0.01 to 0.1" in line for line in others)


@pytest.mark.parametrize(("columns", "missing"), [(160, 0), (100, 1), (80, 2), (60, 3)])
def test_a_table_on_a_terminal_never_breaks_a_cell(monkeypatch, columns, missing):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    lines = table(Terminal())
    assert max(map(len, lines)) <= columns
    assert sum("0.697 to 0.765" in line for line in lines) == 3
    assert sum("hidden_states[1].mean" in line and line.rstrip().endswith("best") for line in lines) == 1
    gone = [
        name for name in ("C", "random labels", "selectivity") if not any(name.split()[0] in line for line in lines[:2])
    ]
    assert len(gone) == missing
    assert (f"a wider terminal also shows: {', '.join(sorted(gone, key=HEADER.index))}" in lines[-1]) == bool(missing)
    if columns >= 80:
        assert sum("|--" in line for line in lines) == 4, "three rows and the scale above them"


def test_the_best_row_is_green_on_a_terminal_and_nowhere_else(monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    best = [line for line in table(Terminal()) if "[1]" in line]
    others = [line for line in table(Terminal()) if "[2]" in line]
    assert "\x1b[1;32m" in best[0]
    assert "32m" not in others[0]


def test_facts_wrap_below_themselves_on_a_terminal(monkeypatch):
    rows = [("texts", "3,000 in 40,125 tokens"), ("note", "word " * 30 + "end"), ("", "more\x1b[2J")]
    plain = io.StringIO()
    print_facts(rows, stream=plain)
    assert plain.getvalue().split("\n")[:2] == aligned([rows[0], rows[1]], indent="")
    assert "\x1b" not in plain.getvalue()
    monkeypatch.setenv("COLUMNS", "50")
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal()
    print_facts(rows, stream=terminal)
    lines = terminal.getvalue().rstrip("\n").split("\n")
    assert max(map(len, lines)) <= 50
    assert lines[1].startswith("note   word")
    assert lines[2].startswith("       word")
    assert " ".join(" ".join(lines).split()).startswith("texts 3,000 in 40,125 tokens note word word")


def test_messages_name_their_kind_in_colour_and_keep_positions_whole(monkeypatch):
    plain = io.StringIO()
    print_message("error", "there is no option --x\n  v = hidden\n      ^", stream=plain)
    assert plain.getvalue() == "layertap: error: there is no option --x\n  v = hidden\n      ^\n"
    monkeypatch.setenv("COLUMNS", "40")
    terminal = Terminal()
    print_message("error", "word " * 12 + "--text-column\n  " + "v" * 60 + "\n" + " " * 50 + "^", stream=terminal)
    assert "\x1b[1;31merror: " in terminal.getvalue()
    assert "\x1b[36m--text-column" in terminal.getvalue()
    assert "  " + "v" * 60 + "\n" + " " * 50 + "^\n" in terminal.getvalue()


def test_paragraphs_wrap_and_commands_do_not(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal()
    print_paragraph("word " * 20, stream=terminal)
    print_paragraph("word " * 20, label="best", stream=terminal)
    print_command("layertap extract " + "x" * 50, stream=terminal)
    lines = terminal.getvalue().rstrip("\n").split("\n")
    assert lines[-1] == "use   layertap extract " + "x" * 50
    assert max(map(len, lines[:-1])) <= 40
    assert sum(line.startswith("      word") for line in lines) > 1


def test_text_in_columns_goes_on_below_its_last_column(monkeypatch):
    text = "rules\n  stop     no block above the highest layer  saves 55.7 kB handed over a text\nshort"
    plain = io.StringIO()
    print_laid_out(text, stream=plain)
    assert plain.getvalue() == text + "\n"
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal()
    print_laid_out(text, stream=terminal)
    lines = terminal.getvalue().rstrip("\n").split("\n")
    assert max(map(len, lines)) <= 60
    assert lines[1].index("saves") == len(lines[2]) - len(lines[2].lstrip())
    assert " ".join(" ".join(lines).split()) == " ".join(text.split())
    monkeypatch.setenv("COLUMNS", "50")
    terminal = Terminal()
    print_laid_out("  v  float32 [384] a text      = " + "x" * 30, stream=terminal)
    assert terminal.getvalue().split("\n")[1] == "     " + "x" * 30, (
        "a word that fits below another column is not broken"
    )
