"""Figures of scores, classes and similarities, each drawn into a part of a matplotlib figure."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from layertap.plots.style import (
    CLASSES,
    FAINT,
    GROUND,
    INK,
    ON_DARK,
    ON_LIGHT,
    OPACITY,
    REST,
    RULE,
    heat_map,
    hide_frame,
    shortened,
)

MAX_CONFUSED = 12
"""Maximum number of classes of a confusion matrix; the most frequent ones are shown."""

GROUPS = 10
"""Number of groups of pairs with similar scores whose median is drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredFeature:
    """Score of one feature, as `draw_scores` draws it.

    Attributes:
        name: name of the feature.
        layer: layer of the feature, its place on the axis; None for features of no single layer, drawn to the right.
        pooling: name of the line that the feature belongs to; None for features of no single layer.
        value: score.
        low: lower bound of the interval of the score.
        high: upper bound of the interval of the score.
        control: score of the control task, drawn below.
    """

    name: str
    layer: int | None
    pooling: str | None
    value: float
    low: float
    high: float
    control: float


def draw_scores(
    part: Any,
    features: Sequence[ScoredFeature],
    best: ScoredFeature,
    *,
    metric: str,
    title: str,
    control: str,
    baseline: float | None,
    chance: tuple[float, float, float],
) -> None:
    """Draw scores by layer, one line per pooling, with intervals; other features to the right, the control task below.

    Args:
        part: figure, or part of one.
        features: scored features.
        best: feature to mark, one of `features`.
        metric: label of the vertical axis.
        title: title of the scores.
        control: title of the control task.
        baseline: score to mark in the control task, or None.
        chance: score by chance and the bounds of its interval, where the axis of the scores begins.
    """
    axes, below = part.subplots(2, 1, sharex=True, height_ratios=(3.6, 1))
    layered = [feature for feature in features if feature.layer is not None]
    others = [feature for feature in features if feature.layer is None]
    poolings = list(dict.fromkeys(feature.pooling for feature in layered))
    for number, pooling in enumerate(poolings):
        line = sorted((one for one in layered if one.pooling == pooling), key=lambda one: one.layer or 0)
        _draw_line(axes, below, line, CLASSES[number % len(CLASSES)], str(pooling))
    value, low, high = chance
    axes.axhspan(low, high, color=FAINT, alpha=0.15, linewidth=0, zorder=0)
    axes.axhline(value, color=FAINT, linewidth=1, linestyle=(0, (1, 2)), zorder=1)
    first = 1 + max((feature.layer or 0 for feature in layered), default=-1)
    for place, feature in enumerate(others, start=first):
        _draw_point(axes, below, place, feature)
    _mark_best(axes, best, best.layer if best.layer is not None else first + others.index(best))
    if baseline is not None:
        below.axhline(baseline, color=FAINT, linewidth=1, linestyle=(0, (1, 2)), zorder=1)
    below.margins(y=0.35)
    ticks = sorted({feature.layer for feature in layered if feature.layer is not None})
    labels = [*map(str, ticks), *(textwrap.fill(feature.name, 20) for feature in others)]
    below.set_xticks([*ticks, *range(first, first + len(others))], labels)
    if len(others) > 2:
        for label in below.get_xticklabels()[len(ticks) :]:
            label.set_rotation(25)
            label.set_horizontalalignment("right")
    below.set_xlabel("hidden state (0: embedding output)" if layered else "")
    below.set_title(control, fontsize=9, fontweight="normal", color=FAINT, pad=4)
    axes.set_ylabel(metric)
    for each in (axes, below):
        each.grid(axis="y", color=RULE, linewidth=0.8)
        each.set_axisbelow(True)
    axes.set_title(title)
    if len(poolings) > 1:
        axes.legend(loc="best", frameon=False, fontsize=9, ncols=1 + len(poolings) // 4)


def _draw_line(axes: Any, below: Any, line: Sequence[ScoredFeature], color: str, name: str) -> None:
    layers = [feature.layer for feature in line]
    low, high = [feature.low for feature in line], [feature.high for feature in line]
    axes.fill_between(layers, low, high, color=color, alpha=0.13, linewidth=0)
    axes.plot(layers, [one.value for one in line], color=color, linewidth=2, marker="o", markersize=4.5, label=name)
    below.plot(layers, [one.control for one in line], color=color, linewidth=1.4, linestyle=(0, (4, 3)))


def _draw_point(axes: Any, below: Any, place: int, feature: ScoredFeature) -> None:
    interval = [[feature.value - feature.low], [feature.high - feature.value]]
    axes.errorbar([place], [feature.value], yerr=interval, fmt="o", color=FAINT, markersize=5, capsize=3, linewidth=1.4)
    below.plot([place], [feature.control], marker="_", color=FAINT, markersize=12)


def _mark_best(axes: Any, best: ScoredFeature, place: int) -> None:
    axes.plot([place], [best.value], marker="o", markersize=12, markerfacecolor="none", markeredgecolor=INK)
    axes.annotate(
        f"{best.value:.3f}",
        (place, best.value),
        textcoords="offset points",
        xytext=(0, 11),
        ha="center",
        color=INK,
        fontweight="bold",
        fontsize=10,
    )
    axes.margins(y=0.12)


def draw_confusion(part: Any, counts: npt.NDArray[np.int64], names: Sequence[str], *, title: str) -> None:
    """Draw a confusion matrix as shares of each true class; of many classes, the most frequent ones.

    Args:
        part: figure, or part of one.
        counts: int64 [K, K], with true classes as rows.
        names: names of the K classes.
        title: title of the figure.
    """
    axes = part.subplots()
    order = np.argsort(-counts.sum(axis=1), kind="stable")[:MAX_CONFUSED]
    shown = np.sort(order)
    totals = counts.sum(axis=1)[shown]
    shares = counts[np.ix_(shown, shown)] / np.maximum(totals, 1)[:, None]
    axes.imshow(shares, cmap=heat_map(), vmin=0, vmax=1)
    labels = [shortened(names[place]) for place in shown]
    crowded = len(labels) * max(map(len, labels)) > 40
    axes.set_xticks(
        range(len(shown)),
        labels,
        rotation=40 if crowded else 0,
        ha="right" if crowded else "center",
        rotation_mode="anchor" if crowded else "default",
    )
    axes.set_yticks(range(len(shown)), [f"{label}  ({total:,})" for label, total in zip(labels, totals, strict=True)])
    for (row, column), share in np.ndenumerate(shares):
        if share >= 0.005:
            color = ON_DARK if share > 0.55 else ON_LIGHT
            axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=color, fontsize=9)
    axes.set_ylabel("true (how many)")
    few = len(shown) < len(names)
    # Long names of classes leave little room to their right.
    axes.set_title(title, loc="right" if crowded else "left")
    of_many = f"; the {len(shown)} most frequent of {len(names):,} classes" if few else ""
    axes.set_xlabel(f"predicted, % of a row{of_many}")
    hide_frame(axes)


def draw_plane(
    part: Any,
    points: npt.NDArray[np.float64],
    classes: npt.NDArray[np.int64],
    names: Sequence[str],
    *,
    title: str,
    label: str,
) -> None:
    """Draw points on a plane, coloured by class; of many classes, the most frequent ones.

    Args:
        part: figure, or part of one.
        points: float64 [N, 2].
        classes: int64 [N], class of each point.
        names: names of all classes.
        title: title of the figure.
        label: label below the plane.
    """
    axes = part.subplots()
    sizes = np.bincount(classes, minlength=len(names))
    shown = np.sort(np.argsort(-sizes, kind="stable")[: len(CLASSES)])
    rest = ~np.isin(classes, shown)
    size = 12 if len(points) > 500 else 20
    if rest.any():
        others = points[rest]
        axes.scatter(others[:, 0], others[:, 1], s=size, color=REST, alpha=OPACITY, linewidth=0, label="other classes")
    # In input order, so that no class covers another.
    colors = {place: CLASSES[number] for number, place in enumerate(shown)}
    kept = points[~rest]
    point_colors = [colors[place] for place in classes[~rest]]
    axes.scatter(kept[:, 0], kept[:, 1], s=size, c=point_colors, alpha=OPACITY, linewidth=0)
    for place in shown:
        axes.scatter([], [], s=30, color=colors[place], linewidth=0, label=shortened(names[place]))
    axes.set_title(title)
    axes.set_xlabel(label)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_aspect("equal", adjustable="datalim")
    hide_frame(axes)
    axes.set_facecolor(GROUND)
    axes.legend(loc="best", frameon=True, framealpha=0.85, edgecolor="none", fontsize=8.5, handletextpad=0.3)


def draw_cosines(part: Any, gold: npt.NDArray[np.float64], cosines: npt.NDArray[np.float64], *, title: str) -> None:
    """Draw the cosine of each of N pairs against its given score, with the median along the scores.

    Args:
        part: figure, or part of one.
        gold: float64 [N], given scores.
        cosines: float64 [N].
        title: title of the figure.
    """
    axes = part.subplots()
    size, alpha = (9, 0.3) if len(gold) > 500 else (20, 0.5)
    axes.scatter(gold, cosines, s=size, color=CLASSES[0], alpha=alpha, linewidth=0, rasterized=len(gold) > 5000)
    groups = [group for group in np.array_split(np.argsort(gold, kind="stable"), GROUPS) if len(group)]
    middles = np.array([(gold[group].mean(), *np.quantile(cosines[group], (0.25, 0.5, 0.75))) for group in groups])
    axes.fill_between(middles[:, 0], middles[:, 1], middles[:, 3], color=CLASSES[1], alpha=0.2, linewidth=0)
    axes.plot(middles[:, 0], middles[:, 2], color=CLASSES[1], linewidth=2, label="median, and the middle half")
    axes.set_title(title)
    axes.set_xlabel(f"given score of {len(gold):,} pairs")
    axes.set_ylabel("cosine")
    axes.grid(color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.legend(loc="lower right", frameon=True, framealpha=0.85, edgecolor="none", fontsize=9)


def draw_similarity(part: Any, values: npt.NDArray[np.float64], names: Sequence[str], *, are_layers: bool) -> None:
    """Draw the linear CKA of each two features as a matrix.

    Args:
        part: figure, or part of one.
        values: float64 [F, F].
        names: names of the F features.
        are_layers: whether the names are numbers of layers.
    """
    axes = part.subplots()
    image = axes.imshow(values, cmap=heat_map(), vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=0 if are_layers else 40, ha="center" if are_layers else "right")
    axes.set_yticks(range(len(names)), names)
    if are_layers:
        axes.set_xlabel("hidden state")
        axes.set_ylabel("hidden state")
    if len(names) <= 13:
        for (row, column), value in np.ndenumerate(values):
            color = ON_DARK if value > 0.55 else ON_LIGHT
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=color, fontsize=8)
    part.colorbar(image, ax=axes, shrink=0.8, pad=0.03).outline.set_visible(False)
    axes.set_title("Similarity between layers (linear CKA)" if are_layers else "Similarity (linear CKA)")
    hide_frame(axes)
