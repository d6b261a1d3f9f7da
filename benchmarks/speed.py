"""Measure the texts per second of every row on the same texts, in turn, in one run."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from benchmarks.busy import OthersMeter
from benchmarks.limit import LimitUnknownError, Peak, build_peak_program, measure_peaks
from benchmarks.machine import read_machine
from benchmarks.models import read_shape
from benchmarks.peers import REFERENCE, Precision, Row, Settings, Variant
from benchmarks.peers.batches import FloatArray, load_tokenizer, token_ids
from benchmarks.worker import RowFailedError, Tuned, Worker, find_row, prepare_all
from benchmarks.workload import Workload

# Copies of the weights that a loaded row holds at most: as stored, and as packed for its kernels.
_COPIES_OF_WEIGHTS = 2


class TooManyRowsError(Exception):
    """Raised when the rows do not fit in memory together; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Agreement of a row's vectors with those of the reference.

    Attributes:
        smallest_cosine: Smallest cosine over all texts.
        largest_error: Largest absolute difference of one number, over the root mean square of the reference.
    """

    smallest_cosine: float
    largest_error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RowTimes:
    """Seconds of each round of one row on one workload."""

    row: str
    library: str
    precision: Precision
    ours: bool
    variant: Variant
    seconds: tuple[float, ...]
    agreement: Agreement


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedTable:
    """Figures of all rows on one workload.

    Attributes:
        workload: Name of the workload.
        description: Description of its texts.
        texts: Number of texts.
        tokens: Number of tokens after truncation, special tokens included.
        flops: Floating-point operations of the matrix products that these tokens need.
        rows: Times of the rows, in the order of the table.
        failed: Rows that do not run on this machine, with the reason.
        peaks: The processor's peak for each precision in each round.
        limit_unknown: Reason why there are no peaks; empty if there are.
        others_share: Share of all cores that other processes used meanwhile; None if the system does not tell.
    """

    workload: str
    description: str
    texts: int
    tokens: int
    flops: int
    rows: tuple[RowTimes, ...]
    failed: dict[str, str]
    peaks: tuple[dict[str, Peak], ...]
    limit_unknown: str = ""
    others_share: float | None = None


def agreement(vectors: FloatArray, reference: FloatArray) -> Agreement:
    """Compare vectors [N, H] with the reference's [N, H]."""
    actual, expected = vectors.astype(np.float64), reference.astype(np.float64)
    norms = np.linalg.norm(actual, axis=1) * np.linalg.norm(expected, axis=1)
    cosines = (actual * expected).sum(1) / norms
    error = np.abs(actual - expected).max() / np.sqrt(np.mean(expected**2))
    return Agreement(smallest_cosine=float(cosines.min()), largest_error=float(error))


def measure_speed(
    rows: Sequence[Row],
    workloads: Sequence[Workload],
    settings: Settings,
    *,
    rounds: int,
    say: Callable[[str], None],
) -> list[SpeedTable]:
    """Measure every row on every workload; the reference always runs, too."""
    wanted = list(rows)
    if REFERENCE not in [row.name for row in wanted]:
        wanted.append(find_row(REFERENCE))
    _check_memory(len(wanted), settings)
    failed = prepare_all(wanted, settings, say)
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(Worker(row, settings)) for row in wanted if row.name not in failed]
        tables = []
        for workload in workloads:
            table = _measure_workload(workers, workload, settings, rounds=rounds, say=say)
            tables.append(_with_failed(table, failed))
    return tables


def _check_memory(rows: int, settings: Settings) -> None:
    """Refuse a run that would make the machine swap, and so measure the disk."""
    weights = (settings.folder / "model.safetensors").stat().st_size
    needed = rows * _COPIES_OF_WEIGHTS * weights
    there = read_machine().memory_bytes
    if needed > there:
        raise TooManyRowsError(
            f"{rows} rows are held in memory at once, about {needed / 1024**3:.0f} GiB for this model; "
            f"this machine has {there / 1024**3:.0f} GiB: name fewer with --rows"
        )


def _measure_workload(
    workers: Sequence[Worker],
    workload: Workload,
    settings: Settings,
    *,
    rounds: int,
    say: Callable[[str], None],
) -> SpeedTable:
    tuned, failed = _tune(workers, workload, say)
    running = [worker for worker in workers if worker.row.name in tuned]
    seconds: dict[str, list[float]] = {worker.row.name: [] for worker in running}
    peaks: list[dict[str, Peak]] = []
    limit_unknown = ""
    try:
        if settings.device != "cpu":
            raise LimitUnknownError(
                "the limit is that of the processor; `python -m benchmarks device` has the device's"
            )
        program = build_peak_program(settings.cache)
    except LimitUnknownError as error:
        program, limit_unknown = None, str(error)
    meter = OthersMeter([worker.pid for worker in running])
    for turn in range(rounds):
        say(f"{workload.name}: round {turn + 1} of {rounds}")
        if program is not None:
            peaks.append(measure_peaks(program, settings.threads))
        # rounds begin with another row each, so that no row always follows the same one
        start = turn % len(running)
        for worker in running[start:] + running[:start]:
            name = worker.row.name
            seconds[name].append(worker.run(workload, tuned[name].variant))
    others_share = meter.share()
    lengths = _lengths(workload, settings)
    reference = tuned[REFERENCE].vectors
    return SpeedTable(
        workload=workload.name,
        description=workload.description,
        texts=len(workload.texts),
        tokens=sum(lengths),
        flops=read_shape(settings.folder).flops(lengths),
        rows=tuple(
            _times(worker.row, tuned[worker.row.name], seconds[worker.row.name], reference) for worker in running
        ),
        failed=failed,
        peaks=tuple(peaks),
        limit_unknown=limit_unknown,
        others_share=others_share,
    )


def _tune(
    workers: Sequence[Worker], workload: Workload, say: Callable[[str], None]
) -> tuple[dict[str, Tuned], dict[str, str]]:
    tuned: dict[str, Tuned] = {}
    failed: dict[str, str] = {}
    for worker in workers:
        say(f"{workload.name}: {worker.row.name}, warming up")
        try:
            tuned[worker.row.name] = worker.tune(workload)
        except RowFailedError as error:
            failed[worker.row.name] = str(error)
    if REFERENCE in failed:
        raise RowFailedError(f"{REFERENCE}, which the others are compared with: {failed[REFERENCE]}")
    return tuned, failed


def _times(row: Row, tuned: Tuned, seconds: Sequence[float], reference: FloatArray) -> RowTimes:
    return RowTimes(
        row=row.name,
        library=row.library,
        precision=row.precision,
        ours=row.ours,
        variant=tuned.variant,
        seconds=tuple(seconds),
        agreement=agreement(tuned.vectors, reference),
    )


def _lengths(workload: Workload, settings: Settings) -> list[int]:
    tokenizer = load_tokenizer(settings.folder, settings.max_length)
    return [len(ids) for ids in token_ids(tokenizer, workload.texts)]


def _with_failed(table: SpeedTable, failed: dict[str, str]) -> SpeedTable:
    return dataclasses.replace(table, failed={**failed, **table.failed})


def median_rate(times: RowTimes, amount: int) -> float:
    """Compute ``amount`` (texts or tokens) per second, by the median round."""
    return amount / median(times.seconds)
