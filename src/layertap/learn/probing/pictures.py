"""Pictures of findings: one sheet as PNG, or each picture as SVG."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from layertap.learn.bootstrap import LEVEL
from layertap.learn.probing.findings import ClassDetails, Findings, PairDetails, Row
from layertap.plots.figures import (
    ScoredFeature,
    draw_confusion,
    draw_cosines,
    draw_plane,
    draw_scores,
    draw_similarity,
)
from layertap.plots.style import encoded, in_the_dark, new_figure, shortened, styled

Drawing = Callable[[Any], None]
"""Function that draws into a part of a figure."""

PROJECTIONS = {"pca": "principal components", "tsne": "t-SNE"}


def overview(findings: Findings, *, title: str) -> bytes:
    """Draw all pictures on one sheet, as PNG."""
    drawings = pictures_of(findings)
    with styled():
        figure = new_figure(13, 10)
        model = findings.provenance["model"]
        figure.suptitle(f"{title}: which layer knows it?  {model}", x=0.01, ha="left", fontsize=13)
        for part, draw in zip(_parts(figure, len(drawings)), drawings.values(), strict=True):
            draw(part)
        return encoded(figure, "png")


def pictures(findings: Findings) -> dict[str, str]:
    """Draw each picture as SVG, and return them by name."""
    texts = {}
    for name, draw in pictures_of(findings).items():
        with styled():
            figure = new_figure(*((9.2, 4.6) if name == "scores" else (5.6, 5.0)))
            draw(figure)
            texts[name] = in_the_dark(encoded(figure, "svg").decode())
    return texts


def pictures_of(findings: Findings) -> Mapping[str, Drawing]:
    """Return the drawings of findings by name."""
    details = findings.details
    own = _of_classes(findings, details) if isinstance(details, ClassDetails) else _of_pairs(details)
    return {"scores": partial(_draw_scores, findings=findings), **own, "alike": partial(_draw_alike, findings=findings)}


def _of_classes(findings: Findings, details: ClassDetails) -> dict[str, Drawing]:
    label = f"{PROJECTIONS[details.plane_how]} of {len(details.plane):,} {findings.settings['unit']}s"
    confusion = f"Confusion of {shortened(findings.winner.feature, 36)}"
    plane = shortened(details.plane_feature, 44)
    return {
        "confusion": partial(draw_confusion, counts=details.confusion, names=details.names, title=confusion),
        "plane": partial(
            draw_plane,
            points=details.plane,
            classes=details.plane_classes,
            names=details.names,
            title=plane,
            label=label,
        ),
    }


def _of_pairs(details: PairDetails) -> dict[str, Drawing]:
    title = f"Cosines of {shortened(details.shown, 36)}"
    return {"scatter": partial(draw_cosines, gold=details.gold, cosines=details.cosines, title=title)}


def _draw_scores(part: Any, findings: Findings) -> None:
    details, metric = findings.details, findings.metric
    of_what, baseline, chance = "cosine and score", None, (0.0, 0.0, 0.0)
    control, at_chance = "what 95 of 100 shuffles of the scores stay below", "no correlation"
    if isinstance(details, ClassDetails):
        at_chance = "most frequent class"
        of_what, baseline = "a linear probe", details.baseline.value
        chance = (details.chance.value, details.chance.low, details.chance.high)
        by = "" if details.control_metric == metric else f"{details.control_metric} of "
        control = f"{by}random labels (dotted: the most frequent class everywhere)"
    features = [_scored(row) for row in findings.rows]
    draw_scores(
        part,
        features,
        features[findings.rows.index(findings.winner)],
        metric=metric,
        title=f"{metric} of {of_what}, with {LEVEL:.0%} intervals (dotted: {at_chance})",
        control=control,
        baseline=baseline,
        chance=chance,
    )


def _draw_alike(part: Any, findings: Findings) -> None:
    layers = {row.feature: row.layer for row in findings.rows}
    are_layers = all(layers.get(feature) is not None for feature in findings.alike_features)
    names = [str(layers[name]) if are_layers else name for name in findings.alike_features]
    draw_similarity(part, findings.alike, names, are_layers=are_layers)


def _scored(row: Row) -> ScoredFeature:
    return ScoredFeature(
        name=row.feature,
        layer=row.layer,
        pooling=row.pooling,
        value=row.score.value,
        low=row.score.low,
        high=row.score.high,
        control=row.control,
    )


def _parts(figure: Any, number: int) -> list[Any]:
    """Divide a sheet for four pictures, or for a broad one above two."""
    if number == 4:
        return list(figure.subfigures(2, 2, width_ratios=(1.12, 1)).ravel())
    top, bottom = figure.subfigures(2, 1)
    return [top, *bottom.subfigures(1, 2)]
