"""Compare ``layertap.learn.finetune`` with transformers' ``Trainer`` on one recipe, one process per run."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

from benchmarks.learning.scores import scores_of
from benchmarks.learning.store import Store
from benchmarks.learning.tasks import LearningTask
from benchmarks.models import minilm_folder

BATCH_SIZE = 32
LEARNING_RATE = 1e-4
WARMUP = 0.1
EPOCHS = {"sst2": 1, "trec6": 2, "wnut17": 2}
"""Tasks that one core can fine-tune in reasonable time."""

Precision = Literal["float32", "bfloat16"]
SIDES = ("layertap", "transformers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Hyperparameters that both sides are given."""

    seed: int
    epochs: int
    precision: Precision
    threads: int


def measure_finetuned(
    task: LearningTask,
    store: Store,
    *,
    seed: int,
    precision: Precision,
    threads: int,
    say: Callable[[str], None],
) -> None:
    """Train both sides in turn with each seed, and keep the figures of the test part.

    Both sides are scored at their last checkpoint, so that no selection is involved.
    """
    for side in SIDES:
        key = {"part": "finetuned", "task": task.name, "side": side, "seed": seed, "precision": precision}
        if store.has(key):
            continue
        recipe = Recipe(seed=seed, epochs=EPOCHS[task.name], precision=precision, threads=threads)
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            predicted, facts = pool.submit(_RUNS[side], task, recipe).result()
        scores = scores_of(task.test, predicted, metrics=task.metrics)
        store.add({**key, "scores": scores, "epochs": recipe.epochs, "train": len(task.train), **facts})
        say(f"fine-tuned: {task.name}, {side}, seed {seed}: {scores}, {facts['seconds']:.0f} s")


def _layertap(task: LearningTask, recipe: Recipe) -> tuple[list[str], dict[str, Any]]:
    import torch

    from layertap.learn import Classifier, LabelledTexts, TrainingOptions, finetune

    torch.set_num_threads(recipe.threads)
    options = TrainingOptions(
        epochs=recipe.epochs,
        batch_size=BATCH_SIZE,
        learning_rate=LEARNING_RATE,
        warmup=WARMUP,
        precision=recipe.precision,
        seed=recipe.seed,
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        start = time.perf_counter()
        data = LabelledTexts(texts=task.train.items, labels=task.train.labels)
        tuned = finetune(data, folder, model=minilm_folder(), options=options)
        seconds = time.perf_counter() - start
        predictions = Classifier.from_pretrained(folder).predict(task.test.items)
    labels = predictions.labels if task.unit == "text" else [tag for tagging in predictions for tag in tagging.tags]
    return labels, {"seconds": seconds, "steps": tuned.steps}


def _transformers(task: LearningTask, recipe: Recipe) -> tuple[list[str], dict[str, Any]]:
    from benchmarks.learning import trainer

    names = sorted(set(task.train.flat))
    examples = trainer.examples_of(task.train, names, task.unit)
    steps = math.ceil(len(examples) / BATCH_SIZE) * recipe.epochs
    with tempfile.TemporaryDirectory() as scratch:
        run = trainer.make(
            examples,
            names,
            unit=task.unit,
            folder=Path(scratch),
            settings={
                "seed": recipe.seed,
                "num_train_epochs": recipe.epochs,
                "per_device_train_batch_size": BATCH_SIZE,
                "learning_rate": LEARNING_RATE,
                "weight_decay": 0.01,
                "warmup_steps": math.ceil(WARMUP * steps),
                "bf16": recipe.precision == "bfloat16",
            },
            threads=recipe.threads,
        )
        start = time.perf_counter()
        run.train()
        seconds = time.perf_counter() - start
        predicted = trainer.predicted(run.model, trainer.examples_of(task.test, names, task.unit), names)
    return predicted, {"seconds": seconds, "steps": steps}


_RUNS: dict[str, Callable[[LearningTask, Recipe], tuple[list[str], dict[str, Any]]]] = {
    "layertap": _layertap,
    "transformers": _transformers,
}
