"""Git-LFS pointers: what lies in a clone in place of a large file that was never fetched."""

from __future__ import annotations

import re
from pathlib import Path

MARK = b"version https://git-lfs"
LONGEST = 1024
"""Bytes of a pointer at most, as its format says."""


def pointer_in_place(path: Path, start: bytes) -> str | None:
    """Return the message for a file that is a pointer, or None: it is none.

    Args:
        path: the file.
        start: its first bytes, at least `LONGEST` or all of them.
    """
    if not start.startswith(MARK):
        return None
    match = re.search(rb"^size ([0-9]{1,18})\r?$", start[:LONGEST], re.MULTILINE)
    size = f" of {int(match[1]):,} bytes" if match else ""
    return (
        f"{path}: expected the file itself, found a git-LFS pointer to one{size}: run `git lfs pull` in the clone "
        "(git-lfs has to be installed), or download the file from the hub"
    )
