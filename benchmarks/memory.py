"""Measure the peak memory of each row in a fresh process that loads it and runs the workload once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.peers import Row, Settings
from benchmarks.worker import RowFailedError, Worker, prepare_all
from benchmarks.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryTable:
    """Peak resident bytes of each row, and the rows that do not run on this machine with the reason."""

    workload: Workload
    peak_bytes: dict[str, int]
    failed: dict[str, str]


def measure_memory(
    rows: Sequence[Row], workload: Workload, settings: Settings, *, say: Callable[[str], None]
) -> MemoryTable:
    """Measure each row in its default variant, one process after the other."""
    failed = prepare_all(rows, settings, say)
    peak_bytes: dict[str, int] = {}
    for row in rows:
        if row.name in failed:
            continue
        say(f"memory: {row.name}")
        with Worker(row, settings) as worker:
            try:
                peak_bytes[row.name] = worker.peak_memory(workload)
            except RowFailedError as error:
                failed[row.name] = str(error)
    return MemoryTable(workload=workload, peak_bytes=peak_bytes, failed=failed)
