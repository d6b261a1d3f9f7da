"""Measure the cost of features that need less or more: single layers, all layers, the first token only, words."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Literal

from benchmarks.models import read_shape
from benchmarks.peers import Settings
from benchmarks.workload import Workload

WHOLE = "last_hidden_state.mean"
ALL_LAYERS = "hidden_states[:].mean"
FIRST_TOKEN = "last_hidden_state.cls"
WORDS = (
    "last_hidden_state.words(mean)",
    "last_hidden_state.words(first)",
    "hidden_states[:].layer_mean.words(mean)",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionTable:
    """Seconds of each round of each feature, at one precision."""

    precision: str
    workload: Workload
    seconds: dict[str, tuple[float, ...]]


def measure_selection(
    workload: Workload,
    settings: Settings,
    *,
    precision: Literal["float32", "bfloat16"],
    rounds: int,
    words: bool = False,
    say: Callable[[str], None],
) -> SelectionTable:
    """Time features in turn, all on one extractor, in a separate process.

    Args:
        workload: texts to run.
        settings: settings of the run.
        precision: precision of the model.
        rounds: number of timings of each feature.
        words: whether to time features of words, instead of layers and tokens.
        say: called with the name of each measurement.
    """
    say(f"{'words' if words else 'selection'}: {precision}")
    layers = read_shape(settings.folder).num_hidden_layers
    single = [f"hidden_states[{layer}].mean" for layer in range(1, layers)]
    features = (WHOLE, *WORDS) if words else (*single, WHOLE, ALL_LAYERS, FIRST_TOKEN)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        seconds = pool.submit(_measure, workload, settings, precision, rounds, features).result()
    return SelectionTable(precision=precision, workload=workload, seconds=seconds)


def _measure(
    workload: Workload,
    settings: Settings,
    precision: Literal["float32", "bfloat16"],
    rounds: int,
    features: Sequence[str],
) -> dict[str, tuple[float, ...]]:
    import torch

    from layertap import Extractor

    torch.set_num_threads(settings.threads)
    extractor = Extractor.from_pretrained(settings.folder, precision=precision, max_length=settings.max_length)
    seconds: dict[str, list[float]] = {feature: [] for feature in features}
    for turn in range(rounds + 1):
        for feature in features:
            start = time.perf_counter()
            extractor.extract(workload.texts, feature)
            if turn > 0:  # the first round warms up
                seconds[feature].append(time.perf_counter() - start)
    return {feature: tuple(each) for feature, each in seconds.items()}
