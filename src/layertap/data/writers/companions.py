"""Files that stand beside an output and belong to it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from layertap.data.readers.base import RowError


def provenance_place(path: Path) -> Path:
    """Return the path of the provenance file, for formats that cannot hold provenance themselves."""
    return path.with_name(f"{path.name}.provenance.json")


def offsets_place(path: Path) -> Path:
    """Return the path of the offsets of a ragged npy output: the row at which each record begins."""
    return path.with_name(f"{path.stem}.offsets{path.suffix}")


def error_list_place(path: Path) -> Path:
    """Return the path of the list of rows that were left out of an output."""
    return path.with_name(f"{path.name}.errors.jsonl")


def error_list_content(errors: Sequence[RowError]) -> bytes:
    """Encode the rows that were left out as JSON Lines, each with its row number, position and reason."""
    return b"".join(
        json.dumps(asdict(error), ensure_ascii=False).encode("utf-8", "replace") + b"\n" for error in errors
    )
