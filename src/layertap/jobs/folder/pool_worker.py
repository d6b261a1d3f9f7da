"""A process of a pool: it opens the model, computes the shards that it is told, and reports to the driver.

The driver starts it as `python -c "..."` with an open socket, so that it runs no code of the driver's own script.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import sys
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from layertap.data.folder import ShardRecord
from layertap.errors import LayertapError, OutputError, one_line
from layertap.jobs.folder.task import FolderTask

SECONDS_BETWEEN_COUNTS = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Message of the driver: a shard to compute.

    Attributes:
        shard: number of the shard.
        halvings: number of times that the token budget is halved.
    """

    shard: int
    halvings: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The worker has opened the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Computed:
    """The worker is alive, and has computed texts since its last message."""

    records: int
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The shard and its record are written."""

    record: ShardRecord
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The worker cannot open the model, or compute the shard, for a reason that another worker would meet, too."""

    error: LayertapError


def main() -> None:
    """Serve the driver until it closes the connection."""
    descriptor, driver = map(int, sys.argv[1:3])
    _die_with(driver)
    # An interrupt from the terminal reaches all processes; the driver decides what becomes of its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(descriptor)
    try:
        serve(connection, connection.recv())
    except (EOFError, BrokenPipeError, ConnectionResetError):
        os._exit(1)  # the driver is gone


def serve(connection: Any, task: FolderTask) -> None:
    """Open the model of a task, and compute the shards that come over a connection.

    Args:
        connection: connection to the driver.
        task: the work.
    """
    try:
        with task.open() as worker:
            connection.send(Ready())
            while True:
                order = connection.recv()
                if order is None:
                    return
                counts = _Counts(connection)
                started = time.perf_counter()
                record = worker.compute(
                    worker.plan.shards[order.shard], halvings=order.halvings, on_progress=counts.add
                )
                connection.send(Finished(record=record, seconds=time.perf_counter() - started))
    except LayertapError as error:
        connection.send(Refused(error=sendable(error)))


def sendable(error: LayertapError) -> LayertapError:
    """Return an error that survives the way to another process: itself if it can be pickled, else its message."""
    notes = getattr(error, "__notes__", [])
    try:
        copy = pickle.loads(pickle.dumps(error))
        is_same = type(copy) is type(error) and str(copy) == str(error)
    except Exception:
        is_same = False
    plain = error if is_same else OutputError(one_line(error))
    plain.__notes__ = list(notes)
    plain.__cause__ = plain.__context__ = None
    return plain.with_traceback(None)


class _Counts:
    """Counts of computed texts, which are sent now and then."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._records = self._tokens = 0
        self._sent = time.perf_counter()

    def add(self, records: int, tokens: int) -> None:
        self._records += records
        self._tokens += tokens
        if time.perf_counter() - self._sent >= SECONDS_BETWEEN_COUNTS:
            self._connection.send(Computed(records=self._records, tokens=self._tokens))
            self._records = self._tokens = 0
            self._sent = time.perf_counter()


def _die_with(driver: int) -> None:
    """Ask the kernel to kill this process when the driver dies (Linux); elsewhere, a closed connection ends it."""
    if sys.platform.startswith("linux"):
        die_with_parent = 1  # PR_SET_PDEATHSIG
        ctypes.CDLL(None, use_errno=True).prctl(die_with_parent, signal.SIGKILL)
        if os.getppid() != driver:
            os._exit(1)  # it died before the kernel was asked
