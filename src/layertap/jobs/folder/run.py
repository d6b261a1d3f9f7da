"""A whole run to a folder in one call, for the command line and for `layertap.extract`."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from layertap.engine.extractor import Extractor
from layertap.errors import OptionError
from layertap.jobs.folder.drive import FolderOutcome, Say, open_folder_run
from layertap.jobs.folder.job import FolderJob
from layertap.jobs.folder.on_ray import RayActors, check_ray
from layertap.jobs.folder.pool import ProcessPool, check_workers
from layertap.jobs.folder.progress import Form, report_on
from layertap.jobs.folder.runner import InProcess
from layertap.jobs.folder.space import check_space
from layertap.jobs.folder.task import FolderTask, instruction_sets_here


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerChoice:
    """Choice of what computes the shards: this process, or several of this machine or of a Ray cluster.

    Attributes:
        workers: number of processes, or None: one, or on Ray as many as the cluster has room for.
        ray: "auto", "local" or the address of a Ray cluster, or None.
        threads: threads of all processes together, or of each actor; None: those of the model's runtime, else all.
    """

    workers: int | None = None
    ray: str | None = None
    threads: int | None = None

    @classmethod
    def checked(
        cls, *, workers: int | None, ray: str | None, threads: int | None = None, part: object | None = None
    ) -> RunnerChoice:
        """Make a choice, after the checks that need neither inputs nor model.

        Raises:
            OptionError: a number of workers that cannot be, or workers of an index worker.
            BackendError: Ray is not installed.
        """
        if workers is not None:
            check_workers(workers)
        if ray is not None:
            check_ray(ray)
        if part is not None and (workers is not None or ray is not None):
            flag = "--ray" if ray is not None else "--workers"
            raise OptionError(f"--worker {part} is one process of several that are started by hand; leave out {flag}")
        return cls(workers=workers, ray=ray, threads=threads)

    def runner(self, task: FolderTask) -> ProcessPool | RayActors | None:
        """Return the runner of the choice for some work; None stands for this process."""
        # With torch, threads belong to the process, and the runtime of this one states none.
        threads = self.threads or task.runtime.threads
        if self.ray is not None:
            return RayActors(task=task, address=self.ray, workers=self.workers, threads=threads)
        if self.workers is None:
            return None
        if threads is None:
            threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return ProcessPool(task=task, workers=self.workers, threads=threads)


def run_folder(
    job: FolderJob,
    extractor: Extractor,
    *,
    choice: RunnerChoice | None = None,
    progress: Form = "none",
    say: Say | None = None,
) -> FolderOutcome:
    """Make or continue a folder of features.

    Args:
        job: what is to be done.
        extractor: the model.
        choice: who computes the shards; None: this process.
        progress: form of the progress on standard error.
        say: function that shows lines to the user, before what they say is done.

    Returns:
        What the run has reached.

    Raises:
        UsageError, InputError, OutputError, NonFiniteError: see `open_folder_run` and `FolderRun.run`.
    """
    with open_folder_run(job, extractor, instruction_sets=instruction_sets_here, say=say) as run:
        if run.pending:
            check_space(run, extractor)
            task = FolderTask.of(job, extractor)
            runner = (choice or RunnerChoice()).runner(task)
            with report_on(sys.stderr, run, progress) as report:
                if runner is not None:
                    run.run(runner, report)
                else:
                    with task.open(extractor) as worker:
                        run.run(InProcess(worker=worker), report)
        return run.finish(extractor)
