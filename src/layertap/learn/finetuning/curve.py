"""Training curve: the loss of every step and the evaluations on the dev data, as CSV and as a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from layertap.plots.curve import draw_curve

COLUMNS = ("step", "epoch", "learning_rate", "train_loss", "dev_loss")
NUM_POINTS = 50
"""Number of parts of the run whose mean training loss is drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Record of one step of the optimiser.

    Attributes:
        step: number of the step, from 1.
        loss: mean loss of its texts or words, before the step.
        learning_rate: learning rate of the head.
    """

    step: int
    loss: float
    learning_rate: float

    def values(self) -> list[float]:
        """Return the values that `of` takes."""
        return [self.step, self.loss, self.learning_rate]

    @classmethod
    def of(cls, values: Sequence[float]) -> Step:
        """Build a step from its `values`."""
        return cls(step=int(values[0]), loss=values[1], learning_rate=values[2])


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Evaluation of the model on a dataset.

    Attributes:
        step: number of steps before the evaluation.
        epoch: number of epochs before the evaluation.
        loss: mean loss of the texts or words.
        scores: mapping from metric to score: `accuracy`, `macro_f1`, `mcc`, and `entity_f1` if the tags mark entities.
    """

    step: int
    epoch: float
    loss: float
    scores: Mapping[str, float]

    def values(self) -> dict[str, Any]:
        """Return the values that `of` takes."""
        return {"step": self.step, "epoch": self.epoch, "loss": self.loss, "scores": dict(self.scores)}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Evaluation:
        """Build an evaluation from its `values`."""
        return cls(**values)

    def __str__(self) -> str:
        parts = [f"{name} {value:.4f}" for name, value in self.scores.items()]
        return f"epoch {self.epoch:g}, step {self.step:,}: dev loss {self.loss:.4f}, {', '.join(parts)}"


def as_csv(
    steps: Sequence[Step], evaluations: Sequence[Evaluation], *, epoch_steps: int, metrics: Sequence[str]
) -> bytes:
    """Encode the curve as CSV, one row per step; cells of the dev data are empty if it was not evaluated."""
    by_step = {evaluation.step: evaluation for evaluation in evaluations}
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow([*COLUMNS, *metrics])
    for step in steps:
        seen = by_step.get(step.step)
        of_dev = ["", *("" for _ in metrics)] if seen is None else [seen.loss, *(seen.scores[m] for m in metrics)]
        rows.writerow([step.step, step.step / epoch_steps, step.learning_rate, step.loss, *of_dev])
    return text.getvalue().encode()


def as_png(
    steps: Sequence[Step], evaluations: Sequence[Evaluation], *, epoch_steps: int, best_step: int | None
) -> bytes:
    """Draw the curve as PNG, with the kept checkpoint marked."""
    dev, scores = None, {}
    if evaluations:
        dev = [seen.epoch for seen in evaluations], [seen.loss for seen in evaluations]
        scores = {metric: [seen.scores[metric] for seen in evaluations] for metric in evaluations[0].scores}
    kept = None if best_step is None else best_step / epoch_steps
    return draw_curve(_smoothed(steps, epoch_steps), dev, scores, kept=kept)


def _smoothed(steps: Sequence[Step], epoch_steps: int) -> tuple[list[float], list[float]]:
    """Return epochs and mean losses of up to `NUM_POINTS` parts of the run."""
    chunks = np.array_split(np.arange(len(steps)), min(NUM_POINTS, len(steps)))
    epochs = [steps[chunk[-1]].step / epoch_steps for chunk in chunks]
    return epochs, [float(np.mean([steps[i].loss for i in chunk])) for chunk in chunks]
