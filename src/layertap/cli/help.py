"""Help pages: as wide as the terminal, in colour there, plain in a pipe."""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from typing import Any, ClassVar

from layertap.terminal import columns_of, wants_colour

NARROWEST = 60
WIDEST = 120
"""Widths between which help follows the terminal: longer lines are hard to read, shorter ones hold no option."""

OPTION_COLUMN = 28
"""Column at which the descriptions of options begin."""

COMMAND_WORD = re.compile(r"(?:'[^']*'|[^\s'])+")
"""Word of a command line; what stands in quotes stays whole."""


def help_formatter(prog: str) -> argparse.HelpFormatter:
    """Return the formatter of help pages, for standard output as it is now; rich-argparse colours a terminal's."""
    width = min(WIDEST, max(NARROWEST, columns_of(sys.stdout))) - 1
    make = _coloured() if wants_colour(sys.stdout) else PlainHelp
    return make(prog, max_help_position=OPTION_COLUMN, width=width)


class PlainHelp(argparse.RawDescriptionHelpFormatter):
    """Formatter of plain text that fits usage, headings, paragraphs and examples to the width."""

    def add_usage(self, usage: str | None, *others: Any, **named: Any) -> None:
        """Add the line of usage."""
        super().add_usage(wrapped_usage(usage, self._width), *others, **named)

    def start_section(self, heading: str | None) -> None:
        """Begin a group of options."""
        super().start_section(None if heading is None else textwrap.fill(heading, self._width - 1))

    def add_text(self, text: str | None) -> None:
        """Add a description or an epilog."""
        super().add_text(None if text is None else reflowed(text, self._width))

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_long_words=False, break_on_hyphens=False)


def _coloured() -> Any:
    """Return the formatter for terminals; rich is loaded only if help is printed."""
    from rich_argparse import RawDescriptionRichHelpFormatter

    class ColouredHelp(RawDescriptionRichHelpFormatter):
        """Formatter in colour that fits the same to the width."""

        styles = RawDescriptionRichHelpFormatter.styles | {"argparse.groups": "bold", "argparse.metavar": "green"}
        # What stands alone on a line before commands is a heading like those of the options.
        highlights: ClassVar = [*RawDescriptionRichHelpFormatter.highlights, r"(?m)^(?P<groups>[a-z]+:)$"]
        group_name_formatter = str
        help_markup = False
        text_markup = False

        def add_usage(self, usage: str | None, *others: Any, **named: Any) -> None:
            super().add_usage(wrapped_usage(usage, self._width), *others, **named)

        def start_section(self, heading: str | None) -> None:
            super().start_section(None if heading is None else textwrap.fill(heading, self._width - 1))

        def add_text(self, text: Any) -> None:
            super().add_text(reflowed(text, self._width) if isinstance(text, str) else text)

    return ColouredHelp


def wrapped_usage(usage: str | None, width: int) -> str | None:
    """Fit a stated line of usage to a width, below its first word; argparse wraps only those that it makes itself."""
    if usage is None:
        return None
    room = width - len("usage: ")
    return f"\n{' ' * len('usage: ')}".join(textwrap.wrap(usage, room, break_long_words=False, break_on_hyphens=False))


def reflowed(text: str, width: int) -> str:
    r"""Fit a text to a width: paragraphs are filled, indented lines are commands and go on after a backslash.

    Args:
        text: paragraphs between blank lines, and indented command lines.
        width: most characters a line; a word that is longer stays whole.
    """
    done: list[str] = []
    paragraph: list[str] = []
    for line in [*text.split("\n"), ""]:
        if paragraph and (not line.strip() or line.startswith(" ")):
            done += textwrap.wrap(" ".join(paragraph), width, break_long_words=False, break_on_hyphens=False)
            paragraph = []
        if line.startswith(" "):
            done += _command_lines(line, width)
        elif line.strip():
            paragraph.append(line)
        else:
            done.append("")
    return "\n".join(done).strip("\n")


def _command_lines(line: str, width: int) -> list[str]:
    r"""Break a command line between its words; ` \` at the end of a line lets a shell read on."""
    if len(line) <= width:
        return [line]
    indent = line[: len(line) - len(line.lstrip())]
    parts: list[str] = []
    for word in COMMAND_WORD.findall(line):
        if parts and re.fullmatch(r"--?[a-z][a-z-]*", parts[-1]) and not word.startswith("-"):
            parts[-1] += f" {word}"  # an option's value stays beside it
        else:
            parts.append(word)
    lines = [indent + parts[0]]
    for part in parts[1:]:
        if len(lines[-1]) + 1 + len(part) + 2 > width:
            lines[-1] += " \\"
            lines.append(f"{indent}    {part}")
        else:
            lines[-1] += f" {part}"
    return lines
