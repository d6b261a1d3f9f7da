"""Selection of the backend that runs a model, with the reason why another one was not taken."""

from __future__ import annotations

from dataclasses import dataclass

from layertap.backends.base import Backend, Weights
from layertap.backends.facts import BackendRequest, only_backend_with
from layertap.backends.here import has_torch, native_absence, native_kernels, require_torch
from layertap.backends.native.supports import X86, default_instruction_set, supports
from layertap.errors import BackendError, OptionError
from layertap.models.spec import EncoderSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendSelection:
    """The backend that was selected for a request.

    Attributes:
        backend: "native" or "torch".
        instruction_set: instruction set of the native kernels; "" for torch, which finds one by itself.
        threads: processor threads of a native run; None for torch.
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


def choose(spec: EncoderSpec, request: BackendRequest) -> BackendSelection:
    """Select the backend for a model.

    Raises:
        BackendError: the backend asked for cannot run the model, or no backend on this machine can.
        OptionError: a precision or an instruction set that the backend does not have here; threads with torch.
    """
    if request.backend == "torch":
        return _torch(request)
    try:
        native = _native(spec, request)
    except (BackendError, OptionError) as refusal:
        if request.backend == "native":
            raise
        if _native_only(request):
            raise type(refusal)(f"only the native backend has {_native_only(request)}, and {refusal}") from None
        if not has_torch():
            raise BackendError(
                f"nothing here can run this model: {refusal}; torch can: pip install 'layertap[torch]'"
            ) from None
        return _torch(request, str(refusal))
    return native


def open_backend(
    selection: BackendSelection, spec: EncoderSpec, weights: Weights, *, device: str, precision: str
) -> Backend:
    """Make the selected backend for one model.

    Raises:
        BackendError: there is no such device.
        OptionError: a precision that the backend does not have on this device.
    """
    if selection.backend == "native":
        from layertap.backends.native.backend import NativeBackend

        assert selection.threads is not None
        return NativeBackend(
            spec, weights, precision=precision, threads=selection.threads, instruction_set=selection.instruction_set
        )
    from layertap.backends.torch.backend import TorchBackend

    return TorchBackend(spec, weights, device=device, precision=precision)


def require_backend(name: str) -> None:
    """Refuse a backend name under which no model could be run here; for checks before a model is opened.

    Raises:
        BackendError: the backend is missing; the message says what to install.
    """
    absence = native_absence() if name in ("auto", "native") else None
    if name == "native" and absence:
        raise BackendError(f"backend 'native': {absence}")
    if name == "torch" or (name == "auto" and absence):
        require_torch()


def _torch(request: BackendRequest, reason: str = "") -> BackendSelection:
    if _native_only(request):
        raise OptionError(f"only the native backend has {_native_only(request)}; choose backend 'native' or 'auto'")
    require_torch()
    if request.threads is not None:
        because = f" here, since {reason}" if reason else ""
        raise OptionError(
            f"threads {request.threads}: torch runs the model{because}, and its threads are the whole process's; "
            f"torch.set_num_threads({request.threads}) sets them"
        )
    return BackendSelection(backend="torch", reason=reason if request.device == "cpu" else "")


def _native_only(request: BackendRequest) -> str:
    """Name, in words, a part of the request that only the native backend can meet; "" if there is none."""
    if only_backend_with(request.precision, request.device) == "native":
        where = " on a processor" if only_backend_with(request.precision, "cuda") != "native" else ""
        return f"precision {request.precision!r}{where}"
    return "" if request.instruction_set is None else f"instruction_set {request.instruction_set!r}"


def _native(spec: EncoderSpec, request: BackendRequest) -> BackendSelection:
    absence = native_absence()
    if absence is not None:
        raise BackendError(absence)
    kernels = native_kernels()
    here = kernels.instruction_sets()
    chosen = request.instruction_set
    if chosen is None:
        chosen = default_instruction_set(here, request.precision)
    if chosen == X86:
        if request.precision == "float32":
            chosen = default_instruction_set(here, "float32")
        else:
            raise OptionError(
                f"instruction set {X86!r} stands for results in float32 that are equal on all x86-64 processors, and "
                f"the precision is {request.precision}; choose float32, or one of {', '.join(here)}"
            )
    if chosen not in here:
        raise OptionError(f"there is no instruction set {chosen!r} on this machine; it has {', '.join(here)}, {X86}")
    if request.device != "cpu":
        raise OptionError(f"native runs on the processor, not on {request.device}")
    precisions = kernels.precisions(chosen)
    if request.precision not in precisions:
        raise OptionError(f"native has no {request.precision} with {chosen}; it has {', '.join(precisions)}")
    unsupported = supports(spec)
    if unsupported is not None:
        raise BackendError(f"native does not run {unsupported}")
    return BackendSelection(
        backend="native", instruction_set=chosen, threads=request.threads or kernels.available_threads()
    )
