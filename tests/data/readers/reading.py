"""Read the records of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from layertap.data import open_reader
from layertap.records import Record


def records(path: Path | str, **options: Any) -> list[Record]:
    """Open a file with these options and read all records."""
    with open_reader(path, **options) as reader:
        return list(reader)
