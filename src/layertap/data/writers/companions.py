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
    """Returns where the provenance of an output goes whose format has no place for it."""
    return path.with_name(f"{path.name}.provenance.json")


def offsets_place(path: Path) -> Path:
    """Returns where the offsets of a ragged npy output go: the row at which each record begins."""
    return path.with_name(f"{path.stem}.offsets{path.suffix}")


def error_list_place(path: Path) -> Path:
    """Returns where the list of the rows goes that were left out of an output."""
    return path.with_name(f"{path.name}.errors.jsonl")


def error_list_content(errors: Sequence[RowError]) -> bytes:
    """Returns the list of the rows that were left out: a JSON object a line, with row number, position and reason."""
    return b"".join(
        json.dumps(asdict(error), ensure_ascii=False).encode("utf-8", "replace") + b"\n" for error in errors
    )
