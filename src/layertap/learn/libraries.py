"""The libraries of the extra `learn`, asked for in one place."""

from __future__ import annotations

from importlib.util import find_spec

from layertap.errors import BackendError

PACKAGES = {"sklearn": "scikit-learn", "seqeval": "seqeval"}
"""Module -> what it is called where one installs it."""


def require_libraries(what: str, *modules: str) -> None:
    """Refuses where a library is not installed.

    Args:
        what: what needs it, for the message.
        modules: names in `PACKAGES`.

    Raises:
        BackendError: naming the first that is missing, and how to get it.
    """
    missing = next((name for name in modules if find_spec(name) is None), None)
    if missing is not None:
        raise BackendError(f"{what} needs {PACKAGES[missing]}: pip install 'layertap[learn]'")
