"""Findings as lines, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from layertap.learn.probing.probe import Findings, Row
from layertap.learn.probing.scores import LEVEL, RESAMPLES

CELLS = 32

COLUMNS = (
    "feature",
    "layer",
    "pooling",
    "score",
    "low",
    "high",
    "standard_error",
    "control",
    "selectivity",
    "selection",
)


def header(findings: Findings) -> tuple[str, ...]:
    """Names of the columns of `cells`."""
    names = ("feature", findings.metric, f"{LEVEL:.0%} interval", "random labels", "selectivity", "C")
    return names if findings.crossed else (*names, "held out")


def cells(row: Row, findings: Findings) -> tuple[str, ...]:
    """A row in words; `held out` is what the best is chosen by, where a test part was given."""
    score = row.score
    strengths = sorted(set(row.strengths))
    found = (
        row.feature,
        f"{score.value:.3f}",
        f"{score.low:.3f} to {score.high:.3f}",
        f"{row.control:.3f}",
        f"{row.selectivity:+.3f}",
        f"{strengths[0]:g}" if len(strengths) == 1 else f"{strengths[0]:g} to {strengths[-1]:g}",
    )
    return found if findings.crossed else (*found, f"{row.selection:.3f}")


def whiskers(row: Row, findings: Findings) -> str:
    """The score and its interval, drawn on one scale for all rows."""
    least = min(each.score.low for each in findings.rows)
    width = max(each.score.high for each in findings.rows) - least

    def cell(value: float) -> int:
        return round((CELLS - 1) * (value - least) / width) if width > 0 else 0

    low, middle, high = cell(row.score.low), cell(row.score.value), cell(row.score.high)
    drawn = ["-" if low <= place <= high else " " for place in range(CELLS)]
    drawn[middle] = "o"
    return "|" + "".join(drawn) + "|" + (" best" if row is findings.winner else "")


def recommendation(findings: Findings) -> str:
    """What to take, in a sentence or two."""
    best, metric = findings.winner, findings.metric
    said = (
        f"{best.feature}: {metric} {best.score.value:.3f} ({LEVEL:.0%} interval {best.score.low:.3f} to "
        f"{best.score.high:.3f}); the most frequent class alone has {findings.baseline:.3f}."
    )
    frugal = findings.frugal
    if frugal is not None:
        said += f" {frugal.feature} costs less and is within a standard error of it: {frugal.score.value:.3f}."
    return said


def method(findings: Findings) -> str:
    """How it was measured, in a few sentences."""
    settings = findings.settings
    words = settings["unit"] == "word"
    noun = f"{settings['unit']}s"
    if settings["folds"] is not None:
        how = (
            f"{settings['folds']}-fold cross-validation over {settings['texts']:,} {noun}"
            f"{', sentences kept whole' if words else ''}; the best is chosen by the same scores, so its own is a "
            "little too good."
        )
    else:
        how = (
            f"Learned from {settings['trained']:,} {noun}, scored on {settings['tested']:,} others; the best is chosen "
            "on the examples that C was chosen on, not on the test part."
        )
    dealt = "labels dealt out at random, one to each word form" if words else "labels dealt out at random"
    return (
        f"{how} Each probe is a logistic regression on standardised features, its L2 penalty chosen on held-out "
        f"training examples. Intervals: {RESAMPLES:,} bootstrap samples of the scored "
        f"{'sentences' if words else 'texts'}; they do not cover the choice of training {noun}. Random labels: the "
        f"same probe learns and predicts {dealt}; selectivity is the difference. Seed {settings['seed']}."
    )


def as_csv(findings: Findings) -> str:
    """A line a feature."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in findings.rows:
        writer.writerow(["" if value is None else value for value in _values(row)])
    return text.getvalue()


def as_json(findings: Findings, *, command: str) -> str:
    """Everything but the plane."""
    rows = [dict(zip(COLUMNS, _values(row), strict=True)) | {"c": list(row.strengths)} for row in findings.rows]
    whole: dict[str, Any] = {
        "best": findings.winner.feature,
        "recommendation": recommendation(findings),
        "command": command,
        "baseline": findings.baseline,
        "features": rows,
        "classes": list(findings.names),
        "confusion": findings.confusion.tolist(),
        "cka": {"features": list(findings.alike_features), "values": findings.alike.round(6).tolist()},
        "settings": dict(findings.settings),
        "method": method(findings),
        "notes": list(findings.notes),
        "provenance": dict(findings.provenance),
    }
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def _values(row: Row) -> tuple[Any, ...]:
    score = row.score
    return (
        row.feature,
        row.layer,
        row.pooling,
        score.value,
        score.low,
        score.high,
        score.error,
        row.control,
        row.selectivity,
        row.selection,
    )
