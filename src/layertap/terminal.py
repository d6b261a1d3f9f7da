"""Terminals: whether a stream is one, how wide it is, and whether it is drawn on in colour.

Everything that is drawn goes through `console_of`. It loads rich only where a stream is a terminal, so that a pipe or a
file gets plain text, the same on every machine, and starts without it.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console

USUAL_COLUMNS = 80
"""Width where nothing states one, as in a pipe."""

UNBOUNDED = 1 << 16
"""Width of a pipe that wants colours: nothing is wrapped there either."""


def is_terminal(stream: TextIO) -> bool:
    """Return whether a stream is a terminal that can move its cursor (`TERM=dumb` is none)."""
    return stream.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


def columns_of(stream: TextIO) -> int:
    """Return the number of columns of a stream: `COLUMNS`, else the terminal's own, else 80."""
    stated = os.environ.get("COLUMNS", "")
    if stated.isdecimal() and int(stated) > 0:
        return int(stated)
    try:
        return os.get_terminal_size(stream.fileno()).columns or USUAL_COLUMNS
    except (OSError, ValueError):  # no terminal; a stream without a descriptor
        return USUAL_COLUMNS


def wants_colour(stream: TextIO) -> bool:
    """Return whether text on a stream is coloured.

    `NO_COLOR` switches colours off everywhere, `FORCE_COLOR` on in pipes and files, as https://no-color.org and
    https://force-color.org have it; otherwise terminals have them.
    """
    if os.environ.get("NO_COLOR"):
        return False
    return _is_forced() or is_terminal(stream)


def console_of(stream: TextIO | None = None) -> Console | None:
    """Return a console of rich that draws on a stream, or None where plain text belongs.

    Args:
        stream: where to draw; None: standard error.
    """
    stream = sys.stderr if stream is None else stream
    terminal = is_terminal(stream)
    if not (terminal or wants_colour(stream)):
        return None
    from rich.console import Console

    return Console(
        file=stream,
        color_system=("standard" if _is_forced() else "auto") if wants_colour(stream) else None,
        force_terminal=terminal,
        force_interactive=terminal,
        width=columns_of(stream) if terminal else UNBOUNDED,
        markup=False,
        emoji=False,
        highlight=False,
        soft_wrap=False,
    )


def _is_forced() -> bool:
    return os.environ.get("FORCE_COLOR", "0") not in ("", "0")
