"""Check for the libraries of the extra `learn`."""

from __future__ import annotations

from importlib.util import find_spec

from layertap.errors import BackendError

PACKAGES = {"sklearn": "scikit-learn", "seqeval": "seqeval"}
"""Name of the distribution of each module."""


def require_libraries(what: str, *modules: str) -> None:
    """Refuse to go on if a library is not installed.

    Args:
        what: name of what needs the libraries, for the message.
        modules: names of modules in `PACKAGES`.

    Raises:
        BackendError: a library is missing; the message names it and how to install it.
    """
    missing = next((name for name in modules if find_spec(name) is None), None)
    if missing is not None:
        raise BackendError(f"{what} needs {PACKAGES[missing]}: pip install 'layertap[learn]'")
