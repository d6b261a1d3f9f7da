"""Training curve: losses above, scores on the dev data below."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence


def draw_curve(
    training: tuple[Sequence[float], Sequence[float]],
    dev: tuple[Sequence[float], Sequence[float]] | None,
    scores: Mapping[str, Sequence[float]],
    *,
    kept: float | None,
) -> bytes:
    """Draw a training curve as PNG.

    Args:
        training: epochs, and the training loss at each.
        dev: epochs of the evaluations, and the dev loss at each; None if there is no dev data.
        scores: name of a metric -> score at each evaluation.
        kept: epoch of the weights that were kept, which is marked; None marks nothing.
    """
    from matplotlib.figure import Figure  # pyplot would choose a window system

    rows = 1 if dev is None else 2
    figure = Figure(figsize=(7, 2 + 2 * rows), layout="constrained")
    axes = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
    axes[0].plot(*training, label="training", color="tab:gray")
    axes[0].set_ylabel("loss")
    axes[0].set_ylim(bottom=0)
    if dev is not None:
        axes[0].plot(*dev, label="dev", marker="o", color="tab:blue")
        for metric, values in scores.items():
            axes[1].plot(dev[0], values, label=metric, marker="o")
        axes[1].set_ylabel("dev scores")
        if kept is not None:
            for axis in axes:
                axis.axvline(kept, color="tab:green", linestyle=":", label="kept")
    for axis in axes:
        axis.legend()
        axis.grid(alpha=0.3)
    axes[-1].set_xlabel("epoch")
    picture = io.BytesIO()
    figure.savefig(picture, dpi=120, metadata={"Software": None})
    return picture.getvalue()
