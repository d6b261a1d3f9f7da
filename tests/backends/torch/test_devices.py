"""Names of devices, precisions that a device lacks, and memory that runs out: in words."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from layertap.backends.base import OutOfMemoryError  # noqa: E402 - needs torch
from layertap.backends.torch import backend as backend_module  # noqa: E402
from layertap.backends.torch import devices  # noqa: E402
from layertap.backends.torch.devices import device_named, dtype_on  # noqa: E402
from layertap.errors import BackendError, OptionError  # noqa: E402
from layertap.features.program import Capture, Program  # noqa: E402
from tests.backends.cuda_on_cpu import cuda_kernels_on_cpu  # noqa: E402

CUDA = torch.device("cuda", 0)


def machine(monkeypatch, *, build: str | None = "13.0", count: int = 0, capability: tuple[int, int] = (9, 0)) -> None:
    monkeypatch.setattr(torch.version, "cuda", build)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(devices, "capability_of", lambda _: capability)


@pytest.mark.parametrize(
    ("name", "device"),
    [("cpu", "cpu"), ("cuda", "cuda"), ("cuda:1", "cuda:1"), (0, "cuda:0"), (torch.device("cuda", 1), "cuda:1")],
)
def test_names_of_devices(monkeypatch, name, device):
    machine(monkeypatch, count=2)
    assert device_named(name) == torch.device(device)


@pytest.mark.parametrize("name", ["mps", "meta", "xpu:0", "gpu", "", "cuda:x", "cuda:-1", None, 1.0, True, b"cpu"])
def test_other_devices_are_refused(monkeypatch, name):
    machine(monkeypatch, count=2)
    with pytest.raises(OptionError, match="expected cpu, cuda or cuda:N; layertap runs on no other devices"):
        device_named(name)


@pytest.mark.parametrize(
    ("options", "name", "match"),
    [
        ({"build": None}, "cuda", r"the installed torch .* is built without CUDA; install a CUDA build"),
        ({}, "cuda:1", r"torch sees no CUDA device here; see whether `nvidia-smi` lists one"),
        ({"count": 1}, "cuda:1", "this machine has cuda:0 only"),
        ({"count": 4}, 7, "device 'cuda:7': this machine has cuda:0 to cuda:3"),
    ],
)
def test_devices_that_are_not_there_are_refused(monkeypatch, options, name, match):
    machine(monkeypatch, **options)
    monkeypatch.setattr(torch.version, "hip", None)
    with pytest.raises(BackendError, match=match):
        device_named(name)


@pytest.mark.parametrize(("precision", "arithmetic"), [("bfloat16", "bfloat16"), ("float32-high", "TF32")])
def test_a_device_too_old_for_a_precision(monkeypatch, precision, arithmetic):
    machine(monkeypatch, count=1, capability=(7, 5))
    with pytest.raises(OptionError, match=f"compute capability 7.5, and {arithmetic} needs 8.0 or later; use float16"):
        dtype_on(precision, CUDA)
    assert dtype_on("float16", CUDA) == torch.float16
    machine(monkeypatch, count=1, capability=(8, 0))
    assert dtype_on(precision, CUDA) in (torch.bfloat16, torch.float32)


@pytest.mark.parametrize("kind", ["allocator", "cublas"])
def test_memory_that_runs_out_is_told_in_words_and_given_back(monkeypatch, make_model, kind):
    model = make_model()
    batch = model.pack(model.random_sequences([5, 7]))
    emptied = []
    error = (
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        if kind == "allocator"
        else RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
    )

    def full(*_args, **_options):
        raise error

    with cuda_kernels_on_cpu(monkeypatch):
        backend = model.backend()
        monkeypatch.setattr(backend_module, "run_layers", full)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (2**30, 80 * 2**30))
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(1))
        program = Program(captures=(Capture(layers=(1,)),), stop=1)
        with pytest.raises(OutOfMemoryError, match=r"ran out of memory with a batch of 12 tokens \(79.0 of 80.0 GiB"):
            backend.run(program, batch, {})
        error = RuntimeError("something else")
        with pytest.raises(RuntimeError, match="something else"):
            backend.run(program, batch, {})
    assert emptied == [1]
