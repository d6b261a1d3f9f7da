"""What torch has here."""

from __future__ import annotations

import torch

from layertap.backends.here import BackendFacts


def facts() -> BackendFacts:
    """The version and devices of torch on this machine."""
    devices = {"cpu": "the processor"}
    devices |= {f"cuda:{i}": torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
    return BackendFacts(
        name="torch",
        version=torch.__version__,
        devices=devices,
        instruction_sets=(torch.backends.cpu.get_cpu_capability(),),
        precisions=("float32", "bfloat16"),
        threads=torch.get_num_threads(),
    )


def set_num_threads(number: int) -> None:
    """Sets the threads of torch's operations, process-wide."""
    torch.set_num_threads(number)
