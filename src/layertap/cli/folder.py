"""Runs of `layertap extract` whose output is a folder of features: their options, and what they print."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from layertap.cli.options import (
    features_of,
    input_of,
    limit_tokenizer_threads,
    reference_of,
    runtime_of,
    semantics_of,
)
from layertap.cli.running import extractor_of, silence_downloads, uncollected
from layertap.cli.tables import print_facts, print_note
from layertap.cli.units import bytes_of
from layertap.errors import OptionError, UsageError, printable
from layertap.words import counted, in_bytes

if TYPE_CHECKING:
    from layertap.engine.extractor import Extractor
    from layertap.engine.opening import OpenedModel
    from layertap.engine.options import Runtime, Semantics
    from layertap.jobs.folder.drive import FolderOutcome
    from layertap.jobs.folder.job import FolderJob
    from layertap.jobs.folder.progress import Form

PROGRESS = ("auto", "json", "none")


def add_folder_options(parser: argparse.ArgumentParser) -> None:
    """Add options for an output that is a folder of features."""
    group = parser.add_argument_group("folder of features")
    group.add_argument(
        "--shard-records",
        type=int,
        metavar="N",
        help="texts of a file of the folder (default: at most 16,384, and fewer where they would take over 256 MB)",
    )
    group.add_argument("--workers", type=int, metavar="N", help="processes of this machine, which share its threads")
    group.add_argument(
        "--ray",
        metavar="WHERE",
        help="run on a Ray cluster: auto (the one of this machine), local (a new one) or its address",
    )
    group.add_argument(
        "--worker",
        metavar="I/N",
        help="compute every N-th shard only, from shard I on; start N of these, I from 0, on any machines",
    )
    group.add_argument(
        "--forget", action="store_true", help="remove what was computed of inputs that are not named any more"
    )
    group.add_argument(
        "--progress",
        choices=PROGRESS,
        metavar="FORM",
        help="auto (a line on a terminal), json (an object a line, on standard error) or none (default: auto)",
    )


def refuse_folder_options(options: argparse.Namespace) -> None:
    """Refuse a run to a file that is asked for what only a folder has.

    Raises:
        OptionError: several inputs, or an option of folders.
    """
    if len(options.inputs) > 1:
        raise OptionError(
            f"{len(options.inputs)} inputs are named, and {printable(options.output)} is one file; several inputs go "
            "to a folder of features: let OUTPUT end with /; or join them: cat FILE... | layertap extract - -o OUTPUT"
        )
    given = {
        "--shard-records": options.shard_records,
        "--workers": options.workers,
        "--ray": options.ray,
        "--worker": options.worker,
        "--forget": options.forget or None,
        "--progress": options.progress,
    }
    flag = next((flag for flag, value in given.items() if value is not None), None)
    if flag is not None:
        raise OptionError(f"{flag} goes with a folder of features; let OUTPUT end with /, or leave the option out")


def run_folder_command(options: argparse.Namespace) -> None:
    """Run `layertap extract` to a folder: what can be checked comes first, then the model, then the work.

    Raises:
        LayertapError: see `layertap.jobs.folder`.
    """
    from layertap.backends.choice import require_backend
    from layertap.checkpoints.source import stored_files
    from layertap.engine.opening import open_reference
    from layertap.jobs.folder.run import RunnerChoice, run_folder

    started = time.perf_counter()
    limit_tokenizer_threads(options.threads)
    features, semantics, runtime = features_of(options), semantics_of(options), runtime_of(options)
    require_backend(runtime.backend)
    silence_downloads(options)
    choice = RunnerChoice.checked(
        workers=options.workers, ray=options.ray, threads=options.threads, part=options.worker
    )
    job = _job_of(options, features=features, also_read=[str(path) for path in stored_files(options.model)])
    with uncollected():
        model = open_reference(reference_of(options))
        model.plan(features, semantics, runtime.rules)
        extractor = extractor_of(model, semantics, runtime)
    ready = time.perf_counter()
    progress: Form = options.progress or ("none" if options.quiet else "auto")
    outcome = run_folder(job, extractor, choice=choice, progress=progress, say=None if options.quiet else print_note)
    if not options.quiet:
        _print_outcome(extractor, job, outcome, starting=ready - started, running=time.perf_counter() - ready)


def print_forecast(
    options: argparse.Namespace,
    model: OpenedModel,
    features: list[str] | None,
    semantics: Semantics,
    runtime: Runtime,
) -> None:
    """Print what a run to a folder would take, for `layertap explain`.

    Args:
        options: parsed arguments of the command.
        model: the open model.
        features: feature texts, or None for the default.
        semantics, runtime: options of the engine.
    """
    from layertap.data.inputs import InputSet
    from layertap.jobs.folder.forecast import forecast_folder
    from layertap.jobs.folder.planning import check_shard_records

    records = None if options.shard_records is None else check_shard_records(options.shard_records)
    inputs = InputSet.resolve(options.inputs, options.input_format, input_of(options, "", columns=()).options)
    extractor = extractor_of(model, semantics, runtime)
    seen = forecast_folder(inputs, extractor, features, shard_records=records, details=())
    about = "about " if seen.is_estimated else ""
    rows = [
        ("folder", printable(options.output)),
        ("inputs", f"{seen.inputs:,} with {about}{counted(seen.rows, 'row')}"),
        ("shards", f"{about}{seen.shards:,} of up to {counted(seen.shard_records, 'row')}"),
        ("tokens", f"about {seen.tokens:,}"),
        ("size", f"about {in_bytes(seen.size)}"),
    ]
    if seen.hours is not None and seen.tokens_per_second is not None:
        rate = f"{seen.tokens_per_second:,.0f} tokens/s, measured on the first texts"
        rows.append(("time", f"about {_duration(seen.hours)} on this machine ({rate})"))
    print_facts(rows, stream=sys.stdout)


def _duration(hours: float) -> str:
    if hours >= 1:
        return f"{hours:,.1f} hours"
    return f"{hours * 60:.0f} minutes" if hours * 60 >= 1 else f"{hours * 3600:.0f} seconds"


def _job_of(options: argparse.Namespace, *, features: list[str] | None, also_read: list[str]) -> FolderJob:
    from layertap.cli.streaming import details_of
    from layertap.jobs.folder.job import FolderJob, WorkerPart

    if options.output_format not in (None, "parquet"):
        raise OptionError(
            f"--output-format {options.output_format}: the shards of a folder are Parquet; `layertap export` makes one "
            f"{options.output_format} file of them"
        )
    if options.overwrite:
        raise UsageError(
            f"--overwrite: a folder of features is continued and not overwritten; remove {printable(options.output)} "
            "to begin anew"
        )
    columns = None if options.columns is None else tuple(filter(None, map(str.strip, options.columns.split(","))))
    size = options.max_output_size
    return FolderJob.checked(
        options.inputs,
        options.output,
        format=options.input_format,
        options=input_of(
            options,
            options.inputs[0],
            id_column=options.id_column,
            columns=columns,
            on_error=options.on_error,
            max_errors=options.max_errors,
        ).options,
        features=features,
        details=details_of(options.details),
        shard_records=options.shard_records,
        max_output_bytes=None if size is None else bytes_of(size, "--max-output-size"),
        forget=options.forget,
        part=None if options.worker is None else WorkerPart.parse(options.worker),
        also_read=also_read,
    )


def _print_outcome(
    extractor: Extractor, job: FolderJob, outcome: FolderOutcome, *, starting: float, running: float
) -> None:
    from layertap.cli.summary import features_in_words

    run = outcome.summary
    made = features_in_words(extractor, job.features)
    rows = [("features" if i == 0 else "", line) for i, line in enumerate(made)]
    tokens = counted(run.tokens, "token")
    rows.append(("texts", f"{run.records:,} in {tokens}, layers run {run.layers_run} of {run.layers}"))
    notes = [*job.inputs.notes, *extractor.tokenizer.notes, *run.notes()]
    rows += [("note" if i == 0 else "", note) for i, note in enumerate(notes)]
    rows.append(("backend", f"{extractor.semantics.precision} on {extractor.selection}"))
    if run.skipped:
        rows.append(("skipped", f"{counted(run.skipped, 'row')}, listed in {job.name.rstrip('/')}/errors"))
    shards = f"{outcome.shards:,}, of which {outcome.computed:,} computed in this run"
    if outcome.missing:
        shards += f", and {outcome.missing:,} are missing, those of other workers"
    rows.append(("shards", shards))
    rows.append(("time", f"{running:.1f} s; {starting:.1f} s before that to start"))
    rows.append(("output", f"{job.name}, {in_bytes(outcome.size)}"))
    print_facts(rows)
