"""The training curve: what every step and every look at the dev part said, as CSV and as a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

COLUMNS = ("step", "epoch", "learning_rate", "train_loss", "dev_loss")
SMOOTHED = 50
"""The picture shows the training loss as the mean of about so many steps' parts of the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step of the optimiser.

    Attributes:
        step: its number, from 1.
        loss: the mean over its records, or over their words, before it.
        learning_rate: of the head.
    """

    step: int
    loss: float
    learning_rate: float

    def values(self) -> list[float]:
        """As `of` takes them."""
        return [self.step, self.loss, self.learning_rate]

    @classmethod
    def of(cls, values: Sequence[float]) -> Step:
        """From `values`."""
        return cls(step=int(values[0]), loss=values[1], learning_rate=values[2])


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A look at the dev part.

    Attributes:
        step: after how many steps.
        epoch: the same in epochs.
        loss: the mean over its records, or over their words.
        scores: `accuracy`, `macro_f1`, `mcc`, and of entities `entity_f1`.
    """

    step: int
    epoch: float
    loss: float
    scores: Mapping[str, float]

    def values(self) -> dict[str, Any]:
        """As `of` takes them."""
        return {"step": self.step, "epoch": self.epoch, "loss": self.loss, "scores": dict(self.scores)}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Evaluation:
        """From `values`."""
        return cls(**values)

    def __str__(self) -> str:
        parts = [f"{name} {value:.4f}" for name, value in self.scores.items()]
        return f"epoch {self.epoch:g}, step {self.step:,}: dev loss {self.loss:.4f}, {', '.join(parts)}"


def as_csv(
    steps: Sequence[Step], evaluations: Sequence[Evaluation], *, epoch_steps: int, metrics: Sequence[str]
) -> bytes:
    """Encodes the curve as CSV, a row a step; cells of the dev part are empty where it was not evaluated."""
    looks = {seen.step: seen for seen in evaluations}
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow([*COLUMNS, *metrics])
    for step in steps:
        seen = looks.get(step.step)
        of_dev = ["", *("" for _ in metrics)] if seen is None else [seen.loss, *(seen.scores[m] for m in metrics)]
        rows.writerow([step.step, step.step / epoch_steps, step.learning_rate, step.loss, *of_dev])
    return text.getvalue().encode()


def can_draw() -> bool:
    """Whether matplotlib is there."""
    return find_spec("matplotlib") is not None


def as_png(
    steps: Sequence[Step], evaluations: Sequence[Evaluation], *, epoch_steps: int, best_step: int | None
) -> bytes:
    """Draws the losses above, the scores below, and marks the best checkpoint."""
    from matplotlib.figure import Figure  # no window system is asked for

    rows = 2 if evaluations else 1
    figure = Figure(figsize=(7, 2 + 2 * rows), layout="constrained")
    axes = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
    epochs, losses = _smoothed(steps, epoch_steps)
    axes[0].plot(epochs, losses, label="training", color="tab:gray")
    axes[0].set_ylabel("loss")
    axes[0].set_ylim(bottom=0)
    if evaluations:
        looks = [seen.epoch for seen in evaluations]
        axes[0].plot(looks, [seen.loss for seen in evaluations], label="dev", marker="o", color="tab:blue")
        for metric in evaluations[0].scores:
            axes[1].plot(looks, [seen.scores[metric] for seen in evaluations], label=metric, marker="o")
        axes[1].set_ylabel("dev scores")
        if best_step is not None:
            for axis in axes:
                axis.axvline(best_step / epoch_steps, color="tab:green", linestyle=":", label="kept")
    for axis in axes:
        axis.legend()
        axis.grid(alpha=0.3)
    axes[-1].set_xlabel("epoch")
    picture = io.BytesIO()
    figure.savefig(picture, dpi=120, metadata={"Software": None})
    return picture.getvalue()


def _smoothed(steps: Sequence[Step], epoch_steps: int) -> tuple[list[float], list[float]]:
    """(epoch, mean loss) of up to `SMOOTHED` parts of the run."""
    chunks = np.array_split(np.arange(len(steps)), min(SMOOTHED, len(steps)))
    epochs = [steps[chunk[-1]].step / epoch_steps for chunk in chunks]
    return epochs, [float(np.mean([steps[i].loss for i in chunk])) for chunk in chunks]
