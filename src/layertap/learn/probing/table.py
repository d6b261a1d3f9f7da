"""Findings as a table for the terminal, as CSV and as JSON."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from layertap.learn.bootstrap import LEVEL, RESAMPLES, Score
from layertap.learn.mistakes import confused
from layertap.learn.probing.findings import ClassDetails, Findings, Row
from layertap.words import counted

CELLS = 32
"""Width of a chart of one row, in characters."""

CONFUSIONS = 5
"""Number of confusions that are listed."""


def header(findings: Findings) -> tuple[str, ...]:
    """Return the names of the columns of `cells`."""
    details = findings.details
    names = ["feature", findings.metric, f"{LEVEL:.0%} interval", *findings.winner.beside]
    if not isinstance(details, ClassDetails):
        return (*names, "shuffled", *(["chosen by"] if findings.apart else []))
    of = "" if details.control_metric == findings.metric else f" ({details.control_metric})"
    names += [f"random labels{of}", "selectivity", "C"]
    return (*names, *(["held out"] if findings.apart else []))


def cells(row: Row, findings: Findings) -> tuple[str, ...]:
    """Format a row; its last cell is the selection score if there is a test dataset."""
    score = row.score
    values = [row.feature, f"{score.value:.3f}", f"{score.low:.3f} to {score.high:.3f}"]
    values += [f"{other.value:.3f}" for other in row.beside.values()]
    values.append(f"{row.control:.3f}")
    if isinstance(findings.details, ClassDetails):
        strengths = sorted(set(row.strengths))
        values.append(f"{row.selectivity:+.3f}")
        values.append(f"{strengths[0]:g}" if len(strengths) == 1 else f"{strengths[0]:g} to {strengths[-1]:g}")
    return (*values, *([f"{row.selection.value:.3f}"] if findings.apart else []))


def sizes(findings: Findings) -> str:
    """Describe the number and the kind of examples."""
    settings = findings.settings
    if settings["unit"] == "pair":
        return f"{settings['pairs']:,} pairs of {settings['texts']:,} texts"
    return f"{settings['texts']:,} {settings['unit']}s, {settings['classes']:,} classes"


def whiskers(row: Row, findings: Findings, cells: int = CELLS) -> str:
    """Draw the score and its interval with characters, on one scale for all rows that begins at chance.

    Args:
        row: the row to draw.
        findings: all rows.
        cells: number of characters between the edges.
    """
    least, most = findings.axis
    width = most - least

    def cell(value: float) -> int:
        return round((cells - 1) * (value - least) / width) if width > 0 else 0

    low, middle, high = cell(row.score.low), cell(row.score.value), cell(row.score.high)
    drawn = ["-" if low <= place <= high else " " for place in range(cells)]
    drawn[middle] = "o"
    return "|" + "".join(drawn) + "|"


def scale(findings: Findings, cells: int = CELLS) -> str:
    """Return the header of the column of `whiskers`: the bounds of its scale, in as many characters."""
    least, most = (f"{bound:.3f}" for bound in findings.axis)
    return f"|{least}{most:>{cells - len(least)}}|"


def recommendation(findings: Findings) -> str:
    """Recommend a feature, in one or two sentences."""
    best, details = findings.winner, findings.details
    scores = {findings.metric: best.score, **best.beside}
    said = f"{best.feature}: " + ", ".join(f"{name} {_with_interval(score)}" for name, score in scores.items())
    if isinstance(details, ClassDetails):
        by = "" if details.control_metric == findings.metric else f"{details.control_metric} "
        said += f"; the most frequent class alone has {by}{_with_interval(details.baseline)}."
    else:
        said += f"; of shuffled scores 95 in 100 stay below {best.control:.3f}."
    if findings.at_chance:
        than = "predicting the most frequent class" if isinstance(details, ClassDetails) else "shuffled scores"
        return f"{said} No feature is better than {than}, so that none is worth using for these labels."
    frugal = findings.frugal
    if frugal is None:
        return said
    if not findings.apart:
        return (
            f"{said} {frugal.feature} costs less: {_with_interval(frugal.score)}, within one standard error "
            f"({best.score.error:.3f}) of the best."
        )
    chosen = "chosen by" if not isinstance(details, ClassDetails) else "held out"
    return (
        f"{said} {frugal.feature} costs less: {_with_interval(frugal.score)}; {chosen} "
        f"{_with_interval(frugal.selection)} against {_with_interval(best.selection)}. Both are within one standard "
        f"error ({best.score.error:.3f}; {chosen} {best.selection.error:.3f}) of the best."
    )


def _with_interval(score: Score) -> str:
    return f"{score.value:.3f} ({LEVEL:.0%} interval {score.low:.3f} to {score.high:.3f})"


def mistakes(findings: Findings, most: int) -> list[str]:
    """Describe the most frequent confusions and the most confident mistakes, as lines of text."""
    details, lines = findings.details, []
    if isinstance(details, ClassDetails):
        pairs = confused(details.confusion, details.names, CONFUSIONS)
        if pairs:
            lines.append("confused  " + ", ".join(f"{one} -> {other} {count:,}" for one, other, count in pairs))
        kind = f"most confident of {counted(findings.num_mistakes, 'mistake')}"
    else:
        kind = "pairs whose ranks by score and by cosine differ most"
    shown = findings.mistakes[:most]
    lines += [f"{kind}:"] if shown else []
    for it in shown:
        where = f"row {it.row}" + ("" if it.word is None else f", {it.word!r}")
        sure = "" if it.confidence is None else f" ({it.confidence:.2f})"
        pair = "" if it.pair is None else f" | {it.pair}"
        lines.append(f"  {where}: {it.true} -> {it.predicted}{sure}: {it.text}{pair}")
    return lines


def method(findings: Findings) -> str:
    """Describe how the scores were measured, in a few sentences."""
    settings = findings.settings
    if settings["unit"] == "pair":
        return _method_of_pairs(findings)
    words = settings["unit"] == "word"
    noun = f"{settings['unit']}s"
    if not findings.apart:
        how = (
            f"{settings['folds']}-fold cross-validation over {settings['texts']:,} {noun}"
            f"{', sentences kept whole' if words else ''}; the best is chosen by the same scores, so its own is a "
            "little too good."
        )
    else:
        how = (
            f"Learned from {settings['trained']:,} {noun}, scored on {settings['tested']:,} others; the best is chosen "
            "on the examples that C was chosen on, not on the test data."
        )
    details = findings.details
    assert isinstance(details, ClassDetails)
    by = "" if details.control_metric == findings.metric else f" of {details.control_metric}"
    dealt = "labels dealt out at random, one to each word form" if words else "labels dealt out at random"
    return (
        f"{how} Each probe is a logistic regression on standardised features, its L2 penalty chosen on held-out "
        f"training examples. Intervals: {RESAMPLES:,} bootstrap samples of the scored "
        f"{'sentences' if words else 'texts'}; they do not cover the choice of training {noun}. Random labels: the "
        f"same probe learns and predicts {dealt}; selectivity is the difference{by}. Seed {settings['seed']}."
    )


def _method_of_pairs(findings: Findings) -> str:
    settings = findings.settings
    chosen = f"the best is chosen on the {settings['pairs'] - settings['tested']:,} other pairs"
    if not findings.apart:
        chosen = "the best is chosen by the same scores, so its own is a little too good"
    return (
        f"Scored on {settings['tested']:,} pairs: cosine of the vectors of the two texts, each run by itself, against "
        f"the given score. Nothing is learned; {chosen}. Intervals: {RESAMPLES:,} bootstrap samples of the pairs. "
        f"Shuffled: what the correlation stays below, its sign left aside, in 95 of 100 shuffles of the scores. Seed "
        f"{settings['seed']}."
    )


def as_csv(findings: Findings) -> str:
    """Return the findings as CSV, one row per feature."""
    text = io.StringIO()
    rows = [_values(row) for row in findings.rows]
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_json(findings: Findings, *, command: str) -> str:
    """Return the findings as JSON, without the projection."""
    details = findings.details
    rows = [_values(row) | ({"c": list(row.strengths)} if row.strengths else {}) for row in findings.rows]
    if isinstance(details, ClassDetails):
        own: dict[str, Any] = {
            "control_metric": details.control_metric,
            "baseline": details.baseline.value,
            "baseline_low": details.baseline.low,
            "baseline_high": details.baseline.high,
            "chance": details.chance.value,
            "classes": list(details.names),
            "confusion": details.confusion.tolist(),
        }
    else:
        own = {"cosines": {"feature": details.shown, "values": details.cosines.round(6).tolist()}}
        own["scores"] = details.gold.tolist()
    whole: dict[str, Any] = {
        "best": findings.winner.feature,
        "recommendation": recommendation(findings),
        "command": command,
        "features": rows,
        **own,
        "num_mistakes": findings.num_mistakes,
        "mistakes": [mistake.values() for mistake in findings.mistakes],
        "cka": {"features": list(findings.alike_features), "values": findings.alike.round(6).tolist()},
        "settings": dict(findings.settings),
        "method": method(findings),
        "notes": list(findings.notes),
        "provenance": dict(findings.provenance),
    }
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def _values(row: Row) -> dict[str, Any]:
    score = row.score
    values = {
        "feature": row.feature,
        "layer": row.layer,
        "pooling": row.pooling,
        "score": score.value,
        "low": score.low,
        "high": score.high,
        "standard_error": score.error,
        "control": row.control,
        "selectivity": row.selectivity,
        "selection": row.selection.value,
        "selection_low": row.selection.low,
        "selection_high": row.selection.high,
        "selection_standard_error": row.selection.error,
    }
    for name, other in row.beside.items():
        values |= {name: other.value, f"{name}_low": other.low, f"{name}_high": other.high}
    return values
