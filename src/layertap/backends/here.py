"""What this machine has to run models with, and how many processor threads it may take."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from layertap.errors import BackendError

KERNELS = "layertap.backends.native._native"
"""The compiled module of the native backend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendFacts:
    """A backend that is installed here.

    Attributes:
        name: of the backend.
        version: of the library under it, or of the compiler that built its kernels.
        devices: device name (as options take it) -> what it is.
        instruction_sets: of its kernels on the processor, the one that it takes first.
        precisions: that it has on the processor.
        threads: processor threads that it takes unless told otherwise.
    """

    name: str
    version: str
    devices: dict[str, str]
    instruction_sets: tuple[str, ...]
    precisions: tuple[str, ...]
    threads: int


def installed() -> tuple[BackendFacts, ...]:
    """The backends that can be used here."""
    found = []
    if native_absence() is None:
        from layertap.backends.native.here import facts as facts_of_native

        found.append(facts_of_native())
    if has_torch():
        from layertap.backends.torch.here import facts as facts_of_torch

        found.append(facts_of_torch())
    return tuple(found)


def absences() -> dict[str, str]:
    """Backends that cannot be used here -> why, and what would help."""
    native = native_absence()
    found = {} if native is None else {"native": native}
    return found if has_torch() else found | {"torch": "torch is not installed: pip install 'layertap[torch]'"}


def native_absence() -> str | None:
    """None, or why the native backend cannot be used here."""
    if find_spec(KERNELS) is None:
        return "native is not built: `pip install -v` from the sources builds it, or shows why it cannot"
    try:
        sets = native_kernels().instruction_sets()
    except ImportError as error:
        return f"native cannot be loaded: {error}"
    return None if sets else "native needs a processor with AVX2"


def native_kernels() -> Any:
    """The compiled module."""
    return import_module(KERNELS)


def has_torch() -> bool:
    """Whether torch is installed; it is not imported."""
    return find_spec("torch") is not None


def require_torch(why: str = "no backend is installed that can run a model") -> None:
    """Refuses where torch is not installed.

    Raises:
        BackendError: saying why it is needed, and how to get it.
    """
    if not has_torch():
        raise BackendError(f"{why}: pip install 'layertap[torch]'")


def set_num_threads(number: int) -> None:
    """Sets the threads of torch for the whole process; for programs, not for libraries."""
    if has_torch():
        from layertap.backends.torch.here import set_num_threads as set_torch_threads

        set_torch_threads(number)
