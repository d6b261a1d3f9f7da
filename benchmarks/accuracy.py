"""Compare every hidden state with transformers in float32, token by token, each text alone and unpadded."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Literal

import numpy as np
import numpy.typing as npt

from benchmarks.peers import Settings
from benchmarks.workload import Workload

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerAccuracy:
    """Accuracy of one hidden state over all tokens of all texts.

    Attributes:
        layer: 0 is the embedding output.
        smallest_cosine: Smallest cosine of a token's vector with the reference's.
        largest_error: Largest absolute difference over the root mean square of this layer.
    """

    layer: int
    smallest_cosine: float
    largest_error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyTable:
    """Accuracy of all hidden states at one precision."""

    precision: str
    texts: int
    layers: tuple[LayerAccuracy, ...]


def measure_accuracy(
    workload: Workload,
    settings: Settings,
    *,
    precision: Literal["float32", "bfloat16"],
    say: Callable[[str], None],
) -> AccuracyTable:
    """Measure accuracy in a separate process; layertap runs all texts at once, packed, the reference one by one."""
    say(f"accuracy: {precision}")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        layers = pool.submit(_measure, workload, settings, precision).result()
    return AccuracyTable(precision=precision, texts=len(workload.texts), layers=layers)


def _measure(
    workload: Workload, settings: Settings, precision: Literal["float32", "bfloat16"]
) -> tuple[LayerAccuracy, ...]:
    import torch
    from transformers import AutoModel, AutoTokenizer

    from layertap import Extractor, Ragged

    torch.set_num_threads(settings.threads)
    tokenizer = AutoTokenizer.from_pretrained(settings.folder)
    model = AutoModel.from_pretrained(settings.folder, dtype=torch.float32).eval()
    extractor = Extractor.from_pretrained(settings.folder, precision=precision, max_length=settings.max_length)
    states_of_texts = extractor.extract(workload.texts, "hidden_states[:]")
    assert isinstance(states_of_texts, Ragged)
    cosines, errors, squares = [], [], []
    for text, states in zip(workload.texts, states_of_texts, strict=True):  # [T, L, H]
        batch = tokenizer(text, truncation=True, max_length=settings.max_length, return_tensors="pt")
        with torch.inference_mode():
            reference = model(**batch, output_hidden_states=True).hidden_states
        expected: Doubles = torch.cat(reference).numpy().astype(np.float64)
        actual: Doubles = states.swapaxes(0, 1).astype(np.float64)
        norms = np.linalg.norm(actual, axis=2) * np.linalg.norm(expected, axis=2)
        cosines.append(((actual * expected).sum(2) / norms).min(1))
        errors.append(np.abs(actual - expected).max((1, 2)))
        squares.append(((expected**2).sum((1, 2)), expected[0].size))
    mean_squares = sum(total for total, _ in squares) / sum(count for _, count in squares)
    largest = np.max(errors, axis=0) / np.sqrt(mean_squares)
    smallest = np.min(cosines, axis=0)
    return tuple(
        LayerAccuracy(layer=layer, smallest_cosine=float(cosine), largest_error=float(error))
        for layer, (cosine, error) in enumerate(zip(smallest, largest, strict=True))
    )
