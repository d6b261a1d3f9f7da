"""Printing of commands: facts, tables, paragraphs and messages.

On a terminal rich lays them out: long cells wrap between words at its width, and a little colour marks names, errors
and the best row. Elsewhere they are plain lines of aligned cells, of any width, the same on every machine.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, TextIO

from layertap.errors import printable
from layertap.terminal import console_of
from layertap.words import aligned

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

LABEL = "cyan"
TITLE = "bold"
BEST = "bold green"
LABELS: Mapping[str, str] = {
    "note": "yellow",
    "skipped": "yellow",
    "warning": "bold yellow",
    "error": "bold red",
    "best": BEST,
}
"""Styles of labels that ask for attention; others have `LABEL`."""

WIDEST_PROSE = 100
"""Longest line of a paragraph; the eye loses longer ones."""

GAP = 2
"""Number of spaces between columns."""

NARROWEST = 12
"""Fewest columns of a cell that wraps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Drawing beside the rows of a table, as wide as the terminal leaves room for.

    Attributes:
        draw: function of a number of characters that returns the header of the drawing and a line for each row.
        usual: number of characters where the width is not limited.
        least: fewest characters that say something; where there is less room, the drawing is left out.
    """

    draw: Callable[[int], Sequence[str]]
    usual: int = 32
    least: int = 14


def print_facts(
    rows: Sequence[tuple[str, str] | tuple[str, str, str]],
    *,
    title: str | None = None,
    indent: str = "",
    stream: TextIO | None = None,
) -> None:
    """Print labels and what they stand for, a row each; the last cell wraps below itself.

    Args:
        rows: two or three cells; a row whose first cell is empty continues the one above.
        title: line above the rows, or None.
        indent: text before every row.
        stream: where to print; None: standard error.
    """
    stream = sys.stderr if stream is None else stream
    console = console_of(stream)
    if console is None:
        lines = [] if title is None else [printable(title)]
        lines += aligned([tuple(map(printable, row)) for row in rows], indent=indent) if rows else []
        print("\n".join(lines), file=stream)
        return
    if title is not None:
        _print(console, _text(title, TITLE))
    if rows:
        _print(console, _grid(console, rows, indent))


def print_table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    best: int | None = None,
    right: Collection[int] = (),
    dispensable: Sequence[int] = (),
    chart: Chart | None = None,
    title: str | None = None,
    stream: TextIO | None = None,
) -> None:
    """Print a table with names above its columns.

    Args:
        header: names of the columns.
        rows: cells, as many as there are names.
        best: index of the row to mark with the word `best`; it is green in colour.
        right: indices of columns whose cells are aligned on the right.
        dispensable: indices of columns that a narrow terminal does without, the first to go first.
        chart: drawing beside the rows, or None.
        title: line above the table, or None.
        stream: where to print; None: standard output.
    """
    stream = sys.stdout if stream is None else stream
    console = console_of(stream)
    marks = ["", *("best" if i == best else "" for i in range(len(rows)))]
    if console is None:
        drawn = chart.draw(chart.usual) if chart is not None else [""] * (1 + len(rows))
        whole = [(*row, *ends) for row, *ends in zip([header, *rows], drawn, marks, strict=True)]
        lines = aligned([tuple(map(printable, cells)) for cells in whole], indent="", right=right)
        print("\n".join(lines if title is None else [printable(title), *lines]), file=stream)
        return
    from rich.table import Table

    if title is not None:
        _print(console, _text(title, TITLE))
    widths, left_out, room = _fit(console.width, header, rows, dispensable, chart, marked=best is not None)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for i, width in widths.items():
        table.add_column(
            _text(header[i], TITLE), justify="right" if i in right else "left", vertical="bottom", width=width
        )
    ends: list[Sequence[str]] = [chart.draw(room)] if chart is not None and room else []
    ends += [marks] if best is not None else []
    for end in ends:
        table.add_column(_text(end[0], "dim"), vertical="bottom", no_wrap=True)
    for n, row in enumerate(rows):
        first, *others = [row[i] for i in widths] + [end[n + 1] for end in ends]
        style = BEST if n == best else ""
        table.add_row(_text(first, style or LABEL), *map(_text, others), style=style)
    _print(console, table)
    if left_out:
        names = ", ".join(header[i] for i in left_out)
        _print(console, _text(f"(a wider terminal also shows: {names})", "dim"))


def print_paragraph(text: str, *, label: str = "", stream: TextIO | None = None) -> None:
    """Print a paragraph, wrapped between words where a terminal ends.

    Args:
        text: one or more sentences; spaces before them are an indent, also of the lines that follow.
        label: word before it, coloured on a terminal; the lines after the first are indented below the text.
        stream: where to print; None: standard output.
    """
    stream = sys.stdout if stream is None else stream
    console = console_of(stream)
    if console is None:
        print(printable(f"{label}{' ' if label.endswith(':') else '  '}{text}" if label else text), file=stream)
        return
    from rich.padding import Padding

    indent = len(text) - len(text.lstrip(" "))
    content = _grid(console, [(label, text)], "") if label else Padding(_text(text.lstrip(" ")), (0, 0, 0, indent))
    console.print(content, width=min(console.width, WIDEST_PROSE))


def print_laid_out(text: str, *, stream: TextIO | None = None) -> None:
    """Print text that is laid out in lines already, with headings and columns two spaces apart.

    On a terminal a line that is too long goes on below its last column, and headings are bold.

    Args:
        text: lines.
        stream: where to print; None: standard output.
    """
    stream = sys.stdout if stream is None else stream
    console = console_of(stream)
    lines = [printable(line) for line in text.split("\n")]
    if console is None:
        print("\n".join(lines), file=stream)
        return
    for line, following in pairwise([*lines, ""]):
        heading = following.startswith("  ") and line[:1].strip() != ""
        for part in _hanging(line, console.width):
            console.print(_text(part, TITLE if heading else ""), soft_wrap=True)


def _hanging(line: str, width: int) -> list[str]:
    """Wrap a line between words, below the beginning of its last column."""
    if len(line) <= width:
        return [line]
    begins = [gap.end() for gap in GAPS.finditer(line) if gap.end() <= width - NARROWEST]
    # The last column whose words fit to its right.
    begin = next(
        (at for at in reversed(begins) if max(map(len, line[at:].split())) <= width - at), min(begins, default=0)
    )
    wrapped = textwrap.wrap(
        line[begin:], width - begin, break_long_words=False, break_on_hyphens=False, drop_whitespace=True
    )
    return [line[:begin] + wrapped[0], *(" " * begin + part for part in wrapped[1:])]


def print_command(command: str, *, label: str = "use", stream: TextIO | None = None) -> None:
    """Print a command line to copy: whole, on its own line, never wrapped by us.

    Args:
        command: the command line.
        label: word before it.
        stream: where to print; None: standard output.
    """
    stream = sys.stdout if stream is None else stream
    console = console_of(stream)
    if console is None:
        print(f"{label}   {printable(command)}", file=stream)
        return
    console.print(_text("").append_text(_text(f"{label}   ", LABEL)).append_text(_text(command)), soft_wrap=True)


def print_note(message: object, *, stream: TextIO | None = None) -> None:
    """Print `layertap: note: ...` to standard error."""
    print_message("note", str(message), stream=stream)


def print_message(kind: str, message: str, *, stream: TextIO | None = None) -> None:
    """Print `layertap: KIND: message`, the kind in colour on a terminal.

    Args:
        kind: `error`, `note` or another word; empty for none.
        message: one or more lines; a line that begins with a space shows a position and is not wrapped.
        stream: where to print; None: standard error.
    """
    stream = sys.stderr if stream is None else stream
    console = console_of(stream)
    first, *others = [printable(line) for line in message.split("\n")]
    head = f"layertap: {kind}: " if kind else "layertap: "
    if console is None:
        print("\n".join([head + first, *others]), file=stream)
        return
    line = _text("").append_text(_text("layertap: ", "bold"))
    if kind:
        line.append_text(_text(f"{kind}: ", LABELS.get(kind, LABEL)))
    console.print(line.append_text(_marked(first)))
    for other in others:
        console.print(_marked(other), soft_wrap=other.startswith(" "))


def _print(console: Console, content: Table | Text) -> None:
    console.print(content)


def _text(text: str, style: str = "") -> Text:
    from rich.text import Text

    return Text(printable(text), style=style)


GAPS = re.compile(r"(?:^|\S)\s{2,}(?=\S)")
"""Space between columns, or before the first one."""

OPTION = re.compile(r"(?<![\w-])--?[a-z][a-z-]*\b")


def _marked(text: str) -> Text:
    """Return a line of a message with the names of options coloured."""
    marked = _text(text)
    marked.highlight_regex(OPTION, LABEL)
    return marked


def _grid(console: Console, rows: Sequence[Sequence[str]], indent: str) -> Table:
    from rich.table import Table

    grid = Table.grid(padding=(0, 2, 0, 0))
    count = max(map(len, rows))
    widest = [max((len(row[i]) for row in rows if i < len(row)), default=0) for i in range(count)]
    # Labels stay whole where that leaves room for what they stand for.
    whole = sum(widest[:-1]) + 2 * count + len(indent) + NARROWEST <= console.width
    for i in range(count):
        grid.add_column(no_wrap=whole and i < count - 1, overflow="fold")
    for row in rows:
        label = LABELS.get(row[0].strip().rstrip(":"), LABEL)
        first, *others = row
        others += [""] * (count - len(row))
        grid.add_row(_text(indent + first, label), *map(_text, others))
    return grid


def _fit(
    width: int,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    dispensable: Sequence[int],
    chart: Chart | None,
    *,
    marked: bool,
) -> tuple[dict[int, int], list[int], int]:
    """Choose what of a table a terminal has room for.

    Returns:
        Column -> width of those that are shown, the columns that are left out, and the characters that are left for
        the chart (0: none).
    """
    mark = len("best") if marked else 0
    usual = (chart.usual + GAP if chart is not None else 0) + mark
    widths = {i: max([len(name), *(len(row[i]) for row in rows)]) for i, name in enumerate(header)}
    if sum(widths.values()) + GAP * len(widths) + usual > width:
        # A header wraps between its words, a cell does not.
        widths = {i: max([*map(len, header[i].split()), *(len(row[i]) for row in rows)], default=0) for i in widths}
    least = (chart.least + GAP if chart is not None else 0) + mark
    left_out = []
    for i in dispensable:
        if sum(widths.values()) + GAP * len(widths) + least <= width:
            break
        del widths[i]
        left_out.append(i)
    over = sum(widths.values()) + GAP * len(widths) + mark - width
    if over > 0:  # the first cell, a name, is all that may break
        first = next(iter(widths))
        widths[first] = max(NARROWEST, widths[first] - over)
    room = -over - GAP
    return widths, sorted(left_out), min(chart.usual, room) if chart is not None and room >= chart.least else 0
