"""Measure the processor's peak, the limit if only matrix products took time."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_SOURCE = Path(__file__).with_name("peak.cpp")
_SECONDS = 0.15


class LimitUnknownError(Exception):
    """Raised when the peak cannot be measured on this machine; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """Operations per second of the widest multiply-add instruction, on all threads together."""

    instruction: str
    operations_per_second: float


def build_peak_program(cache: Path, *, flags: Sequence[str] = ("-march=native",)) -> Path:
    """Compile the register-only loops for all instructions of this processor, or for those that `flags` allow."""
    program = cache / "peak"
    command = ["g++", "-O3", *flags, "-std=c++17", "-pthread", str(_SOURCE), "-o", str(program)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise LimitUnknownError("no C++ compiler (g++) to build its loop with") from error
    except subprocess.CalledProcessError as error:
        raise LimitUnknownError(f"its loop does not build here: {error.stderr.strip()[:200]}") from error
    return program


def measure_peaks(program: Path, threads: int, *, seconds: float = _SECONDS) -> dict[str, Peak]:
    """Measure the peak of each precision that the processor multiplies in."""
    command = [str(program), str(threads), str(seconds)]
    try:
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except subprocess.CalledProcessError as error:
        raise LimitUnknownError(f"its loop does not run here (exit code {error.returncode})") from error
    peaks: dict[str, Peak] = {}
    for line in printed.splitlines():
        precision, instruction, rate = line.split("\t")
        peaks[precision] = Peak(instruction=instruction, operations_per_second=float(rate))
    return peaks
