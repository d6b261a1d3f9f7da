"""Devices of torch: their names, what they can do, and copies to them."""

from __future__ import annotations

import re
from typing import Any, Literal

import torch
from torch import Tensor

from layertap.backends.facts import row_of
from layertap.errors import BackendError, OptionError

PRECISIONS: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "float32-high": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
NEEDS_AMPERE = {"bfloat16": "bfloat16", "float32-high": "TF32"}
"""Precisions that need compute capability 8.0, and the name of their arithmetic."""
AMPERE = (8, 0)


def device_named(name: object) -> torch.device:
    """Return the torch device of a name.

    Args:
        name: "cpu", "cuda" or "cuda:N"; also a `torch.device`, or the number N of a CUDA device.

    Raises:
        OptionError: another kind of device, such as "mps" or "meta".
        BackendError: there is no such device.
    """
    if isinstance(name, int) and not isinstance(name, bool):
        name = f"cuda:{name}"
    given = str(name) if isinstance(name, torch.device) else name
    if not isinstance(given, str) or not re.fullmatch("cpu|cuda(:[0-9]{1,4})?", given):
        raise OptionError(f"device {given!r}: expected cpu, cuda or cuda:N; layertap runs on no other devices")
    kind, _, index = given.partition(":")
    if kind == "cuda":
        _require_cuda(given, int(index or 0))
    return torch.device(given)


def _require_cuda(name: str, index: int) -> None:
    if torch.version.cuda is None and getattr(torch.version, "hip", None) is None:
        raise BackendError(
            f"device {name!r}: the installed torch {torch.__version__} is built without CUDA; install a CUDA build of "
            "torch, or use device='cpu'"
        )
    if not torch.cuda.is_available():
        raise BackendError(
            f"device {name!r}: torch sees no CUDA device here; see whether `nvidia-smi` lists one, or use device='cpu'"
        )
    count = torch.cuda.device_count()
    if index >= count:
        have = "cuda:0 only" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        raise BackendError(f"device {name!r}: this machine has {have}")


def dtype_on(precision: str, device: torch.device) -> torch.dtype:
    """Return the dtype of weights and hidden states in a precision.

    Raises:
        OptionError: the backend does not have the precision on this device.
    """
    if precision not in PRECISIONS:
        raise OptionError(f"precision {precision!r}: expected one of {', '.join(PRECISIONS)}")
    kind = kind_of(device)
    allowed = row_of("torch", kind).precisions
    if precision not in allowed:
        raise OptionError(
            f"precision {precision!r} needs a CUDA device; torch has {' and '.join(allowed)} on a processor"
        )
    if kind == "cuda" and precision in NEEDS_AMPERE and capability_of(device) < AMPERE:
        major, minor = capability_of(device)
        raise OptionError(
            f"precision {precision!r}: {device} has compute capability {major}.{minor}, and {NEEDS_AMPERE[precision]} "
            "needs 8.0 or later; use float16 or float32"
        )
    return PRECISIONS[precision]


def kind_of(device: torch.device) -> Literal["cpu", "cuda"]:
    """Return the kind of a device; every decision for CUDA asks this function."""
    return "cuda" if device.type == "cuda" else "cpu"


def capability_of(device: torch.device) -> tuple[int, int]:
    """Return the compute capability of a CUDA device."""
    return torch.cuda.get_device_capability(device)


def upload(values: Any, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Copy numbers from the processor to a device, without waiting for the copy; on a processor they may be shared."""
    tensor = torch.as_tensor(values, dtype=dtype)
    if kind_of(device) == "cpu":
        return tensor
    if torch.cuda.is_available():
        tensor = tensor.pin_memory()  # a copy from other memory waits for everything that runs on the device
    return tensor.to(device, non_blocking=True)


def memory_in_words(device: torch.device) -> str:
    """Describe how much memory of a CUDA device is in use, by all processes."""
    free, total = torch.cuda.mem_get_info(device)
    return f"{(total - free) / 2**30:.1f} of {total / 2**30:.1f} GiB in use"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of torch says that the memory of a device does not suffice."""
    return isinstance(error, torch.OutOfMemoryError) or "CUBLAS_STATUS_ALLOC_FAILED" in str(error)
