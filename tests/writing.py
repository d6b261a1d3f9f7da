"""Write the small input files of tests."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path


def write(path: Path, content: object) -> Path:
    """Write a file, and the folders that lead to it, and return its path.

    Args:
        path: where to write; replaced if it is there.
        content: bytes as they are; a string as UTF-8, its line ends unchanged; for `.jsonl` and `.csv` a sequence of
            rows; anything else as JSON.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_encoded(path.suffix, content))
    return path


def _encoded(suffix: str, content: object) -> bytes:
    if isinstance(content, bytes):
        return content
    if isinstance(content, str):
        return content.encode()
    if suffix == ".jsonl" and isinstance(content, Sequence):
        return "".join(json.dumps(row) + "\n" for row in content).encode()
    if suffix == ".csv" and isinstance(content, Sequence):
        lines = io.StringIO()
        csv.writer(lines, lineterminator="\n").writerows(content)
        return lines.getvalue().encode()
    return json.dumps(content).encode()
