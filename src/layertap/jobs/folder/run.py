"""A whole run to a folder in one call, for the command line and for `layertap.extract`."""

from __future__ import annotations

import sys

from layertap.engine.extractor import Extractor
from layertap.jobs.folder.drive import FolderOutcome, Say, open_folder_run
from layertap.jobs.folder.job import FolderJob
from layertap.jobs.folder.progress import Form, report_on
from layertap.jobs.folder.runner import InProcess
from layertap.jobs.folder.space import check_space
from layertap.jobs.folder.task import FolderTask, instruction_sets_here


def run_folder(
    job: FolderJob, extractor: Extractor, *, progress: Form = "none", say: Say | None = None
) -> FolderOutcome:
    """Make or continue a folder of features in this process.

    Args:
        job: what is to be done.
        extractor: the model.
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
            with (
                FolderTask.of(job, extractor).open(extractor) as worker,
                report_on(sys.stderr, run, progress) as report,
            ):
                run.run(InProcess(worker=worker), report)
        return run.finish(extractor)
