"""Batcher: texts of all requests, run together by one engine thread.

Texts are queued singly. A run takes texts from requests in turn, oldest request first, so that a large request never
holds up the others; only texts of equal plans share a run. A run takes what is there, up to a budget of tokens: nothing
waits for company while the engine is idle.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from layertap.engine.pipeline import Pipeline
from layertap.engine.preparing import PreparedText
from layertap.engine.results import ChunkResults
from layertap.records import Array, AttentionMaps, Feature, Ragged


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlannedRun:
    """A plan with its options, ready to run texts. Requests that ask for the same share one object.

    Attributes:
        pipeline: plan, tokenizer and backend.
        blocks: blocks that the plan runs for a text, summed over its programs; at least 1.
    """

    pipeline: Pipeline
    blocks: int

    def cost(self, text: PreparedText) -> float:
        """Return the cost of a text: its tokens times the blocks that run."""
        return float(text.num_tokens * self.blocks)


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """Texts of one request that one plan runs.

    Attributes:
        run: the plan.
        size: number of texts.
        waiting: texts in the queue, each with its position in the request.
        results: results of the texts that are computed.
        left: number of texts without results.
        on_done: function called once, by the engine thread, with the job when it is finished or has failed.
        on_cost: function called by the engine thread with the cost of texts that left the queue.
        error: why the job failed, or None.
        queued: clock time at which the texts were queued.
        started: clock time at which the first text began to run, or None.
        finished: clock time at which the job was finished.
        running: seconds of the runs that had texts of the job.
    """

    run: PlannedRun
    size: int
    waiting: deque[tuple[int, PreparedText]]
    results: ChunkResults
    left: int
    on_done: Callable[[Job], None]
    on_cost: Callable[[float], None]
    error: BaseException | None = None
    queued: float = field(default_factory=time.perf_counter)
    started: float | None = None
    finished: float = 0.0
    running: float = 0.0

    @classmethod
    def of(
        cls,
        run: PlannedRun,
        texts: Sequence[PreparedText],
        on_done: Callable[[Job], None],
        on_cost: Callable[[float], None],
    ) -> Job:
        """Return a job for prepared texts, at least one."""
        return cls(
            run=run,
            size=len(texts),
            waiting=deque(enumerate(texts)),
            results=ChunkResults(len(texts), run.pipeline.schemas),
            left=len(texts),
            on_done=on_done,
            on_cost=on_cost,
        )

    def fail(self, error: BaseException) -> None:
        """End the job with an error; texts that still wait are dropped."""
        if self.error is None and self.left:
            self.error = error
            self.waiting.clear()
            self.finish()

    def finish(self) -> None:
        """Tell the request that the job has ended."""
        self.left = 0
        self.finished = time.perf_counter()
        self.on_done(self)


RunCallback = Callable[[int, int, float, float], None]
"""Callback after a run, on the engine thread: its texts, tokens, cost and seconds."""


class Batcher:
    """Queue of jobs and the thread that runs them.

    Args:
        run_tokens: tokens of a run; a single longer text is a run of its own.
        on_run: function called after every run.
    """

    def __init__(self, run_tokens: int, on_run: RunCallback | None = None) -> None:
        self._run_tokens = run_tokens
        self._on_run = on_run
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="layertap-engine", daemon=True)

    def start(self) -> None:
        """Start the engine thread."""
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queue the texts of a job."""
        with self._changed:
            assert not self._closed
            self._jobs.append(job)
            self._changed.notify()

    def cancel(self, job: Job) -> None:
        """Drop the texts of a job that still wait; its request is gone and is told nothing."""
        with self._changed:
            job.waiting.clear()
            job.left = 0
            if job in self._jobs:
                self._jobs.remove(job)

    def close(self) -> None:
        """Stop the engine thread after the run under way; jobs in the queue are dropped."""
        with self._changed:
            self._closed = True
            self._jobs.clear()
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._jobs and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                taken = self._take()
            if taken:
                self._run(taken)

    def _take(self) -> list[tuple[Job, int, PreparedText]]:
        """Take texts for a run from the queue, one text per request and turn."""
        run = self._jobs[0].run
        turn = deque(job for job in self._jobs if job.run is run)
        taken: list[tuple[Job, int, PreparedText]] = []
        served: dict[int, Job] = {}
        tokens = 0
        while turn:
            job = turn.popleft()
            if not job.waiting:
                served[id(job)] = job
                continue
            length = job.waiting[0][1].num_tokens
            if taken and tokens + length > self._run_tokens:
                break
            index, text = job.waiting.popleft()
            taken.append((job, index, text))
            served[id(job)] = job
            tokens += length
            turn.append(job)
        # Requests that had a turn go to the end of the line, and those that have nothing left leave it.
        rest = [job for job in self._jobs if id(job) not in served]
        self._jobs = deque([*rest, *(job for job in served.values() if job.waiting)])
        return taken

    def _run(self, taken: list[tuple[Job, int, PreparedText]]) -> None:
        """Run texts together; if that fails, those of each request by themselves, so that an error stays with one."""
        by_job: dict[int, list[tuple[Job, int, PreparedText]]] = {}
        for item in taken:
            by_job.setdefault(id(item[0]), []).append(item)
        groups = list(by_job.values())
        # The texts of a request lie next to each other, so that its results are slices.
        ordered = [item for group in groups for item in group]
        try:
            self._run_together(ordered, groups)
        except BaseException as error:
            if len(groups) == 1:
                self._end(groups[0], error)
                return
            for group in groups:
                try:
                    self._run_together(group, [group])
                except BaseException as own:
                    self._end(group, own)

    def _end(self, group: list[tuple[Job, int, PreparedText]], error: BaseException) -> None:
        job = group[0][0]
        job.on_cost(
            sum(job.run.cost(text) for _, _, text in group) + sum(job.run.cost(text) for _, text in job.waiting)
        )
        job.fail(error)
        with self._changed:
            if job in self._jobs:
                self._jobs.remove(job)

    def _run_together(
        self,
        taken: list[tuple[Job, int, PreparedText]],
        groups: list[list[tuple[Job, int, PreparedText]]],
    ) -> None:
        run = taken[0][0].run
        begun = time.perf_counter()
        batch = run.pipeline.run_chunk([text for _, _, text in taken])
        seconds = time.perf_counter() - begun
        begin = 0
        cost, tokens = 0.0, 0
        for group in groups:
            job, end = group[0][0], begin + len(group)
            indices = np.array([index for _, index, _ in group], dtype=np.int64)
            for name, feature in batch.features.items():
                values, counts = rows_of(feature, begin, end)
                job.results.put({name: values}, indices, counts)
            own_cost = sum(run.cost(text) for _, _, text in group)
            cost += own_cost
            tokens += sum(text.num_tokens for _, _, text in group)
            job.started = begun if job.started is None else job.started
            job.running += seconds
            job.on_cost(own_cost)
            job.left -= len(group)
            if job.left == 0:
                job.finish()
            begin = end
        if self._on_run is not None:
            self._on_run(len(taken), tokens, cost, seconds)


def rows_of(feature: Feature, begin: int, end: int) -> tuple[Array, Array | None]:
    """Return a copy of the values of records `begin:end`, and how many each record has, or None for dense arrays."""
    if isinstance(feature, Ragged | AttentionMaps):
        offsets = feature.offsets
        return feature.values[offsets[begin] : offsets[end]].copy(), np.diff(offsets[begin : end + 1])
    return feature[begin:end].copy(), None
