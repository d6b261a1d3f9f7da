"""Rows of labelled files that cannot be used: options to leave them out, and the list of those that were."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from layertap.errors import printable
from layertap.words import counted

if TYPE_CHECKING:
    from layertap.data.readers.base import RowError

MOST_PRINTED = 10
"""Maximum number of rows that are printed."""


def add_skipping_options(group: argparse._ArgumentGroup) -> None:
    """Add options for rows that cannot be used."""
    group.add_argument(
        "--on-error",
        choices=("raise", "skip"),
        default="raise",
        metavar="WHAT",
        help="rows that cannot be read, or have no usable label: raise (stop) or skip, count and list them "
        "(default: raise)",
    )
    group.add_argument("--max-errors", type=int, metavar="N", help="rows that skip tolerates (default: any number)")


def print_skipped(skipped: Mapping[str, Sequence[RowError]], place: Path | None = None) -> None:
    """Print how many rows of each file were left out, and which: the first ones, and the name of the list.

    Args:
        skipped: rows by the name of their file.
        place: file that lists all of them, or None.
    """
    for source, errors in skipped.items():
        if not errors:
            continue
        listed = "" if place is None else f"; all are listed in {place}"
        print(printable(f"skipped: {counted(len(errors), 'row')} of {source}{listed}"), file=sys.stderr)
        for error in errors[:MOST_PRINTED]:
            print(printable(f"  {error.where}: {error.reason}"), file=sys.stderr)
        if len(errors) > MOST_PRINTED:
            print(f"  and {len(errors) - MOST_PRINTED:,} more", file=sys.stderr)


def write_skipped(skipped: Mapping[str, Sequence[RowError]], place: Path) -> Path | None:
    """Write the rows that were left out as JSON lines, in place of an earlier list; return the place if there are any.

    Raises:
        OutputError: the file cannot be written.
    """
    from layertap.files import remove_file, write_file

    lines = [
        json.dumps({"source": source, "row": error.row, "where": error.where, "reason": error.reason})
        for source, errors in skipped.items()
        for error in errors
    ]
    if not lines:
        remove_file(place)
        return None
    write_file(place, ("\n".join(lines) + "\n").encode(), overwrite=True)
    return place


def list_place(output: Path) -> Path:
    """Return the place of the list of an output."""
    return output.with_name(f"{output.name}.errors.jsonl")
