"""Which backend runs a model, and why not the other."""

from __future__ import annotations

from dataclasses import dataclass

from layertap.backends.base import Backend, Weights
from layertap.backends.here import has_torch, native_absence, native_kernels, require_torch
from layertap.backends.native.supports import supports
from layertap.errors import BackendError, OptionError
from layertap.models.spec import EncoderSpec

NATIVE_PRECISIONS = ("float32-high", "int8")
"""Those that only the native backend has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """How a user wants a model to be run.

    Attributes:
        backend: "native", "torch", or "auto": native where it runs the model, else torch.
        device: "cpu", "cuda" or "cuda:N".
        precision: "float32", "float32-high", "bfloat16", "float16" or "int8".
        threads: of a native run; None: a thread a core that the process may use. Those of torch are the process's.
        instruction_set: of the native kernels; None: the best there is.
    """

    backend: str
    device: str
    precision: str
    threads: int | None = None
    instruction_set: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What came of a wish.

    Attributes:
        backend: "native" or "torch".
        instruction_set: of the native kernels; "" for torch, which has its own ways to find one.
        threads: of a native run; None for torch.
        reason: why "auto" did not take the native backend, in words; "" where there is nothing to say.
    """

    backend: str
    instruction_set: str = ""
    threads: int | None = None
    reason: str = ""

    def __str__(self) -> str:
        if self.backend == "native":
            assert self.threads is not None
            return f"native, {self.instruction_set}, {self.threads} thread{'' if self.threads == 1 else 's'}"
        return f"torch: {self.reason}" if self.reason else "torch"


def choose(spec: EncoderSpec, wish: Wish) -> Choice:
    """The backend for a model.

    Raises:
        BackendError: what was asked for cannot run it, or nothing here can.
        OptionError: a precision or an instruction set that the backend does not have here; threads of torch.
    """
    if wish.backend == "torch":
        return _torch(wish)
    try:
        native = _native(spec, wish)
    except (BackendError, OptionError) as refusal:
        if wish.backend == "native":
            raise
        if _native_only(wish):
            raise type(refusal)(f"{_native_only(wish)} is the native backend's alone, and {refusal}") from None
        if not has_torch():
            raise BackendError(
                f"nothing here can run this model: {refusal}; torch can: pip install 'layertap[torch]'"
            ) from None
        return _torch(wish, str(refusal))
    return native


def open_backend(choice: Choice, spec: EncoderSpec, weights: Weights, *, device: str, precision: str) -> Backend:
    """The backend that was chosen, for one model.

    Raises:
        BackendError: there is no such device.
        OptionError: a precision that it does not have on this device.
    """
    if choice.backend == "native":
        from layertap.backends.native.backend import NativeBackend

        assert choice.threads is not None
        return NativeBackend(
            spec, weights, precision=precision, threads=choice.threads, instruction_set=choice.instruction_set
        )
    from layertap.backends.torch.backend import TorchBackend

    return TorchBackend(spec, weights, device=device, precision=precision)


def require_backend(name: str) -> None:
    """Refuses where no model could be run by the backend of that name; to say so before a model is opened.

    Raises:
        BackendError: saying what is missing, and how to get it.
    """
    absence = native_absence() if name in ("auto", "native") else None
    if name == "native" and absence:
        raise BackendError(f"backend 'native': {absence}")
    if name == "torch" or (name == "auto" and absence):
        require_torch()


def _torch(wish: Wish, reason: str = "") -> Choice:
    if _native_only(wish):
        raise OptionError(f"{_native_only(wish)} is the native backend's alone (backend 'native')")
    require_torch()
    if wish.threads is not None:
        because = f" here, since {reason}" if reason else ""
        raise OptionError(
            f"threads {wish.threads}: torch runs the model{because}, and its threads are the whole process's; "
            f"torch.set_num_threads({wish.threads}) sets them"
        )
    return Choice(backend="torch", reason=reason if wish.device == "cpu" else "")


def _native_only(wish: Wish) -> str:
    """What was asked for and only the native backend has, in words."""
    if wish.precision in NATIVE_PRECISIONS:
        return f"precision {wish.precision!r}"
    return "" if wish.instruction_set is None else f"instruction_set {wish.instruction_set!r}"


def _native(spec: EncoderSpec, wish: Wish) -> Choice:
    absence = native_absence()
    if absence is not None:
        raise BackendError(absence)
    kernels = native_kernels()
    here = kernels.instruction_sets()
    chosen = here[0] if wish.instruction_set is None else wish.instruction_set
    if chosen not in here:
        raise OptionError(f"this machine has no instruction set {chosen!r}, but {', '.join(here)}")
    if wish.device != "cpu":
        raise OptionError(f"native runs on the processor, not on {wish.device}")
    precisions = kernels.precisions(chosen)
    if wish.precision not in precisions:
        raise OptionError(f"native has no {wish.precision} with {chosen}, but {', '.join(precisions)}")
    unsupported = supports(spec)
    if unsupported is not None:
        raise BackendError(f"native does not run {unsupported}")
    return Choice(backend="native", instruction_set=chosen, threads=wish.threads or kernels.available_threads())
