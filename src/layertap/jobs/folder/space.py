"""Forecast of what is left to do of a folder, and whether the disk can hold it."""

from __future__ import annotations

import shutil
from pathlib import Path

from layertap.engine.streaming import Streams
from layertap.errors import OutputError
from layertap.jobs.folder.drive import FolderRun
from layertap.jobs.folder.planning import Sample
from layertap.jobs.folder.request import features_of
from layertap.words import counted, in_bytes


def check_space(run: FolderRun, streams: Streams) -> None:
    """Refuse a run whose results pass the limit or the room on the disk, as far as the first texts of the inputs tell.

    Raises:
        OptionError: the results of the whole folder would take more than the job's limit.
        OutputError: the disk has less room than the shards need that are left; both numbers are named.
    """
    sample = Sample.of(run.job.inputs, streams, features_of(run.plan))
    if run.job.max_output_bytes is not None:
        sample.forecast(run.plan.schemas, num_records=run.plan.rows).refuse_past(run.job.max_output_bytes)
    rows = sum(shard.end - shard.begin for shard in run.pending)
    needed = sample.forecast(run.plan.schemas, num_records=rows).total
    try:
        if not isinstance(run.folder.root, Path):
            return
        free = shutil.disk_usage(run.folder.root).free
    except OSError:
        return
    if needed > free:
        raise OutputError(
            f"{run.job.name}: about {in_bytes(needed)} are needed for {counted(len(run.pending), 'shard')}, and "
            f"{in_bytes(free)} are free there; name a folder on another disk, or ask for less (fewer layers, a "
            "pooling, astype(float16))"
        )
