"""Description of torch on this machine."""

from __future__ import annotations

import torch

from layertap.backends.facts import BackendFacts, row_of


def facts() -> BackendFacts:
    """Describe torch on this machine: its version, devices and threads."""
    devices = {"cpu": "the processor"}
    devices |= {f"cuda:{i}": torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
    return BackendFacts(
        name="torch",
        version=torch.__version__,
        devices=devices,
        instruction_sets=(torch.backends.cpu.get_cpu_capability(),),
        precisions=row_of("torch", "cpu").precisions,
        threads=torch.get_num_threads(),
    )


def set_num_threads(number: int) -> None:
    """Set the threads of torch's operations for the whole process."""
    torch.set_num_threads(number)
