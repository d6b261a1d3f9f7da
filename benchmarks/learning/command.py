"""The command ``python -m benchmarks learn``, which scores classifiers and times a step of fine-tuning."""

from __future__ import annotations

import argparse
import datetime
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.learning.finetuned import EPOCHS, measure_finetuned
from benchmarks.learning.frozen import measure_frozen
from benchmarks.learning.report import document
from benchmarks.learning.step import measure_step
from benchmarks.learning.store import Store
from benchmarks.learning.tasks import TASK_NAMES, read_task
from benchmarks.machine import read_machine, read_versions
from benchmarks.models import ModelNotFoundError
from benchmarks.worker import limit_threads
from benchmarks.workload import DEFAULT_DATA, DataNotFoundError
from layertap.files import write_file

PARTS = ("frozen", "finetuned", "step")
_RESULTS = Path(__file__).parents[1] / "results"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the requested parts on the requested tasks."""
    options = _parser().parse_args(arguments)
    limit_threads(options.threads)
    machine, date = read_machine(), datetime.datetime.now(tz=datetime.UTC).date()
    place = options.results / f"learn-{machine.slug}-{date.isoformat()}.json" if options.save else None
    store = Store.at(place)
    store.runs.append({"command": _command(options), "versions": read_versions(), "threads": options.threads})
    try:
        _measure(options, store)
        tasks = {name: read_task(name, options.data) for name in TASK_NAMES}
    except (DataNotFoundError, ModelNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    page = document(machine, date, store, tasks)
    print(page)
    if place is not None:
        write_file(place.with_suffix(".md"), page.encode(), overwrite=True)
        _say(f"written: benchmarks/results/{place.stem}.md and .json")
    return 0


def _measure(options: argparse.Namespace, store: Store) -> None:
    parts = options.parts or PARTS
    if "frozen" in parts:
        for name in options.tasks:
            measure_frozen(read_task(name, options.data), store, seeds=options.seeds, threads=options.threads, say=_say)
    if "step" in parts:
        for precision in ("float32", "bfloat16"):
            measure_step(
                read_task("sst2", options.data),
                store,
                rounds=options.rounds,
                precision=precision,
                threads=options.threads,
                say=_say,
            )
    if "finetuned" in parts:
        for seed in range(options.seeds):  # a run that ends early has something of each
            for name in [name for name in options.tasks if name in EPOCHS]:
                measure_finetuned(
                    read_task(name, options.data),
                    store,
                    seed=seed,
                    precision=options.precision,
                    threads=options.threads,
                    say=_say,
                )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks learn", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=PARTS, metavar="part", help=f"of {', '.join(PARTS)}; all without")
    parser.add_argument("--tasks", nargs="+", choices=TASK_NAMES, default=list(TASK_NAMES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5, help="of the part step")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16", help="of fine-tuning")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder with the data")
    parser.add_argument("--results", type=Path, default=_RESULTS, help="folder for what --save keeps")
    parser.add_argument(
        "--save", action="store_true", help="keep figures in learn-<machine>-<date>.json and .md; what is there stays"
    )
    return parser


def _command(options: argparse.Namespace) -> str:
    words = ["python -m benchmarks learn", *options.parts]
    if options.tasks != list(TASK_NAMES):
        words.append(f"--tasks {' '.join(options.tasks)}")
    words.append(f"--seeds {options.seeds} --precision {options.precision} --threads {options.threads}")
    return " ".join(words)


def _say(progress: str) -> None:
    print(progress, file=sys.stderr, flush=True)
