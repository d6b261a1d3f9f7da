"""Time one step of fine-tuning with `finetune` on packed batches and with transformers' ``Trainer`` by its defaults.

Both train on the same sentences of SST-2 in one process, in turn. A hook after every step of the optimiser takes the
time, so that a step includes everything from one to the next: batch, forward, backward, clipping, update. Work before
the first step and after the last one (opening and writing models) does not count.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.learning.finetuned import BATCH_SIZE, SIDES, Precision
from benchmarks.learning.store import Store
from benchmarks.learning.tasks import LearningTask, Part
from benchmarks.models import minilm_folder

STEPS = 6
WARMING = 1
"""Number of steps at the start of each run that do not count."""


def measure_step(
    task: LearningTask,
    store: Store,
    *,
    rounds: int,
    precision: Precision,
    threads: int,
    say: Callable[[str], None],
) -> None:
    """Keep the median step of each side and round; the sides take turns to begin a round."""
    size = BATCH_SIZE * (STEPS + WARMING + 1)
    stride = len(task.train) // size
    part = task.train.of(list(range(0, size * stride, stride)))
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        for number in range(rounds):
            key = {"part": "step", "task": task.name, "precision": precision, "round": number}
            if all(store.has({**key, "side": side}) for side in SIDES):
                continue
            for side in SIDES if number % 2 == 0 else SIDES[::-1]:
                steps = pool.submit(_run, side, part, precision, number, threads).result()
                seconds, processor = (median(times) for times in zip(*steps, strict=True))
                store.add({**key, "side": side, "seconds": seconds, "processor_seconds": processor, "steps": steps})
                say(f"step: {precision}, {side}, round {number}: {seconds:.3f} s")


def _run(side: str, part: Part, precision: Precision, seed: int, threads: int) -> list[list[float]]:
    """Run one side and return the seconds, and the processor seconds, of each step."""
    import torch

    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as scratch, _stamped() as stamps:
        _SIDES[side](part, Path(scratch) / "model", precision, seed, threads)
    steps = [[round(after - before, 4) for before, after in zip(*both, strict=True)] for both in pairwise(stamps)]
    steps = steps[WARMING:]
    assert len(steps) == STEPS
    return steps


@contextmanager
def _stamped() -> Iterator[list[tuple[float, float]]]:
    """Record the times, by the clock and of this process, at which steps of any torch optimiser end."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    stamps: list[tuple[float, float]] = []
    hook = register_optimizer_step_post_hook(lambda *_: stamps.append((time.perf_counter(), time.process_time())))
    try:
        yield stamps
    finally:
        hook.remove()


def _layertap(part: Part, folder: Path, precision: Precision, seed: int, threads: int) -> None:  # noqa: ARG001 - as set
    from layertap.learn import LabelledTexts, TrainingOptions, finetune

    options = TrainingOptions(epochs=1, batch_size=BATCH_SIZE, precision=precision, seed=seed)
    data = LabelledTexts(texts=part.items, labels=part.labels)
    finetune(data, folder, model=minilm_folder(), options=options)


def _transformers(part: Part, folder: Path, precision: Precision, seed: int, threads: int) -> None:
    from benchmarks.learning import trainer

    names = sorted(set(part.flat))
    settings: dict[str, Any] = {"num_train_epochs": 1, "per_device_train_batch_size": BATCH_SIZE, "seed": seed}
    settings["bf16"] = precision == "bfloat16"
    examples = trainer.examples_of(part, names, "text")
    run = trainer.make(examples, names, unit="text", folder=folder, settings=settings, threads=threads)
    run.train()


_SIDES: dict[str, Callable[[Part, Path, Precision, int, int], None]] = {
    "layertap": _layertap,
    "transformers": _transformers,
}
