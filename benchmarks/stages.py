"""Measure each stage of the native engine: seconds, and share of the processor's peak."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TYPE_CHECKING

from benchmarks.limit import LimitUnknownError, Peak, build_peak_program, measure_peaks
from benchmarks.models import read_shape
from benchmarks.peers import Settings
from benchmarks.peers.batches import load_tokenizer, token_ids
from benchmarks.selection import WHOLE
from benchmarks.workload import Workload

if TYPE_CHECKING:
    from layertap import Extractor
    from layertap.backends.native.backend import NativeBackend

PEAK_OF = {"float32": "float32", "bfloat16": "bfloat16", "int8": "int8"}


@dataclass(frozen=True, slots=True, kw_only=True)
class StagesTable:
    """Figures of one precision on one workload, summed over all rounds.

    Attributes:
        precision: precision of the products.
        instruction_set: instruction set of the kernels.
        texts: number of texts in a round.
        seconds: seconds of the rounds, from texts to vectors.
        threads: number of threads of the engine.
        stages: seconds of all threads in each stage.
        operations: floating-point operations of the matrix products of each stage that has some.
        peak: peak of the processor at this precision; None if it cannot be measured.
        rounds: number of rounds.
    """

    precision: str
    instruction_set: str
    texts: int
    seconds: float
    threads: int
    stages: dict[str, float]
    operations: dict[str, int]
    peak: Peak | None
    rounds: int


def measure_stages(
    workload: Workload, settings: Settings, *, precision: str, rounds: int, say: Callable[[str], None]
) -> StagesTable:
    """Time the stages for the mean over tokens of the last state of every text, in a separate process."""
    say(f"stages: {precision}")
    try:
        peak = measure_peaks(build_peak_program(settings.cache), settings.threads).get(PEAK_OF[precision])
    except LimitUnknownError:
        peak = None
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        seconds, stages, instruction_set = pool.submit(_measure, workload, settings, precision, rounds).result()
    ids = token_ids(load_tokenizer(settings.folder, settings.max_length), workload.texts)
    return StagesTable(
        precision=precision,
        instruction_set=instruction_set,
        texts=len(workload.texts),
        seconds=seconds,
        threads=settings.threads,
        stages=stages,
        operations={stage: rounds * each for stage, each in _operations(settings, [len(own) for own in ids]).items()},
        peak=peak,
        rounds=rounds,
    )


def _measure(
    workload: Workload, settings: Settings, precision: str, rounds: int
) -> tuple[float, dict[str, float], str]:
    extractor, backend = open_native(settings, precision)
    extractor.extract(workload.texts, WHOLE)
    before, start = backend.stage_seconds(), time.perf_counter()
    for _ in range(rounds):
        extractor.extract(workload.texts, WHOLE)
    seconds, after = time.perf_counter() - start, backend.stage_seconds()
    return seconds, {stage: after[stage] - before[stage] for stage in after}, backend.instruction_set


def open_native(settings: Settings, precision: str) -> tuple[Extractor, NativeBackend]:
    """Open a model on the native backend, and return the backend, too."""
    from layertap import Extractor
    from layertap.backends.native.backend import NativeBackend

    extractor = Extractor.from_pretrained(
        settings.folder,
        precision=precision,  # type: ignore[arg-type]  # refused there if it is none
        max_length=settings.max_length,
        backend="native",
        threads=settings.threads,
    )
    assert isinstance(extractor.backend, NativeBackend)
    return extractor, extractor.backend


def _operations(settings: Settings, lengths: list[int]) -> dict[str, int]:
    shape = read_shape(settings.folder)
    tokens, pairs = sum(lengths), sum(length**2 for length in lengths)
    square = 2 * shape.hidden_size**2 * tokens * shape.num_hidden_layers
    inner = 2 * shape.hidden_size * shape.intermediate_size * tokens * shape.num_hidden_layers
    return {
        "query_key_value": 3 * square,
        "attention": 4 * shape.hidden_size * pairs * shape.num_hidden_layers,
        "attention_output": square,
        "intermediate": inner,
        "output": inner,
    }
