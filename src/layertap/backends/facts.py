"""Table of backends: the devices each one has, what it computes in there, and how it takes threads and memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from layertap.errors import OptionError

Precision = Literal["float32", "float32-high", "bfloat16", "float16", "int8"]
BackendName = Literal["auto", "native", "torch"]

TRAINING_PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")
"""Precisions of fine-tuning, which torch runs: those whose sums and weights stay float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendRow:
    """Properties of one backend on one kind of device.

    Attributes:
        backend: name of the backend.
        device: kind of device, "cpu" or "cuda".
        precisions: precisions that the backend has there; the native one has some of them only with certain
            instruction sets.
        batch_tokens: default token budget of a batch.
        own_threads: whether a run has threads of its own; if not, it uses those of the whole process.
        chunk_result_bytes: limit in bytes of the results that are collected before they are handed over; None: the
            engine's own.
    """

    backend: Literal["native", "torch"]
    device: Literal["cpu", "cuda"]
    precisions: tuple[Precision, ...]
    batch_tokens: int
    own_threads: bool
    chunk_result_bytes: int | None = None


ROWS: tuple[BackendRow, ...] = (
    BackendRow(
        backend="native",
        device="cpu",
        precisions=("float32", "float32-high", "bfloat16", "int8"),
        batch_tokens=16384,
        own_threads=True,
    ),
    BackendRow(backend="torch", device="cpu", precisions=("float32", "bfloat16"), batch_tokens=4096, own_threads=False),
    BackendRow(
        backend="torch",
        device="cuda",
        precisions=("float32", "float32-high", "bfloat16", "float16"),
        batch_tokens=65536,
        own_threads=False,
        chunk_result_bytes=1 << 30,
    ),
)


def row_of(backend: str, device: str) -> BackendRow:
    """Return the row of a backend on a device.

    Args:
        backend: "native" or "torch".
        device: a device, such as "cpu" or "cuda:1".

    Raises:
        OptionError: the backend does not run on this kind of device.
    """
    kind = device.partition(":")[0]
    row = next((row for row in ROWS if (row.backend, row.device) == (backend, kind)), None)
    if row is None:
        kinds = " and ".join(row.device for row in ROWS if row.backend == backend)
        raise OptionError(f"device {device!r}: the {backend} backend runs on {kinds} only")
    return row


def only_backend_with(precision: str, device: str) -> str | None:
    """Return the backend that alone has a precision, or None if several or none have it.

    Backends that have it on the kind of device count; where none has it there, those that have it on another.

    Args:
        precision: a precision.
        device: a device, such as "cpu" or "cuda:1".
    """
    kind = device.partition(":")[0]
    having = [row for row in ROWS if precision in row.precisions]
    names = {row.backend for row in having if row.device == kind} or {row.backend for row in having}
    return names.pop() if len(names) == 1 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendFacts:
    """Description of a backend that is installed on this machine.

    Attributes:
        name: name of the backend.
        version: version of the library under it, or of the compiler that built its kernels.
        devices: device name (as options take it) -> description of the device.
        instruction_sets: instruction sets that its kernels have on this processor, best first.
        precisions: precisions that it has on this processor.
        threads: processor threads that it takes unless told otherwise.
    """

    name: str
    version: str
    devices: dict[str, str]
    instruction_sets: tuple[str, ...]
    precisions: tuple[str, ...]
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendRequest:
    """How a user wants a model to be run.

    Attributes:
        backend: "native", "torch", or "auto": native where it runs the model, else torch.
        device: "cpu", "cuda" or "cuda:N".
        precision: precision of matrix products.
        threads: processor threads of a native run; None: one for each core that the process may use.
        instruction_set: instruction set of the native kernels; None: the best one that the processor has, for float32
            the best one that gives the bits of every x86-64 processor.
    """

    backend: str
    device: str
    precision: str
    threads: int | None = None
    instruction_set: str | None = None
