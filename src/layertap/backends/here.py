"""Backends that are installed on this machine."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from layertap.backends.current_folder import check_current_folder
from layertap.backends.facts import BackendFacts
from layertap.errors import BackendError

KERNELS = "layertap.backends.native._native"
"""Name of the compiled module of the native backend."""


def installed() -> tuple[BackendFacts, ...]:
    """Describe the backends that can be used on this machine."""
    backends = []
    if native_absence() is None:
        backends.append(_native_facts())
    if has_torch():
        from layertap.backends.torch.here import facts as facts_of_torch

        backends.append(facts_of_torch())
    return tuple(backends)


def absences() -> dict[str, str]:
    """Return the backends that cannot be used here, each with the reason and what would help."""
    native = native_absence()
    reasons = {} if native is None else {"native": native}
    return reasons if has_torch() else reasons | {"torch": "torch is not installed: pip install 'layertap[torch]'"}


def native_absence() -> str | None:
    """Return the reason why the native backend cannot be used here, or None if it can."""
    if find_spec(KERNELS) is None:
        return "native is not built: `pip install -v` from the sources builds it, or shows why it cannot"
    try:
        sets = native_kernels().instruction_sets()
    except ImportError as error:
        return f"native cannot be loaded: {error}"
    return None if sets else "native needs a processor with AVX2"


def native_kernels() -> Any:
    """Import the compiled module of the native backend."""
    return import_module(KERNELS)


def has_torch() -> bool:
    """Return whether torch is installed, without importing it."""
    return find_spec("torch") is not None


def require_torch(why: str = "no backend is installed that can run a model") -> None:
    """Refuse to go on where torch is not installed, or cannot be loaded.

    Raises:
        BackendError: torch is missing, and the message says why it is needed and how to install it; or the current
            folder has been removed.
    """
    if not has_torch():
        raise BackendError(f"{why}: pip install 'layertap[torch]'")
    check_current_folder()


def set_num_threads(number: int) -> None:
    """Set the threads of torch for the whole process; meant for programs, not for libraries."""
    if has_torch():
        from layertap.backends.torch.here import set_num_threads as set_torch_threads

        set_torch_threads(number)


def _native_facts() -> BackendFacts:
    kernels = native_kernels()
    sets = kernels.instruction_sets()
    return BackendFacts(
        name="native",
        version=kernels.compiler(),
        devices={"cpu": "the processor"},
        instruction_sets=tuple(sets),
        precisions=tuple(kernels.precisions(sets[0])),
        threads=kernels.available_threads(),
    )
