"""Pictures of findings, drawn with matplotlib."""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from layertap.learn.probing.bootstrap import LEVEL
from layertap.learn.probing.findings import ClassDetails, Findings, PairDetails, Row

INK, FAINT, RULE = "#1f2937", "#6b7280", "#e5e7eb"
SERIES = ("#2563eb", "#ea580c", "#059669", "#9333ea", "#ca8a04", "#0891b2", "#be123c", "#4d7c0f")
CLASSES = ("#2563eb", "#ea580c", "#059669", "#9333ea", "#ca8a04", "#0891b2", "#be123c", "#78716c", "#4338ca", "#65a30d")
REST = "#d1d5db"
MAX_CONFUSED = 12
"""Classes that a confusion matrix has room for; the most frequent ones are shown."""

GROUPS = 10
"""Pairs of about the same score, of which the middle is drawn: so many groups."""

SANS = ("DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Micro Hei", "Microsoft YaHei", "PingFang SC")

Drawing = Callable[[Any, Findings], None]


def overview(findings: Findings, *, title: str) -> bytes:
    """All pictures on one sheet: PNG."""
    drawings = pictures_of(findings)
    with _style():
        figure = _figure(13, 10)
        figure.suptitle(
            f"{title}: which layer knows it?  {findings.provenance['model']}", x=0.01, ha="left", fontsize=13
        )
        for part, draw in zip(_sheet(figure, len(drawings)), drawings.values(), strict=True):
            draw(part, findings)
        return _saved(figure, "png")


def pictures(findings: Findings) -> dict[str, str]:
    """Each picture by its name: SVG."""
    found = {}
    for name, draw in pictures_of(findings).items():
        with _style():
            figure = _figure(*((9.2, 4.6) if name == "scores" else (5.6, 5.0)))
            draw(figure, findings)
            found[name] = _saved(figure, "svg").decode()
    return found


def draw_scores(part: Any, findings: Findings) -> None:
    """Scores by layer, a line a pooling, with intervals; other features to the right; random labels below."""
    axes, below = part.subplots(2, 1, sharex=True, height_ratios=(3.6, 1))
    layered = [row for row in findings.rows if row.layer is not None]
    others = [row for row in findings.rows if row.layer is None]
    poolings = list(dict.fromkeys(row.pooling for row in layered))
    for number, pooling in enumerate(poolings):
        rows = sorted((row for row in layered if row.pooling == pooling), key=lambda row: row.layer or 0)
        _draw_line(axes, below, rows, SERIES[number % len(SERIES)], str(pooling))
    first = 1 + max((row.layer or 0 for row in layered), default=-1)
    for place, row in enumerate(others, start=first):
        _draw_point(axes, below, place, row)
    _mark_best(axes, findings, first, others)
    control = "what 95 of 100 shuffles of the scores stay below"
    if isinstance(findings.details, ClassDetails):
        below.axhline(findings.details.baseline, color=FAINT, linewidth=1, linestyle=(0, (1, 2)), zorder=1)
        by = findings.details.control_metric
        control = (
            f"{'' if by == findings.metric else f'{by} of '}random labels (dotted: the most frequent class everywhere)"
        )
    below.margins(y=0.35)
    ticks = sorted({row.layer for row in layered if row.layer is not None})
    labels = [*map(str, ticks), *(textwrap.fill(row.feature, 20) for row in others)]
    below.set_xticks([*ticks, *range(first, first + len(others))], labels)
    if len(others) > 2:
        for label in below.get_xticklabels()[len(ticks) :]:
            label.set_rotation(25)
            label.set_horizontalalignment("right")
    below.set_xlabel("hidden state (0: embedding output)" if layered else "")
    below.set_title(control, fontsize=9, fontweight="normal", color=FAINT, pad=4)
    axes.set_ylabel(findings.metric)
    for each in (axes, below):
        each.grid(axis="y", color=RULE, linewidth=0.8)
        each.set_axisbelow(True)
    of_what = "a linear probe" if isinstance(findings.details, ClassDetails) else "cosine and score"
    axes.set_title(f"{findings.metric} of {of_what}, with {LEVEL:.0%} intervals")
    if len(poolings) > 1:
        axes.legend(loc="best", frameon=False, fontsize=9, ncols=1 + len(poolings) // 4)


def _draw_line(axes: Any, below: Any, rows: list[Row], color: str, name: str) -> None:
    layers = [row.layer for row in rows]
    low, high = [row.score.low for row in rows], [row.score.high for row in rows]
    axes.fill_between(layers, low, high, color=color, alpha=0.13, linewidth=0)
    axes.plot(
        layers, [row.score.value for row in rows], color=color, linewidth=2, marker="o", markersize=4.5, label=name
    )
    below.plot(layers, [row.control for row in rows], color=color, linewidth=1.4, linestyle=(0, (4, 3)))


def _draw_point(axes: Any, below: Any, place: int, row: Row) -> None:
    score = row.score
    reach = [[score.value - score.low], [score.high - score.value]]
    axes.errorbar([place], [score.value], yerr=reach, fmt="o", color=FAINT, markersize=5, capsize=3, linewidth=1.4)
    below.plot([place], [row.control], marker="_", color=FAINT, markersize=12)


def _mark_best(axes: Any, findings: Findings, first: int, others: list[Row]) -> None:
    best = findings.winner
    place = best.layer if best.layer is not None else first + others.index(best)
    axes.plot([place], [best.score.value], marker="o", markersize=12, markerfacecolor="none", markeredgecolor=INK)
    axes.annotate(
        f"{best.score.value:.3f}",
        (place, best.score.value),
        textcoords="offset points",
        xytext=(0, 11),
        ha="center",
        color=INK,
        fontweight="bold",
        fontsize=10,
    )
    axes.margins(y=0.12)


def draw_confusion(part: Any, findings: Findings) -> None:
    """What the best takes for what: shares of each true class; of many classes the most frequent."""
    details = _of_classes(findings)
    axes = part.subplots()
    counts = details.confusion
    order = np.argsort(-counts.sum(axis=1), kind="stable")[:MAX_CONFUSED]
    shown = np.sort(order)
    totals = counts.sum(axis=1)[shown]
    shares = counts[np.ix_(shown, shown)] / np.maximum(totals, 1)[:, None]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    names = [_short(details.names[place]) for place in shown]
    crowded = len(names) * max(map(len, names)) > 40
    axes.set_xticks(
        range(len(shown)),
        names,
        rotation=40 if crowded else 0,
        ha="right" if crowded else "center",
        rotation_mode="anchor" if crowded else "default",
    )
    axes.set_yticks(range(len(shown)), [f"{name}  ({total:,})" for name, total in zip(names, totals, strict=True)])
    for (row, column), share in np.ndenumerate(shares):
        if share >= 0.005:
            color = "white" if share > 0.55 else INK
            axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=color, fontsize=9)
    axes.set_ylabel("true (how many)")
    few = len(shown) < len(details.names)
    # Long names of classes leave little room to the right of them.
    axes.set_title(f"Confusion of {_short(findings.winner.feature, 36)}", loc="right" if crowded else "left")
    of_many = f"; the {len(shown)} most frequent of {len(details.names):,} classes" if few else ""
    axes.set_xlabel(f"predicted, % of a row{of_many}")
    _plain(axes)


def draw_plane(part: Any, findings: Findings) -> None:
    """A sample of texts on a plane, coloured by class; of many classes the most frequent."""
    details = _of_classes(findings)
    axes = part.subplots()
    sizes = np.bincount(details.plane_classes, minlength=len(details.names))
    shown = np.sort(np.argsort(-sizes, kind="stable")[: len(CLASSES)])
    rest = ~np.isin(details.plane_classes, shown)
    size = 12 if len(details.plane) > 500 else 20
    if rest.any():
        axes.scatter(
            details.plane[rest, 0],
            details.plane[rest, 1],
            s=size,
            color=REST,
            alpha=0.6,
            linewidth=0,
            label="other classes",
        )
    # Point by point in input order, so that no class hides another.
    colors = {place: CLASSES[number] for number, place in enumerate(shown)}
    kept = details.plane[~rest]
    axes.scatter(
        kept[:, 0],
        kept[:, 1],
        s=size,
        c=[colors[place] for place in details.plane_classes[~rest]],
        alpha=0.6,
        linewidth=0,
    )
    for place in shown:
        axes.scatter([], [], s=30, color=colors[place], linewidth=0, label=_short(details.names[place]))
    how = {"pca": "principal components", "tsne": "t-SNE"}[details.plane_how]
    axes.set_title(_short(details.plane_feature, 44))
    axes.set_xlabel(f"{how} of {len(details.plane):,} {findings.settings['unit']}s")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_aspect("equal", adjustable="datalim")
    _plain(axes)
    axes.set_facecolor("#f9fafb")
    axes.legend(loc="best", frameon=True, framealpha=0.85, edgecolor="none", fontsize=8.5, handletextpad=0.3)


def draw_scatter(part: Any, findings: Findings) -> None:
    """The cosine of each tested pair against its score, and the middle of the cosines along the scores."""
    axes, details = part.subplots(), findings.details
    assert isinstance(details, PairDetails)
    gold, cosines = details.gold, details.cosines
    size, alpha = (9, 0.3) if len(gold) > 500 else (20, 0.5)
    axes.scatter(gold, cosines, s=size, color=SERIES[0], alpha=alpha, linewidth=0, rasterized=len(gold) > 5000)
    groups = [group for group in np.array_split(np.argsort(gold, kind="stable"), GROUPS) if len(group)]
    middles = np.array([(gold[group].mean(), *np.quantile(cosines[group], (0.25, 0.5, 0.75))) for group in groups])
    axes.fill_between(middles[:, 0], middles[:, 1], middles[:, 3], color=SERIES[1], alpha=0.2, linewidth=0)
    axes.plot(middles[:, 0], middles[:, 2], color=SERIES[1], linewidth=2, label="median, and the middle half")
    axes.set_title(f"Cosines of {_short(details.shown, 36)}")
    axes.set_xlabel(f"given score of {len(gold):,} pairs")
    axes.set_ylabel("cosine")
    axes.grid(color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.legend(loc="lower right", frameon=True, framealpha=0.85, edgecolor="none", fontsize=9)


def draw_alike(part: Any, findings: Findings) -> None:
    """Linear CKA of each two features."""
    axes = part.subplots()
    values = findings.alike
    image = axes.imshow(values, cmap="viridis", vmin=0, vmax=1)
    layers = {row.feature: row.layer for row in findings.rows}
    numbered = all(layers.get(feature) is not None for feature in findings.alike_features)
    names = [str(layers[name]) if numbered else name for name in findings.alike_features]
    axes.set_xticks(range(len(names)), names, rotation=0 if numbered else 40, ha="center" if numbered else "right")
    axes.set_yticks(range(len(names)), names)
    if numbered:
        axes.set_xlabel("hidden state")
        axes.set_ylabel("hidden state")
    if len(names) <= 13:
        for (row, column), value in np.ndenumerate(values):
            color = "white" if value < 0.6 else INK
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=color, fontsize=8)
    part.colorbar(image, ax=axes, shrink=0.8, pad=0.03).outline.set_visible(False)
    axes.set_title("Similarity between layers (linear CKA)" if numbered else "Similarity (linear CKA)")
    _plain(axes)


def pictures_of(findings: Findings) -> Mapping[str, Drawing]:
    """What there is to draw, by its name."""
    own: Mapping[str, Drawing] = {"scatter": draw_scatter}
    if isinstance(findings.details, ClassDetails):
        own = {"confusion": draw_confusion, "plane": draw_plane}
    return {"scores": draw_scores, **own, "alike": draw_alike}


def _of_classes(findings: Findings) -> ClassDetails:
    assert isinstance(findings.details, ClassDetails)
    return findings.details


def _sheet(figure: Any, number: int) -> list[Any]:
    """Room for four pictures, or for a broad one above two."""
    if number == 4:
        return list(figure.subfigures(2, 2, width_ratios=(1.12, 1)).ravel())
    top, bottom = figure.subfigures(2, 1)
    return [top, *bottom.subfigures(1, 2)]


def _plain(axes: Any) -> None:
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0)


def _short(name: str, most: int = 18) -> str:
    return name if len(name) <= most else name[: most - 3] + "..."


def _figure(width: float, height: float) -> Any:
    # Not pyplot, which keeps figures and picks a window system.
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)
    return figure


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib
    from matplotlib import font_manager

    known = {font.name for font in font_manager.fontManager.ttflist}
    settings: dict[str, Any] = {
        "font.family": [name for name in SANS if name in known] or ["sans-serif"],
        "font.size": 10,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": FAINT,
        "axes.titlesize": 11.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.titlepad": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.color": FAINT,
        "ytick.color": FAINT,
        "text.parse_math": False,  # a label may be "$"
        "svg.fonttype": "none",  # text stays text: any script shows in a browser
        "svg.hashsalt": "layertap",  # the same findings, the same bytes
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def _saved(figure: Any, kind: str) -> bytes:
    buffer = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": "layertap"}
    figure.savefig(buffer, format=kind, dpi=150, metadata=metadata)
    return buffer.getvalue()
