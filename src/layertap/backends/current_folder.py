"""Check of the current folder, which torch needs when it is loaded."""

from __future__ import annotations

from pathlib import Path

from layertap.errors import BackendError


def check_current_folder() -> None:
    """Refuse to load torch in a folder that has been removed: one of its libraries (oneMKL) would end the process.

    Raises:
        BackendError: the current folder has been removed.
    """
    try:
        Path.cwd()
    except FileNotFoundError:
        raise BackendError(
            "torch cannot be loaded: the current folder has been removed; change to another folder (cd)"
        ) from None
