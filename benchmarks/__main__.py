"""The command ``python -m benchmarks``, which measures and prints Markdown, and saves it with ``--save``."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from benchmarks import report
from benchmarks.accuracy import measure_accuracy
from benchmarks.corpus import SIZES, CorpusFailedError, measure_corpus
from benchmarks.machine import read_machine, read_versions
from benchmarks.memory import measure_memory
from benchmarks.models import MODEL_NAMES, ModelNotFoundError, has_real_weights, model_folder
from benchmarks.peers import ROWS, Row, Settings
from benchmarks.scores import measure_scores
from benchmarks.selection import measure_selection
from benchmarks.speed import TooManyRowsError, measure_speed
from benchmarks.stages import measure_stages
from benchmarks.startup import measure_startup
from benchmarks.worker import RowFailedError, limit_threads
from benchmarks.workload import (
    DEFAULT_DATA,
    FULL_SIZE,
    WORKLOAD_NAMES,
    DataNotFoundError,
    Workload,
    calibration_texts,
    make_workloads,
    read_treebank,
)
from layertap.files import write_file

PARTS = ("speed", "stages", "memory", "startup", "selection", "words", "accuracy", "scores", "corpus")
MAX_LENGTH = 512
_RESULTS = Path(__file__).with_name("results")
_PRECISIONS: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the requested parts on the requested models; see the benchmarks README for separate commands."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["learn"]:
        from benchmarks.learning.command import main as learn

        return learn(given[1:])
    if given[:1] == ["native-products"]:
        from benchmarks.native_products import main as native_products

        return native_products(given[1:])
    if given[:1] == ["native-engine"]:
        from benchmarks.native_engine import main as native_engine

        return native_engine(given[1:])
    if given[:1] == ["schedule"]:
        from benchmarks.schedule import main as schedule

        return schedule(given[1:])
    if given[:1] == ["device"]:
        from benchmarks.device import main as device

        return device(given[1:])
    parser = _parser()
    options = parser.parse_args(given)
    if options.device != "cpu" and options.parts != ["speed"]:
        parser.error(f"--device {options.device}: only the part 'speed' runs there; the rest measures the processor")
    limit_threads(options.threads)
    command = _command(options)
    try:
        with _cache(options.cache) as cache:
            blocks = [report.run_heading(command, read_versions(), rounds=options.rounds, threads=options.threads)]
            print(blocks[0] + "\n", flush=True)
            for model in options.model:
                for section in _sections(model, options, cache):
                    blocks.append(section)
                    print(section + "\n", flush=True)
    except (CorpusFailedError, DataNotFoundError, ModelNotFoundError, RowFailedError, TooManyRowsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.save:
        _save(blocks)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", type=_part, metavar="part", help=f"of {', '.join(PARTS)}; all without any")
    parser.add_argument("--model", nargs="+", choices=MODEL_NAMES, default=["minilm"])
    parser.add_argument("--workload", nargs="+", choices=WORKLOAD_NAMES, default=list(WORKLOAD_NAMES))
    parser.add_argument("--rows", nargs="+", choices=[row.name for row in ROWS], help="all without it")
    parser.add_argument("--texts", type=int, default=FULL_SIZE, help=f"in the mixture, 10 to {FULL_SIZE}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--records", type=int, nargs="+", default=list(SIZES), help="sizes for the part corpus")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N, for `speed` with the rows of torch")
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder with the texts")
    parser.add_argument("--cache", type=Path, help="folder for converted models; a temporary one without it")
    parser.add_argument("--save", action="store_true", help="add what was measured to results/<machine>-<date>.md")
    return parser


def _part(word: str) -> str:
    if word not in PARTS:
        raise argparse.ArgumentTypeError(f"{word!r}: expected some of {', '.join(PARTS)}")
    return word


def _command(options: argparse.Namespace) -> str:
    """Format the command that repeats the run, without folders of this machine."""
    words = ["python -m benchmarks", *options.parts]
    for name in ("model", "workload", "rows", "records"):
        value = getattr(options, name)
        default = {"workload": list(WORKLOAD_NAMES), "records": list(SIZES), "rows": None}.get(name)
        if value != default:
            words.append(f"--{name} {' '.join(map(str, value))}")
    if options.device != "cpu":
        words.append(f"--device {options.device}")
    words.append(f"--texts {options.texts} --rounds {options.rounds} --threads {options.threads}")
    return " ".join(words)


@contextlib.contextmanager
def _cache(folder: Path | None) -> Iterator[Path]:
    if folder is None:
        with tempfile.TemporaryDirectory() as temporary:
            yield Path(temporary)
    else:
        yield folder.resolve()


def _sections(model: str, options: argparse.Namespace, cache: Path) -> Iterator[str]:
    parts = options.parts or PARTS
    rows = [
        row
        for row in ROWS
        if (options.rows is None or row.name in options.rows) and (options.device == "cpu" or row.on_device)
    ]
    workloads = make_workloads(options.data, size=options.texts)
    settings = Settings(
        folder=model_folder(model, cache=cache, data=options.data),
        cache=cache / f"{model}-converted",
        threads=options.threads,
        max_length=MAX_LENGTH,
        calibration=calibration_texts(options.data),
        device=options.device,
    )
    settings.cache.mkdir(parents=True, exist_ok=True)
    if "speed" in parts:
        chosen = [workloads[name] for name in options.workload]
        for table in measure_speed(rows, chosen, settings, rounds=options.rounds, say=_say):
            yield report.speed_section(model, table, real_weights=has_real_weights(model))
    if "stages" in parts:
        for precision in ("float32", "bfloat16", "int8"):
            stages = measure_stages(
                workloads["mixture"], settings, precision=precision, rounds=options.rounds, say=_say
            )
            yield report.stages_section(model, "mixture", stages)
    yield from _other_sections(model, parts, options, settings, rows, workloads["mixture"])


def _other_sections(
    model: str,
    parts: Sequence[str],
    options: argparse.Namespace,
    settings: Settings,
    rows: Sequence[Row],
    mixture: Workload,
) -> Iterator[str]:
    if "memory" in parts:
        yield report.memory_section(model, measure_memory(rows, mixture, settings, say=_say))
    if "startup" in parts:
        yield report.startup_section(model, measure_startup(settings.folder, rounds=options.rounds, say=_say))
    if "selection" in parts:
        for precision in _PRECISIONS:
            table = measure_selection(mixture, settings, precision=precision, rounds=options.rounds, say=_say)
            yield report.selection_section(model, table)
    if "words" in parts:
        table = measure_selection(
            read_treebank(options.data), settings, precision="float32", rounds=options.rounds, words=True, say=_say
        )
        yield report.selection_section(model, table)
    if "accuracy" in parts:
        for precision in _PRECISIONS:
            yield report.accuracy_section(model, measure_accuracy(mixture, settings, precision=precision, say=_say))
    if "scores" in parts:
        if has_real_weights(model):
            yield report.scores_section(model, measure_scores(options.data, threads=options.threads, say=_say))
        else:
            yield report.no_scores_section(model)
    if "corpus" in parts:
        yield report.corpus_section(model, measure_corpus(options.data, settings, sizes=options.records, say=_say))


def _say(progress: str) -> None:
    print(progress, file=sys.stderr, flush=True)


def _save(blocks: Sequence[str]) -> None:
    machine, date = read_machine(), datetime.datetime.now(tz=datetime.UTC).date()
    _RESULTS.mkdir(exist_ok=True)
    path = _RESULTS / f"{machine.slug}-{date.isoformat()}.md"
    before = path.read_text("utf-8") if path.is_file() else report.heading(machine, date) + "\n"
    write_file(path, (before + "\n" + "\n\n".join(blocks) + "\n").encode(), overwrite=True)
    _say(f"added to benchmarks/results/{path.name}")


if __name__ == "__main__":
    sys.exit(main())
