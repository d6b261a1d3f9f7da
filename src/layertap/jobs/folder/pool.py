"""Runner with several processes of this machine, which are supervised: one that dies or hangs never stops the run."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from typing import IO, Any

from layertap.data.folder import PlannedShard
from layertap.errors import BackendError, OptionError, one_line
from layertap.jobs.folder.attempts import STALL_SECONDS, Attempt, AttemptQueue
from layertap.jobs.folder.pool_worker import Computed, Finished, Order, Ready, Refused
from layertap.jobs.folder.runner import Report, ShardFailed, ShardFinished, TextsComputed, WorkersAlive
from layertap.jobs.folder.task import FolderTask
from layertap.words import counted

MOST_WORKERS = 1024
MOST_FAILED_STARTS = 3
"""Workers that may end one after the other before they have opened the model."""

LOOK_SECONDS = 0.5
START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[3]); from layertap.jobs.folder.pool_worker import main; main()"
)
"""Code that a process runs: with the driver's search path, it imports what the driver has imported."""


def check_workers(workers: int) -> int:
    """Return a number of workers, or refuse it.

    Raises:
        OptionError: it is not a whole number from 1 to 1,024.
    """
    if isinstance(workers, bool) or not isinstance(workers, int) or not 1 <= workers <= MOST_WORKERS:
        raise OptionError(f"workers {workers!r}: expected a whole number from 1 to {MOST_WORKERS:,}")
    return workers


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessPool:
    """Runner whose workers are processes of their own; each opens the model.

    A shard whose worker was killed, as Linux does when memory runs out, is tried again with half the token budget, up
    to three times; then it is reported as failed, and the others go on. A worker that shows no progress for
    `stall_seconds` is killed and replaced.

    Attributes:
        task: the work.
        workers: number of processes.
        threads: threads of all of them together.
        stall_seconds: seconds without progress after which a worker counts as hung.
    """

    task: FolderTask
    workers: int
    threads: int
    stall_seconds: float = STALL_SECONDS

    def run(self, shards: Sequence[PlannedShard], report: Report) -> None:
        """Compute shards; those that cannot be computed are reported as failed.

        Raises:
            LayertapError: an error that every worker would meet, such as a row that cannot be read.
            BackendError: the workers cannot be started.
        """
        supervisor = _Supervisor(self, shards, report)
        try:
            supervisor.run()
        finally:
            supervisor.stop()

    def task_of(self, index: int) -> FolderTask:
        """Return the work of one process, with its share of the threads and a device of its own."""
        share = max(1, self.threads // self.workers + (index < self.threads % self.workers))
        return replace(self.task, runtime=replace(self.task.runtime, threads=share), worker=index)


class _Supervisor:
    def __init__(self, pool: ProcessPool, shards: Sequence[PlannedShard], report: Report) -> None:
        self._pool = pool
        self._queue = AttemptQueue(shards)
        self._report = report
        self._workers: list[_Worker] = []
        self._leaving: list[_Worker] = []  # without work, and ending by themselves
        self._failed_starts = 0

    def run(self) -> None:
        for index in range(min(self._pool.workers, len(self._queue))):
            self._start(index)
        while self._workers:
            ends: dict[Any, _Worker] = {worker.connection: worker for worker in self._workers}
            for connection in wait(list(ends), timeout=LOOK_SECONDS):
                self._hear(ends[connection])
            now = time.monotonic()
            for worker in list(self._workers):
                if now - worker.heard >= self._pool.stall_seconds:
                    self._lose(worker, f"no progress for {self._pool.stall_seconds:,.0f} s")

    def stop(self) -> None:
        for worker in self._workers:
            worker.kill()
        for worker in self._leaving:
            worker.wait()
            worker.kill()

    def _start(self, index: int) -> None:
        self._workers.append(_Worker(index, self._pool.task_of(index)))
        self._report(WorkersAlive(count=len(self._workers)))

    def _hear(self, worker: _Worker) -> None:
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):
            self._lose(worker, worker.end())
            return
        worker.heard = time.monotonic()
        if isinstance(message, Refused):
            raise message.error
        if isinstance(message, Computed):
            self._report(TextsComputed(worker=worker.name, records=message.records, tokens=message.tokens))
            return
        if isinstance(message, Finished):
            worker.attempt = None
            self._report(ShardFinished(worker=worker.name, record=message.record, seconds=message.seconds))
        elif isinstance(message, Ready):
            worker.is_ready, self._failed_starts = True, 0
        self._give_work(worker)

    def _give_work(self, worker: _Worker) -> None:
        attempt = self._queue.next()
        if attempt is None:
            self._workers.remove(worker)
            self._leaving.append(worker)
            worker.dismiss()
            self._report(WorkersAlive(count=len(self._workers)))
            return
        worker.attempt = attempt
        with suppress(OSError):  # one that has died is noticed when it is heard
            worker.connection.send(Order(shard=attempt.shard.number, halvings=attempt.halvings))

    def _lose(self, worker: _Worker, reason: str) -> None:
        """Go on without a worker: its shard is tried again or given up, and another worker takes its place."""
        self._workers.remove(worker)
        worker.kill()
        if not worker.is_ready:
            self._failed_starts += 1
            if self._failed_starts >= MOST_FAILED_STARTS:
                raise BackendError(
                    f"{counted(self._failed_starts, 'worker')} ended one after the other before the model was open: "
                    f"{reason}"
                )
        if worker.attempt is not None:
            attempt = worker.attempt
            self._report(
                ShardFailed(
                    worker=worker.name,
                    shard=attempt.shard.number,
                    attempt=attempt.number,
                    reason=reason,
                    is_final=attempt.is_last,
                )
            )
            if not attempt.is_last:
                self._queue.again(attempt)
        if len(self._queue) > 0:
            self._start(worker.index)
        else:
            self._report(WorkersAlive(count=len(self._workers)))


class _Worker:
    """A process, and the connection to it."""

    def __init__(self, index: int, task: FolderTask) -> None:
        self.index = index
        self.name = str(index)
        self.attempt: Attempt | None = None
        self.is_ready = False
        self.heard = time.monotonic()
        ours, theirs = socket.socketpair()
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the worker ends
        threads = str(task.runtime.threads)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", START, str(theirs.fileno()), str(os.getpid()), json.dumps(sys.path)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                env=os.environ
                | {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": "1", "RAYON_NUM_THREADS": threads},
            )
        self.connection = Connection(ours.detach())
        with suppress(OSError):
            self.connection.send(task)

    def end(self) -> str:
        """Wait for a process that has closed its connection, and describe how it ended."""
        try:
            code = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            return "it closed its connection"
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        if code == -9:
            return "it was killed (SIGKILL), as Linux does when memory runs out"
        ended = f"it was ended by signal {-code}" if code < 0 else f"it ended with exit code {code}"
        return f"{ended}: {one_line(lines[-1])}" if lines else ended

    def dismiss(self) -> None:
        """Let the process end by itself."""
        with suppress(OSError):
            self.connection.send(None)

    def wait(self) -> None:
        """Wait some seconds for the end of a process that has been dismissed."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=10)

    def kill(self) -> None:
        """Kill the process if it is there, and wait for its end."""
        self._process.kill()
        self._process.wait()
        self.connection.close()
        self._errors.close()
