"""Runners: who computes the shards of a folder, with events about the progress, and the runner of this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from layertap.data.folder import PlannedShard, ShardRecord
from layertap.jobs.folder.shard import ShardWorker


@dataclass(frozen=True, slots=True, kw_only=True)
class TextsComputed:
    """A worker has computed a packed batch.

    Attributes:
        worker: name of the worker.
        records: records that the batch has finished.
        tokens: tokens that it ran.
    """

    worker: str
    records: int
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardFinished:
    """A shard and its record are written.

    Attributes:
        worker: name of the worker.
        record: the record.
        seconds: time that the worker took.
    """

    worker: str
    record: ShardRecord
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardFailed:
    """A worker could not finish a shard, which is tried again or given up.

    Attributes:
        worker: name of the worker.
        shard: number of the shard.
        attempt: number of attempts so far.
        reason: why it failed.
        is_final: whether the shard is given up.
    """

    worker: str
    shard: int
    attempt: int
    reason: str
    is_final: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkersAlive:
    """The number of workers has changed.

    Attributes:
        count: number of workers that are at work.
    """

    count: int


Event: TypeAlias = TextsComputed | ShardFinished | ShardFailed | WorkersAlive
Report: TypeAlias = Callable[[Event], None]
"""Callback that a runner calls with every event, in the thread that called `run`."""


class Runner(Protocol):
    """Interface of runners; one is made for each run."""

    def run(self, shards: Sequence[PlannedShard], report: Report) -> None:
        """Compute shards, and write each of them with its record.

        A shard that has a record already when its turn comes need not be computed again. When the method returns, each
        shard has its record, or a `ShardFailed` that is final has been reported.

        Args:
            shards: shards of the plan without a record, in the order of the plan.
            report: function to call with every event.

        Raises:
            LayertapError: the run cannot go on; what is finished stays.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class InProcess:
    """Runner that computes all shards in this process, one after the other.

    Attributes:
        worker: what computes a shard.
        name: name of the worker in events.
    """

    worker: ShardWorker
    name: str = "0"

    def run(self, shards: Sequence[PlannedShard], report: Report) -> None:
        """Compute shards in their order; the first error ends the run."""
        report(WorkersAlive(count=1))

        def count(records: int, tokens: int) -> None:
            report(TextsComputed(worker=self.name, records=records, tokens=tokens))

        for shard in shards:
            started = time.perf_counter()
            record = self.worker.compute(shard, on_progress=count)
            report(ShardFinished(worker=self.name, record=record, seconds=time.perf_counter() - started))
