"""Measure the native engine within a given time: one text, mixtures, threads, and what stands outside the engine.

The command is ``python -m benchmarks native-engine``. The time is divided among the tables; each adds rounds until its
share is used up, at most `MOST_ROUNDS`, and says how many it has. Converted models are kept with ``--cache``.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median

from benchmarks.busy import OthersMeter
from benchmarks.machine import read_machine, read_versions
from benchmarks.models import model_folder
from benchmarks.peers import ROWS, Row, Settings, Variant
from benchmarks.peers.batches import load_tokenizer, token_ids
from benchmarks.ratios import ratio_by_round
from benchmarks.report import markdown_table, run_heading
from benchmarks.selection import WHOLE
from benchmarks.stages import open_native
from benchmarks.worker import RowFailedError, Worker, limit_threads, prepare_all
from benchmarks.workload import DEFAULT_DATA, Workload, calibration_texts, make_workloads

MODELS = ("minilm", "bert-base")
LENGTHS = (8, 35, 128)
MIXTURES = {"minilm": (10, 20, 100), "bert-base": (10, 20)}
THREADED = {"minilm": (10, 20, 40), "bert-base": (10, 20)}
MOST_ROUNDS = 7
SHARES = {"one text": 0.3, "mixture": 0.34, "threads": 0.16, "outside": 0.2}
"""Shares of the time; each is divided among the models of its table."""

BIG = 0.75
"""Share of the time of a table that goes to the last model, which is the largest."""

OUTSIDE_TEXTS = 400
MAX_LENGTH = 512
_CALLS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class _Session:
    rows: Sequence[Row]
    data: Path
    cache: Path
    threads: int
    seconds: float

    def settings(self, model: str) -> Settings:
        settings = Settings(
            folder=model_folder(model, cache=self.cache, data=self.data),
            cache=self.cache / f"{model}-converted",
            threads=self.threads,
            max_length=MAX_LENGTH,
            calibration=calibration_texts(self.data),
        )
        settings.cache.mkdir(parents=True, exist_ok=True)
        return settings

    def share(self, part: str, model: str) -> float:
        """Return the seconds of a table's part for one model."""
        return self.seconds * SHARES[part] * (BIG if model == MODELS[-1] else 1 - BIG)


def main(arguments: Sequence[str]) -> int:
    """Print the tables, each as soon as it is measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks native-engine", description=__doc__)
    parser.add_argument("--seconds", type=float, default=450, help="time for all tables; converting models comes first")
    parser.add_argument("--precision", choices=("float32", "bfloat16", "int8"), default="float32")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, metavar="FOLDER")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="keeps converted models for the next run")
    options = parser.parse_args(arguments)
    limit_threads(options.threads)
    rows = [
        row
        for row in ROWS
        if row.precision == options.precision
        and row.library in ("layertap", "openvino", "onnxruntime", "ctranslate2")
        and (row.ours or row.library != "layertap")
    ]
    with tempfile.TemporaryDirectory() if options.cache is None else contextlib.nullcontext(options.cache) as cache:
        session = _Session(
            rows=rows,
            data=options.data,
            cache=Path(cache).resolve(),
            threads=options.threads,
            seconds=options.seconds,
        )
        settings = {model: session.settings(model) for model in MODELS}
        for own in settings.values():
            for name, reason in prepare_all(rows, own, _say).items():
                print(f"{name}: {reason}")
        command = f"python -m benchmarks native-engine --precision {options.precision} --seconds {options.seconds:g}"
        print(run_heading(command, read_versions(), rounds=MOST_ROUNDS, threads=options.threads))
        print(f"\n{read_machine().slug}; at most {MOST_ROUNDS} rounds, as the time allows\n", flush=True)
        for section in _sections(session, settings):
            print(section + "\n", flush=True)
    return 0


def _sections(session: _Session, settings: dict[str, Settings]) -> Iterator[str]:
    ours = next(row for row in session.rows if row.ours)
    variants: dict[str, Variant] = {}
    for model in MODELS:
        with _workers(session.rows, settings[model]) as workers:
            meter = OthersMeter([worker.pid for worker in workers])
            yield _one_text(model, workers, session, settings[model])
            # a larger model has the variants of the first one: its texts have the same lengths
            yield _mixtures(model, workers, session, variants)
            yield f"Other processes used {meter.share() or 0:.0%} of the cores meanwhile."
    for model in MODELS:
        one = dataclasses.replace(settings[model], threads=1)
        with Worker(ours, one) as alone, Worker(ours, settings[model]) as together:
            yield _threads(model, alone, together, session)
    for model in MODELS:
        yield _outside(model, session, settings[model])


@contextlib.contextmanager
def _workers(rows: Sequence[Row], settings: Settings) -> Iterator[list[Worker]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Worker(row, settings)) for row in rows]


def _rounds(seconds: float) -> Iterator[int]:
    """Yield numbers of rounds, two or more, until the time is over."""
    end = time.monotonic() + seconds
    for number in range(MOST_ROUNDS):
        if number >= 2 and time.monotonic() > end:
            return
        yield number


def _in_turn(workers: Sequence[Worker], number: int) -> list[Worker]:
    start = number % len(workers)
    return [*workers[start:], *workers[:start]]


def _one_text(model: str, workers: list[Worker], session: _Session, settings: Settings) -> str:
    """Compare single texts of some lengths: the median and the 99th percentile of all calls."""
    _say(f"{model}: one text")
    lines = []
    for length, text in _texts_of(settings, session.data).items():
        workload = Workload(name="single", description="", texts=(text,), repeats=1)
        running = _running(workers, partial(_call, workload))
        seconds: dict[str, list[list[float]]] = {worker.row.name: [] for worker in running}
        for number in _rounds(session.share("one text", model) / len(LENGTHS)):
            for worker in _in_turn(running, number):
                seconds[worker.row.name].append(worker.latencies(workload, _alone(worker.row), _CALLS))
        ours = next(worker.row.name for worker in running if worker.row.ours)
        medians = {name: [median(own) for own in rounds] for name, rounds in seconds.items()}
        for name, rounds in seconds.items():
            calls = sorted(call for own in rounds for call in own)
            ratio = "" if name == ours else str(ratio_by_round(medians[name], medians[ours]))
            high = calls[min(len(calls) - 1, int(len(calls) * 0.99))]
            lines.append(
                [str(length), name, f"{median(calls) * 1e3:.2f}", f"{high * 1e3:.2f}", ratio, str(len(rounds))]
            )
    header = ["tokens", "row", "p50, ms", "p99, ms", "ours is faster by", "rounds"]
    return "\n".join([f"### One text: {model}", "", *markdown_table(header, lines)])


def _mixtures(model: str, workers: list[Worker], session: _Session, variants: dict[str, Variant]) -> str:
    """Compare the mixture of several sizes, each peer in its fastest variant on ten of the texts."""
    _say(f"{model}: mixture")
    small = make_workloads(session.data, size=10)["mixture"]
    for worker in workers:
        if worker.row.name not in variants:
            with contextlib.suppress(RowFailedError):
                variants[worker.row.name] = worker.tune(small).variant
    lines = []
    for count in MIXTURES[model]:
        workload = make_workloads(session.data, size=count)["mixture"]
        known = [worker for worker in workers if worker.row.name in variants]
        running = _running(known, lambda worker: worker.run(small, variants[worker.row.name]))
        seconds: dict[str, list[float]] = {worker.row.name: [] for worker in running}
        for number in _rounds(session.share("mixture", model) * count / sum(MIXTURES[model])):
            for worker in _in_turn(running, number):
                seconds[worker.row.name].append(worker.run(workload, variants[worker.row.name]))
        ours = next(worker.row.name for worker in running if worker.row.ours)
        for name, own in seconds.items():
            ratio = "" if name == ours else str(ratio_by_round(own, seconds[ours]))
            lines.append([str(count), name, f"{count / median(own):.1f}", ratio, str(variants[name]), str(len(own))])
    header = ["texts", "row", "texts/s", "ours is faster by", "variant", "rounds"]
    return "\n".join([f"### Mixture: {model}", "", *markdown_table(header, lines)])


def _threads(model: str, alone: Worker, together: Worker, session: _Session) -> str:
    _say(f"{model}: threads")
    lines = []
    for count in THREADED[model]:
        workload = make_workloads(session.data, size=count)["mixture"]
        variant = alone.tune(workload).variant
        together.tune(workload)
        one: list[float] = []
        several: list[float] = []
        for number in _rounds(session.share("threads", model) * count / sum(THREADED[model])):
            for worker in _in_turn([alone, together], number):
                (one if worker is alone else several).append(worker.run(workload, variant))
        lines.append([str(count), str(ratio_by_round(one, several)), str(len(one))])
    header = ["texts", f"{session.threads} threads over one", "rounds"]
    return "\n".join([f"### Threads: {model}", "", *markdown_table(header, lines)])


def _outside(model: str, session: _Session, settings: Settings) -> str:
    """Compare runs whose texts are prepared meanwhile with runs in which everything happens in turn."""
    _say(f"{model}: outside the engine")
    precision = session.rows[0].precision
    texts = make_workloads(session.data, size=OUTSIDE_TEXTS // (1 if model == MODELS[0] else 8))["mixture"].texts
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        rounds = pool.submit(_time_outside, texts, settings, precision, session.share("outside", model)).result()
    lines = []
    for meanwhile in (False, True):
        seconds = [own[meanwhile][0] for own in rounds]
        share = median(1 - inside / (wall * session.threads) for wall, inside in (own[meanwhile] for own in rounds))
        lines.append(["meanwhile" if meanwhile else "before", f"{len(texts) / median(seconds):.1f}", f"{share:.1%}"])
    ratio = ratio_by_round([own[False][0] for own in rounds], [own[True][0] for own in rounds])
    header = ["texts are prepared", "texts/s", "outside the engine, waiting"]
    title = f"### Outside the engine: {model}, {len(texts)} texts, {len(rounds)} rounds"
    return "\n".join([title, "", *markdown_table(header, lines), "", f"Meanwhile is faster by {ratio}."])


def _time_outside(
    texts: tuple[str, ...], settings: Settings, precision: str, seconds: float
) -> list[dict[bool, tuple[float, float]]]:
    """Return, for each round and way, the seconds of a run and the seconds of all threads in stages of the engine."""
    extractor, backend = open_native(settings, precision)
    extractor.extract(texts[:20], WHOLE)
    rounds: list[dict[bool, tuple[float, float]]] = []
    for number in _rounds(seconds):
        timed = {}
        for meanwhile in (False, True) if number % 2 else (True, False):
            backend.leaves_python = meanwhile
            before, start = sum(backend.stage_seconds().values()), time.perf_counter()
            extractor.extract(texts, WHOLE)
            timed[meanwhile] = (time.perf_counter() - start, sum(backend.stage_seconds().values()) - before)
        rounds.append(timed)
    return rounds


def _texts_of(settings: Settings, data: Path) -> dict[int, str]:
    """Find a real text of each length in tokens, special tokens included."""
    texts = make_workloads(data)["mixture"].texts
    lengths = [len(ids) for ids in token_ids(load_tokenizer(settings.folder, MAX_LENGTH), texts)]
    return {length: texts[lengths.index(length)] for length in LENGTHS if length in lengths}


def _call(workload: Workload, worker: Worker) -> list[float]:
    return worker.latencies(workload, _alone(worker.row), 3)


def _alone(row: Row) -> Variant:
    """Return the variant of a row for one text at a time: all threads on it."""
    apart = ("throughput", "a worker a thread")
    return next(
        variant
        for variant in row.variants
        if variant.batch_size in (0, 1) and not any(word in variant.setup for word in apart)
    )


def _running(workers: Sequence[Worker], warm: Callable[[Worker], object]) -> list[Worker]:
    running = []
    for worker in workers:
        try:
            warm(worker)
        except RowFailedError as error:
            _say(f"{worker.row.name}: {error}")
        else:
            running.append(worker)
    return running


def _say(progress: str) -> None:
    print(progress, file=sys.stderr, flush=True)
