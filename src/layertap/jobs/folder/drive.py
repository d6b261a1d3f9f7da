"""Driving a run to a folder: the plan is made, resumed or grown, runners compute the shards, the manifest ends it."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from layertap.data.folder import (
    FolderFiles,
    FolderPlan,
    FolderWriter,
    PlannedShard,
    ShardRecord,
    folder_files,
    shared_folder,
)
from layertap.data.folder.contents import read_plan
from layertap.data.folder.layout import DATA, ERRORS, LOG, PLAN, RECORDS
from layertap.engine.streaming import Streams
from layertap.engine.summary import RunSummary
from layertap.errors import InputError, OutputError
from layertap.files import make_folder
from layertap.files.shared import SharedFolder, held_lock
from layertap.jobs.folder.growing import InputChanges, grow
from layertap.jobs.folder.job import FolderJob
from layertap.jobs.folder.log import AttemptLog
from layertap.jobs.folder.planning import Watch, make_plan, with_stamps
from layertap.jobs.folder.request import FolderRequest, features_of
from layertap.jobs.folder.runner import Event, Report, Runner, ShardFailed, ShardFinished
from layertap.jobs.folder.state import complete, drop_damaged, finished_shards, mark_damaged, read_marked
from layertap.words import counted

DRIVER = f"{LOG}/driver.json"
LOCK = f"{LOG}/driver.lock"

PLAN_WAIT = 3600.0
"""Seconds that an index worker waits for the plan, which worker 0 makes."""

POLL = 0.5
"""Seconds between two looks for the plan."""

Say = Callable[[str], None]
"""Function that shows a line to the user before something is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderOutcome:
    """Result of a run to a folder: counts of texts and shards.

    Attributes:
        summary: counts over all finished shards of the folder, those of earlier runs included.
        shards: number of shards of the plan.
        computed: number of shards that this run computed.
        missing: number of shards without a record, which are other workers' or failed.
        size: bytes of all finished shards.
    """

    summary: RunSummary
    shards: int
    computed: int
    missing: int
    size: int

    @property
    def is_complete(self) -> bool:
        """Whether all shards are there, and with them the manifest."""
        return not self.missing


@dataclass(slots=True, kw_only=True, eq=False)
class FolderRun:
    """A run whose plan stands: shards can be computed.

    Attributes:
        job: what is to be done.
        plan: plan of the folder.
        folder: write access to the folder.
        records: records of the shards that are finished, by number.
        pending: shards that this run has to compute, in the order of the plan.
        failed: shards that were given up, by number, with the reason.
    """

    job: FolderJob
    plan: FolderPlan
    folder: FolderWriter
    records: dict[int, ShardRecord]
    pending: tuple[PlannedShard, ...]
    failed: dict[int, str] = field(default_factory=dict)
    computed: int = 0

    def run(self, runner: Runner, report: Report | None = None) -> None:
        """Compute the pending shards.

        Args:
            runner: who computes them.
            report: function that is called with every event, or None.

        Raises:
            LayertapError: the run cannot go on; what is finished stays.
        """
        if not self.pending:
            return
        log = AttemptLog(self.folder)

        def heard(event: Event) -> None:
            if isinstance(event, ShardFinished):
                self.records[event.record.number] = event.record
                self.computed += 1
                log.finished(event)
            elif isinstance(event, ShardFailed):
                log.failed(event)
                if event.is_final:
                    self.failed[event.shard] = event.reason
            if report is not None:
                report(event)

        try:
            runner.run(self.pending, heard)
        except BaseException as error:
            error.add_note(self._standing())
            raise
        finally:
            log.close()

    def finish(self, streams: Streams) -> FolderOutcome:
        """Write the manifest if all shards are there, and return what the run has reached.

        Raises:
            OutputError: a shard was given up, or the manifest cannot be written.
        """
        files = folder_files(self.folder.root)
        others = [shard for shard in self.plan.shards if shard.number not in self.records]
        self.records.update(finished_shards(files, others).records)
        missing = len(self.plan.shards) - len(self.records)
        if not missing and complete(self.folder, self.plan, self.records):
            mark_damaged(self.folder, ())
        if self.failed:
            first = min(self.failed)
            raise OutputError(
                f"{self.job.name}: {counted(len(self.failed), 'shard')} could not be computed; shard {first}: "
                f"{self.failed[first]}. The others are finished, and the next run tries again"
            )
        summary = streams.stream([], features_of(self.plan), details=self.plan.details).summary
        for record in self.records.values():
            summary.records += record.rows
            summary.tokens += record.tokens
            summary.text_tokens += record.tokens
            summary.skipped += record.errors
            summary.add_counts(record.counts)
        return FolderOutcome(
            summary=summary,
            shards=len(self.plan.shards),
            computed=self.computed,
            missing=missing,
            size=sum(record.size for record in self.records.values()),
        )

    def _standing(self) -> str:
        done, total = len(self.records), len(self.plan.shards)
        return f"{done} of {counted(total, 'shard')} are finished and stay; run the same command again to go on"


@contextlib.contextmanager
def open_folder_run(
    job: FolderJob,
    streams: Streams,
    *,
    instruction_sets: Callable[[], tuple[str, ...]] = tuple,
    say: Say | None = None,
    watch: Watch | None = None,
) -> Iterator[FolderRun]:
    """Make the plan of a folder, or compare the run with the plan that is there, and grow it if inputs changed.

    Args:
        job: what is to be done.
        streams: what computes the results.
        instruction_sets: function that returns the instruction sets of this machine, for advice.
        say: function that shows lines to the user, before what they say is done.
        watch: function that is called while inputs are read.

    Raises:
        UsageError: the run differs from the folder's plan, or inputs of the folder are missing.
        InputError: a row that cannot be read, or more of them than allowed.
        OutputError: the folder cannot be written, or another run is writing it.
    """
    say = say or (lambda _: None)
    request = FolderRequest.of(
        streams,
        job.features,
        details=job.details,
        options=job.options,
        format=job.format,
        shard_records=job.shard_records,
    )
    files = folder_files(job.root)
    with shared_folder(job.root) as folder, contextlib.ExitStack() as stack:
        is_driver = job.part is None
        is_planner = job.part is None or job.part.index == 0
        if is_driver and files.size(PLAN) is not None:
            stack.enter_context(_only_driver(job, folder))
        plan = read_plan(files)
        if plan is None and is_planner:
            plan = make_plan(request, job.inputs, streams, job.features, watch=watch)
            _check_errors(job, plan)
            plan = _write_plan(job, folder, plan)
            if is_driver:
                stack.enter_context(_only_driver(job, folder))
        if plan is None or not is_planner:
            plan = _awaited_plan(job, files, say)
        request.refuse_differing(plan, name=job.name, instruction_sets=instruction_sets)
        folder.make(DATA, RECORDS, ERRORS, LOG)
        if is_planner:
            plan = _resumed(job, folder, plan, say, watch)
        _check_errors(job, plan)
        yield _opened(job, folder, plan, say)


def _opened(job: FolderJob, folder: FolderWriter, plan: FolderPlan, say: Say) -> FolderRun:
    files = folder_files(job.root)
    finished = finished_shards(files, plan.shards, verify=read_marked(files))
    part = job.part
    mine = [shard for shard in plan.shards if part is None or part.has(shard.number)]
    damaged = {shard.number: finished.damaged[shard.number] for shard in mine if shard.number in finished.damaged}
    for number, fault in damaged.items():
        say(f"shard {number} is damaged and is computed again: {fault}")
    drop_damaged(folder, damaged)
    pending = tuple(shard for shard in mine if shard.number not in finished.records)
    if len(pending) < len(mine):
        of = "" if part is None else f" of worker {part}"
        done = len(mine) - len(pending)
        say(f"{done:,} of {counted(len(mine), 'shard')}{of} {'is' if done == 1 else 'are'} finished already")
    return FolderRun(job=job, plan=plan, folder=folder, records=dict(finished.records), pending=pending)


def _write_plan(job: FolderJob, folder: FolderWriter, plan: FolderPlan) -> FolderPlan:
    """Write the plan of a new folder, and return the one that counts: another run may have been quicker."""
    files = folder_files(job.root)
    if isinstance(job.root, Path) and not job.root.is_dir():
        make_folder(job.root)
    if folder.write_new(PLAN, plan.to_bytes()):
        return plan
    first = read_plan(files)
    assert first is not None
    return first


def _resumed(job: FolderJob, folder: FolderWriter, plan: FolderPlan, say: Say, watch: Watch | None) -> FolderPlan:
    """Adapt the plan to inputs that have changed since it was made."""
    changes = InputChanges.between(plan, job.inputs)
    if not job.forget:
        changes.refuse_missing(job.name)
    if not changes.needs_plan:
        if changes.touched:
            plan = with_stamps(plan, job.inputs)
            folder.replace(PLAN, plan.to_bytes())
        return plan
    files = folder_files(job.root)
    grown = grow(plan, changes, finished_shards(files, plan.shards).records, watch=watch)
    _check_errors(job, grown.plan)
    for line in grown.words:
        say(line)
    folder.replace(PLAN, grown.plan.to_bytes())
    return grown.plan


def _awaited_plan(job: FolderJob, files: FolderFiles, say: Say) -> FolderPlan:
    """Wait until the plan is there and has the inputs of this worker, as worker 0 sees them."""
    waited = 0.0
    compared: FolderPlan | None = None
    while True:
        plan = read_plan(files)
        if plan is not None and plan != compared:  # inputs that differ are hashed once for each plan
            if not InputChanges.between(plan, job.inputs).needs_plan:
                return plan
            compared = plan
        if not waited:
            say(f"waiting for the plan, which worker 0/{job.part.of if job.part else 1} makes")
        if waited >= PLAN_WAIT:
            raise OutputError(
                f"{job.name}: there is no plan for these inputs after {PLAN_WAIT / 60:.0f} minutes; start worker "
                f"0/{job.part.of if job.part else 1}, which makes it, then run this one again"
            )
        time.sleep(POLL)
        waited += POLL


def _check_errors(job: FolderJob, plan: FolderPlan) -> None:
    errors = sum(own.errors for own in plan.inputs)
    if job.max_errors is not None and errors > job.max_errors:
        worst = max(plan.inputs, key=lambda own: own.errors)
        raise InputError(
            f"{errors:,} rows of the inputs cannot be read, more than the {job.max_errors:,} allowed (--max-errors); "
            f"{worst.errors:,} of them are in {worst.name}"
        )


@contextlib.contextmanager
def _only_driver(job: FolderJob, folder: FolderWriter) -> Iterator[None]:
    """Hold the lock of the driver while entered, or refuse to be the second one.

    Where the file system has no locks, another driver is known only if it runs on this machine.
    """
    folder.make(LOG)
    with contextlib.ExitStack() as stack:
        with folder.described(LOCK):
            # An object store has no locks.
            own = folder.root / LOCK if isinstance(folder, SharedFolder) else None
            is_held = None if own is None else stack.enter_context(held_lock(own))
        if is_held is False or (is_held is None and _is_alive(_driver(folder))):
            raise OutputError(
                f"{job.name}: another run is writing this folder{_described(_driver(folder))}; wait for it, or start "
                "workers that share the shards (--worker I/N)"
            )
        started = datetime.now(UTC).isoformat(timespec="seconds")
        folder.replace(
            DRIVER, json.dumps({"host": platform.node(), "process": os.getpid(), "started": started}).encode() + b"\n"
        )
        try:
            yield
        finally:
            with contextlib.suppress(OutputError):  # it only says who is at work
                folder.remove(DRIVER)


def _driver(folder: FolderWriter) -> dict[str, Any]:
    try:
        values = json.loads(folder_files(folder.root).read(DRIVER) or b"{}")
    except (ValueError, InputError):
        return {}
    return values if isinstance(values, dict) else {}


def _is_alive(driver: dict[str, Any]) -> bool:
    process = driver.get("process")
    if driver.get("host") != platform.node() or not isinstance(process, int) or process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _described(driver: dict[str, Any]) -> str:
    if not driver:
        return ""
    return f" (process {driver.get('process')} on {driver.get('host')}, since {driver.get('started')})"
