"""Compare linear classifiers on frozen features: on each layer, and on a learned mix of layers.

One side uses vectors of an `Extractor` and the solver of ``layertap fit``; the other uses padded batches of
transformers and scikit-learn's ``LogisticRegression``. Each side runs in a separate process and reads each text once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from benchmarks.learning.scores import scores_of
from benchmarks.learning.store import Store
from benchmarks.learning.tasks import LearningTask, Part
from benchmarks.models import minilm_folder

Vectors = npt.NDArray[np.float32]
Classes = npt.NDArray[np.int64]

SIDES = ("layertap", "transformers")
BEST, MIX, FIT = "best layer", "learned mix", "layertap fit"
"""Methods that run with each seed; the last one repeats the best layer from texts to figures, with `fit_head`."""


class Side(Protocol):
    """Interface of both sides; L layers (hidden states 0 to the last), N texts or words, vectors of H numbers."""

    def vectors(self, part: Part) -> Vectors:
        """Compute the vectors of all layers, float32 [L, N, H]."""

    def fit_layer(self, vectors: Vectors, classes: Classes, num_classes: int) -> Callable[[Vectors], Classes]:
        """Fit a classifier on vectors [N, H] and return its predict function."""

    def fit_mix(
        self, vectors: Vectors, classes: Classes, num_classes: int, held: tuple[Vectors, Classes]
    ) -> tuple[Callable[[Vectors], Classes], dict[str, Any]]:
        """Fit a classifier on a mix of layers [L, N, H], and return its predict function and facts.

        The shares of the layers are learned on the held-out part.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class _Data:
    """A part of the data with its vectors; `ends` delimits the vectors of each item."""

    part: Part
    vectors: Vectors
    ends: npt.NDArray[np.int64]

    def of(self, rows: list[int]) -> tuple[Part, Vectors]:
        """Select items by their row numbers."""
        begins = np.concatenate([[0], self.ends[:-1]])
        places = np.concatenate([np.arange(begins[row], self.ends[row]) for row in rows])
        return self.part.of(rows), self.vectors[:, places]


def measure_frozen(task: LearningTask, store: Store, *, seeds: int, threads: int, say: Callable[[str], None]) -> None:
    """Fit both sides with each seed, and keep the figures of the test part.

    The seed draws the training examples; the layer is the best on the validation part.
    """
    for side in SIDES:
        key = {"part": "frozen", "task": task.name, "side": side, "method": MIX}
        left = [seed for seed in range(seeds) if not store.has({**key, "seed": seed})]
        if not left:
            continue
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            for record in pool.submit(_run, task, side, left, threads).result():
                store.add(record)
                say(f"frozen: {task.name}, {side}, {record['method']}, seed {record['seed']}: {record['scores']}")


def _run(task: LearningTask, name: str, seeds: Sequence[int], threads: int) -> list[dict[str, Any]]:
    import torch

    torch.set_num_threads(threads)
    side = make_side(name)
    start = time.perf_counter()
    train, test = _data(side, task.train), _data(side, task.test)
    dev = None if task.dev is None else _data(side, task.dev)
    seconds = time.perf_counter() - start
    records = []
    for seed in seeds:
        rows, held = task.draw(seed)
        validation = train.of(held) if dev is None else (dev.part, dev.vectors)
        for record in _on_seed(side, task, train.of(rows), validation, test):
            key = {"part": "frozen", "task": task.name, "side": name, "seed": seed}
            records.append({**key, **record, "train": len(rows), "extraction_seconds": seconds})
    if name == "layertap" and 0 in seeds:
        layer = next(record["layer"] for record in records if record["seed"] == 0 and record["method"] == BEST)
        key = {"part": "frozen", "task": task.name, "side": name, "seed": 0}
        records.append({**key, **_fit_head(task, layer)})
    return records


def make_side(name: str) -> Side:
    """Construct a side by its name."""
    if name == "layertap":
        from benchmarks.learning.layertap_side import LayertapSide

        return LayertapSide()
    from benchmarks.learning.transformers_side import TransformersSide

    return TransformersSide()


def _data(side: Side, part: Part) -> _Data:
    sizes = [1 if isinstance(given, str) else len(given) for given in part.labels]
    return _Data(part=part, vectors=side.vectors(part), ends=np.cumsum(sizes))


def _on_seed(
    side: Side, task: LearningTask, train: tuple[Part, Vectors], held: tuple[Part, Vectors], test: _Data
) -> list[dict[str, Any]]:
    names = sorted(set(train[0].flat))
    place = {name: i for i, name in enumerate(names)}
    classes = np.array([place[label] for label in train[0].flat], dtype=np.int64)

    def scores(gold: Part, predicted: Classes) -> dict[str, float]:
        return scores_of(gold, [names[i] for i in predicted.tolist()], metrics=task.metrics)

    by_layer = []
    start = time.perf_counter()
    for layer in range(len(train[1])):
        predict = side.fit_layer(train[1][layer], classes, len(names))
        by_layer.append([scores(held[0], predict(held[1][layer])), scores(test.part, predict(test.vectors[layer]))])
    seconds = time.perf_counter() - start
    decisive = task.metrics[0]
    best = max(range(len(by_layer)), key=lambda layer: by_layer[layer][0][decisive])
    layers = {
        "method": BEST,
        "layer": best,
        "scores": by_layer[best][1],
        "validation": [held_scores[decisive] for held_scores, _ in by_layer],
        "test": [test_scores[decisive] for _, test_scores in by_layer],
        "seconds": seconds,
    }
    # a label that occurs only in the validation part is no class
    held_classes = np.array([place.get(label, -1) for label in held[0].flat], dtype=np.int64)
    known = held_classes >= 0
    start = time.perf_counter()
    predict, facts = side.fit_mix(train[1], classes, len(names), (held[1][:, known], held_classes[known]))
    mix = {"method": MIX, "scores": scores(test.part, predict(test.vectors)), **facts}
    return [layers, {**mix, "seconds": time.perf_counter() - start}]


def _fit_head(task: LearningTask, layer: int) -> dict[str, Any]:
    """Repeat seed 0 as a user would, from texts to figures with `fit_head`."""
    from layertap import Extractor
    from layertap.learn import fit_head

    train = task.train.of(task.draw(0)[0])
    pooling = "mean" if task.unit == "text" else "words(mean)"
    labels, truth = (
        [list(given) if task.unit == "word" else given for given in part.labels] for part in (train, task.test)
    )
    start = time.perf_counter()
    head = fit_head(
        train.items,
        labels,
        f"hidden_states[{layer}].{pooling}",
        extractor=Extractor.from_pretrained(minilm_folder()),
        test=(task.test.items, truth),
    )
    seconds = time.perf_counter() - start
    metrics = head.metrics["test"]
    scores = {name: metrics["entities"]["f1"] if name == "entity_f1" else metrics[name] for name in task.metrics}
    return {"method": FIT, "layer": layer, "scores": scores, "seconds": seconds}
