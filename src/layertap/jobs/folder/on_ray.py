"""Runner on a Ray cluster: actors hold the model, and what crosses the cluster are numbers of shards and records."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

from layertap.data.folder import PlannedShard
from layertap.errors import BackendError, LayertapError, OptionError, one_line
from layertap.jobs.folder.attempts import STALL_SECONDS, Attempt, AttemptQueue
from layertap.jobs.folder.pool_worker import Refused, sendable
from layertap.jobs.folder.runner import Report, ShardFailed, ShardFinished, TextsComputed, WorkersAlive
from layertap.jobs.folder.task import FolderTask
from layertap.words import counted

ANSWER_SECONDS = 10.0
"""Seconds that an address has to answer in."""

START_SECONDS = 300.0
"""Seconds that the cluster has to start the first worker in."""

LOOK_SECONDS = 0.5
COUNT_SECONDS = 1.0
MOST_FAILED_STARTS = 3


def check_ray(address: str) -> str:
    """Return an address of a Ray cluster, or refuse it.

    Raises:
        OptionError: it is empty.
        BackendError: Ray is not installed.
    """
    if not address.strip():
        raise OptionError("--ray wants auto (the cluster of this machine), local (a new one), or an address host:port")
    if find_spec("ray") is None:
        raise BackendError("--ray needs Ray: pip install 'layertap[ray]'")
    return address


@contextlib.contextmanager
def connected(address: str) -> Iterator[Any]:
    """Connect to a Ray cluster, and disconnect at the end; yields the module `ray`.

    Args:
        address: "auto" for the cluster that runs on this machine, "local" for one of its own, or `host:port`.

    Raises:
        BackendError: Ray is not installed, or no cluster answers.
    """
    check_ray(address)
    import ray

    if ray.is_initialized():
        yield ray  # in a program, or a job, that has connected already
        return
    if address not in ("auto", "local"):
        _check_answers(address)
    quiet: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
    with_path = {"env_vars": {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}}
    try:
        if address == "local":
            ray.init(address="local", include_dashboard=False, runtime_env=with_path, **quiet)
        else:
            ray.init(address=address, runtime_env=with_path, **quiet)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise BackendError(f"--ray {address}: no Ray cluster answers ({one_line(error, 200)})") from None
    try:
        yield ray
    finally:
        ray.shutdown()


@dataclass(frozen=True, slots=True, kw_only=True)
class RayActors:
    """Runner whose workers are actors of a Ray cluster; each opens the model.

    Nodes may come and go. A shard whose actor is lost is tried again with half the token budget, up to three times;
    then it is reported as failed, and the others go on.

    Attributes:
        task: the work.
        address: "auto", "local" or an address; see `connected`.
        workers: number of actors, or None for as many as the cluster has room for.
        threads: threads (CPUs) of each actor, or None for all CPUs of the smallest node.
        stall_seconds: seconds without progress after which an actor counts as hung.
    """

    task: FolderTask
    address: str
    workers: int | None = None
    threads: int | None = None
    stall_seconds: float = STALL_SECONDS

    def run(self, shards: Sequence[PlannedShard], report: Report) -> None:
        """Compute shards; those that cannot be computed are reported as failed.

        Raises:
            LayertapError: an error that every worker would meet, such as a row that cannot be read.
            BackendError: no cluster answers, or no worker can be started.
        """
        with connected(self.address) as ray:
            supervisor = _Supervisor(self, ray, shards, report)
            try:
                supervisor.run()
            finally:
                supervisor.stop()

    def size(self, ray: Any) -> tuple[int, int, int]:
        """Return the number of actors, and the CPUs and GPUs of each."""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus = int(self.task.runtime.device.startswith("cuda"))
        usable = [node for node in nodes if node.get("CPU", 0) >= 1 and node.get("GPU", 0) >= gpus]
        if not usable:
            wanted = "a GPU" if gpus else "a CPU"
            raise BackendError(f"--ray {self.address}: no node of the cluster has {wanted} for a worker")
        threads = self.threads or max(1, int(min(node["CPU"] / max(1, node.get("GPU", 0) * gpus) for node in usable)))
        room = sum(min(int(node["CPU"] // threads), int(node.get("GPU", 0)) if gpus else 1 << 20) for node in usable)
        if not room:
            raise BackendError(
                f"--ray {self.address}: no node of the cluster has {counted(threads, 'CPU')}; lower --threads"
            )
        return min(room, self.workers or room), threads, gpus


class ShardActor:
    """Actor of a Ray cluster: a worker whose progress can be asked for while it computes."""

    def __init__(self, task: FolderTask) -> None:
        self._task = task
        self._worker: Any = None
        self._counts = [0, 0]

    def open(self) -> Refused | None:
        """Open the model; return why this cannot be done, or None."""
        try:
            self._worker = self._task.open()
        except LayertapError as error:
            return Refused(error=sendable(error))
        return None

    def compute(self, shard: int, halvings: int) -> Any:
        """Compute a shard; return its record and the seconds it took, or `Refused`."""
        started = time.perf_counter()
        try:
            planned = self._worker.plan.shards[shard]
            record = self._worker.compute(planned, halvings=halvings, on_progress=self._count)
        except LayertapError as error:
            return Refused(error=sendable(error))
        return record, time.perf_counter() - started

    def counts(self) -> tuple[int, int]:
        """Return the records and tokens computed so far."""
        return self._counts[0], self._counts[1]

    def _count(self, records: int, tokens: int) -> None:
        self._counts[0] += records
        self._counts[1] += tokens


@dataclass(slots=True, kw_only=True, eq=False)
class _Actor:
    index: int
    handle: Any
    pending: Any  # reference to the result of `open`, then of `compute`
    attempt: Attempt | None = None
    is_ready: bool = False
    asked: Any = None  # reference to the result of `counts`
    counts: tuple[int, int] = (0, 0)
    heard: float = 0.0


class _Supervisor:
    def __init__(self, runner: RayActors, ray: Any, shards: Sequence[PlannedShard], report: Report) -> None:
        self._runner = runner
        self._ray = ray
        self._queue = AttemptQueue(shards)
        self._report = report
        self._actors: list[_Actor] = []
        self._failed_starts = 0
        self._make: Callable[[], Any] = lambda: None
        self._started = time.monotonic()
        self._was_ready = False

    def run(self) -> None:
        count, threads, gpus = self._runner.size(self._ray)
        runtime = replace(self._runner.task.runtime, threads=threads)
        task = replace(self._runner.task, runtime=runtime)
        # `counts` answers while `compute` runs; a lost actor is replaced here, where its shard is known
        options = {"num_cpus": threads, "num_gpus": gpus, "max_restarts": 0, "max_concurrency": 2}
        actor: Any = self._ray.remote(ShardActor)
        self._make = lambda: actor.options(**options).remote(task)
        for index in range(min(count, len(self._queue))):
            self._start(index)
        while self._actors:
            self._look()

    def stop(self) -> None:
        for actor in self._actors:
            with contextlib.suppress(Exception):
                self._ray.kill(actor.handle)

    def _start(self, index: int) -> None:
        handle = self._make()
        self._actors.append(_Actor(index=index, handle=handle, pending=handle.open.remote(), heard=time.monotonic()))

    def _look(self) -> None:
        by_reference = {actor.pending: actor for actor in self._actors}
        by_reference |= {actor.asked: actor for actor in self._actors if actor.asked is not None}
        ready, _ = self._ray.wait(list(by_reference), num_returns=1, timeout=LOOK_SECONDS)
        for reference in ready:
            actor = by_reference[reference]
            if actor in self._actors:
                self._hear(actor, reference)
        now = time.monotonic()
        for actor in list(self._actors):
            if actor.is_ready and now - actor.heard >= self._runner.stall_seconds:
                self._lose(actor, f"no progress for {self._runner.stall_seconds:,.0f} s")
            elif actor.is_ready and actor.asked is None and now - actor.heard >= COUNT_SECONDS:
                actor.asked = actor.handle.counts.remote()
        if not self._was_ready and now - self._started >= START_SECONDS:
            raise BackendError(
                f"--ray {self._runner.address}: the cluster has started no worker within {START_SECONDS:,.0f} s; is "
                "there room for one?"
            )

    def _hear(self, actor: _Actor, reference: Any) -> None:
        try:
            result = self._ray.get(reference)
        except (self._ray.exceptions.RayError, OSError) as error:
            self._lose(actor, _reason(error))
            return
        if reference is actor.asked:
            actor.asked = None
            if result != actor.counts:
                records, tokens = (new - old for new, old in zip(result, actor.counts, strict=True))
                actor.counts, actor.heard = result, time.monotonic()
                self._report(TextsComputed(worker=str(actor.index), records=records, tokens=tokens))
            return
        actor.heard = time.monotonic()
        if isinstance(result, Refused):
            raise result.error
        if actor.attempt is not None:
            record, seconds = result
            actor.attempt = None
            self._report(ShardFinished(worker=str(actor.index), record=record, seconds=seconds))
        else:
            actor.is_ready, self._was_ready, self._failed_starts = True, True, 0
            self._report_workers()
        self._give_work(actor)

    def _give_work(self, actor: _Actor) -> None:
        attempt = self._queue.next()
        if attempt is None:
            self._actors.remove(actor)
            self._ray.kill(actor.handle)
            self._report_workers()
            return
        actor.attempt = attempt
        actor.pending = actor.handle.compute.remote(attempt.shard.number, attempt.halvings)

    def _lose(self, actor: _Actor, reason: str) -> None:
        """Go on without an actor: its shard is tried again or given up, and another actor takes its place."""
        self._actors.remove(actor)
        with contextlib.suppress(Exception):
            self._ray.kill(actor.handle)
        if not actor.is_ready:
            self._failed_starts += 1
            if self._failed_starts >= MOST_FAILED_STARTS and not any(other.is_ready for other in self._actors):
                raise BackendError(f"--ray {self._runner.address}: no worker could open the model: {reason}")
        if actor.attempt is not None:
            attempt = actor.attempt
            self._report(
                ShardFailed(
                    worker=str(actor.index),
                    shard=attempt.shard.number,
                    attempt=attempt.number,
                    reason=reason,
                    is_final=attempt.is_last,
                )
            )
            if not attempt.is_last:
                self._queue.again(attempt)
        if len(self._queue) > 0:
            self._start(actor.index)
        self._report_workers()

    def _report_workers(self) -> None:
        self._report(WorkersAlive(count=sum(actor.is_ready for actor in self._actors)))


def _reason(error: Exception) -> str:
    return f"the actor is lost: {one_line(str(error).splitlines()[0] if str(error) else type(error).__name__, 200)}"


def _check_answers(address: str) -> None:
    """Refuse an address that nothing listens at; Ray itself would try for minutes.

    Raises:
        OptionError: it is no address.
        BackendError: nothing answers in `ANSWER_SECONDS`.
    """
    match = re.fullmatch(r"(?:ray://)?(\[[0-9a-fA-F:]+\]|[^:/\s]+):([0-9]{1,5})", address)
    if match is None:
        raise OptionError(f"--ray {address!r}: expected auto, local, or an address such as 10.0.0.5:6379")
    host, port = match[1].strip("[]"), int(match[2])
    try:
        socket.create_connection((host, port), timeout=ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise BackendError(
            f"--ray {address}: nothing answers there within {ANSWER_SECONDS:.0f} s ({one_line(error, 120)}); is the "
            "cluster running?"
        ) from None
