"""What this machine has to run models with, and how many processor threads it may take."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from layertap.errors import BackendError


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendFacts:
    """A backend that is installed here.

    Attributes:
        name: of the backend.
        version: of the library under it.
        devices: device name (as options take it) -> what it is.
        instruction_set: of its kernels on the processor.
        threads: processor threads that it takes unless told otherwise.
    """

    name: str
    version: str
    devices: dict[str, str]
    instruction_set: str
    threads: int


def installed() -> tuple[BackendFacts, ...]:
    """The backends that can be used here."""
    if find_spec("torch") is None:
        return ()
    from layertap.backends.torch.here import facts

    return (facts(),)


def require_torch(why: str = "no backend is installed that can run a model") -> None:
    """Refuses where torch is not installed.

    Raises:
        BackendError: saying why it is needed, and how to get it.
    """
    if find_spec("torch") is None:
        raise BackendError(f"{why}: pip install 'layertap[torch]'")


def set_num_threads(number: int) -> None:
    """Sets the processor threads of the whole process; for programs, not for libraries."""
    if find_spec("torch") is not None:
        from layertap.backends.torch.here import set_num_threads as set_torch_threads

        set_torch_threads(number)
