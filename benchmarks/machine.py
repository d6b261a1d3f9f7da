"""Describe the machine and the versions of libraries, on which all figures depend."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

# instruction sets for which there are kernels of matrix products
_FLAGS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "avx_vnni",
    "amx_tile",
    "amx_bf16",
    "amx_int8",
)
_DISTRIBUTIONS = (
    "torch",
    "transformers",
    "sentence-transformers",
    "onnxruntime",
    "onnx",
    "openvino",
    "nncf",
    "ctranslate2",
    "tokenizers",
    "numpy",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A machine: processor by the system's name, usable cores, memory, instruction sets and system."""

    processor: str
    cores: int
    memory_bytes: int
    flags: tuple[str, ...]
    system: str

    @property
    def slug(self) -> str:
        """Name of the machine for files: processor, widest instruction set and cores."""
        widest = "amx" if "amx_tile" in self.flags else "avx512" if "avx512f" in self.flags else "avx2"
        name = re.sub(r"\W+", "-", self.processor.split("(")[0].lower()).strip("-")
        return f"{name}-{widest}-{self.cores}-cores"


def read_machine() -> Machine:
    """Read the facts about this machine."""
    facts = _read_cpuinfo()
    model = facts.get("model name", platform.processor() or platform.machine())
    numbers = [f"{key} {facts[key]}" for key in ("cpu family", "model", "stepping") if key in facts]
    flags = facts.get("flags", "").split()
    return Machine(
        processor=f"{model} ({', '.join(numbers)})" if numbers else model,
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        flags=tuple(flag for flag in _FLAGS if flag in flags),
        system=f"{platform.system()} {platform.release().split('-')[0]}, Python {platform.python_version()}",
    )


def read_versions() -> dict[str, str]:
    """Read the versions of layertap and of the other libraries of the benchmark; absent ones are left out."""
    import layertap

    versions = {"layertap": f"{layertap.__version__}{_commit()}"}
    for name in _DISTRIBUTIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _commit() -> str:
    """Describe the commit of this checkout and whether files differ from it; empty if git does not know."""
    root = Path(__file__).parents[1]
    command = ["git", "-C", str(root), "describe", "--always", "--exclude", "*", "--dirty=, changed since"]
    try:
        described = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f" (commit {described})"


def _read_cpuinfo() -> dict[str, str]:
    """Read the fields of the first processor in /proc/cpuinfo; empty if there is no such file."""
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return {}
    first = path.read_text("utf-8").split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
