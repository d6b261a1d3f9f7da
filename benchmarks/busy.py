"""Measure how much of the processor other processes used, to tell a quiet run from a noisy one."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

_STAT = Path("/proc/stat")


class OthersMeter:
    """Counter of processor time, from construction on, that neither this process nor ``pids`` used."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = tuple(pids)
        self._ticks_per_second = os.sysconf("SC_CLK_TCK")
        self._start = time.perf_counter()
        self._busy = self._busy_seconds()
        self._own = self._own_seconds()

    def share(self) -> float | None:
        """Return the share of all cores that other processes used since the start; None if the system does not tell."""
        if not _STAT.is_file():
            return None
        others = (self._busy_seconds() - self._busy) - (self._own_seconds() - self._own)
        available = (time.perf_counter() - self._start) * (os.cpu_count() or 1)
        return min(1.0, max(0.0, others / available))

    def _busy_seconds(self) -> float:
        if not _STAT.is_file():
            return 0.0
        # user nice system idle iowait irq softirq steal: steal is time that the host gave to somebody else
        fields = [int(field) for field in _STAT.read_text("ascii").splitlines()[0].split()[1:9]]
        return (sum(fields) - fields[3] - fields[4]) / self._ticks_per_second

    def _own_seconds(self) -> float:
        times = os.times()
        seconds = times.user + times.system + times.children_user + times.children_system
        return seconds + sum(self._seconds_of(pid) for pid in self._pids)

    def _seconds_of(self, pid: int) -> float:
        try:
            text = Path(f"/proc/{pid}/stat").read_text("ascii", errors="replace")
        except OSError:
            return 0.0
        # fields after the name, which may contain blanks: state is field 3, utime field 14, stime field 15
        fields = text.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / self._ticks_per_second
