"""Probe every layer for nine linguistic properties: the English tasks of X-Probe, in one command.

    python examples/probing_tasks.py FOLDER REPORTS [ROWS]

FOLDER holds a folder per task with `va.txt` and `te.txt` (Ravishankar, Ovrelid and Velldal 2019). Their lines hold a
sentence, a tab and a label. Probes are fitted on `va.txt` and scored on `te.txt`; a task with only `te.txt` is scored
by cross-validation. `word_content` is limited to the 50 words that come first in the alphabet, because a probe with a
thousand classes takes hours.

REPORTS receives a report per task and `tasks.png`, a figure of all tasks. A table of all tasks is printed. ROWS limits
each file to that many rows, drawn at random.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from random import Random

from layertap.cli.main import main as layertap

WORDS = 50


def rows_of(path: Path, most: int | None) -> list[dict[str, str]]:
    """Read sentences and labels, and drop classes that are too small for a probe."""
    split = [line.rsplit("\t", 1) for line in path.read_text("utf-8").splitlines() if "\t" in line]
    rows = [{"text": text, "label": label} for text, label in split]
    if path.parent.name == "word_content":
        # Each word has about ten rows per file.
        words = WORDS if most is None else min(WORDS, max(2, most // 10))
        kept = sorted({row["label"] for row in rows})[:words]
        rows = [row for row in rows if row["label"] in kept]
    if most is not None and len(rows) > most:
        rows = Random(0).sample(rows, most)
    counts = Counter(row["label"] for row in rows)
    return [row for row in rows if counts[row["label"]] >= 5]


def probe(task: Path, reports: Path, most: int | None) -> dict[str, float]:
    """Probe every layer on a task, and return the accuracy of each feature."""
    parts = {path.stem: rows_of(path, most) for path in (task / "va.txt", task / "te.txt") if path.exists()}
    if "va" in parts:
        known = {row["label"] for row in parts["va"]}
        parts["te"] = [row for row in parts["te"] if row["label"] in known]
    with tempfile.TemporaryDirectory() as folder:
        for name, rows in parts.items():
            lines = [json.dumps(row) for row in rows]
            (Path(folder) / f"{name}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
        data, *test = [str(Path(folder) / f"{name}.jsonl") for name in parts]
        given = [data, "--label", "label", "-q", "--overwrite", *(["--test", *test] if test else [])]
        outputs = [part for ending in ("json", "html") for part in ("-o", str(reports / f"{task.name}.{ending}"))]
        with redirect_stdout(StringIO()):
            if layertap(["probe", *given, *outputs]):
                sys.exit(1)
    findings = json.loads((reports / f"{task.name}.json").read_text("utf-8"))
    return {row["feature"]: row["score"] for row in findings["features"]} | {"often": findings["baseline"]}


def draw(tasks: list[str], reports: Path) -> None:
    """Plot a panel per task: accuracy by hidden state with its interval; the most frequent class is dotted."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 8), layout="constrained")
    for axes, task in zip(figure.subplots(3, 3, sharex=True).ravel(), tasks, strict=False):
        findings = json.loads((reports / f"{task}.json").read_text("utf-8"))
        rows = findings["features"]
        layers, scores = [row["layer"] for row in rows], [row["score"] for row in rows]
        axes.fill_between(layers, [row["low"] for row in rows], [row["high"] for row in rows], alpha=0.2, linewidth=0)
        axes.plot(layers, scores, marker="o", markersize=4)
        axes.plot(layers[scores.index(max(scores))], max(scores), "o", markersize=11, fillstyle="none", color="black")
        axes.axhline(findings["baseline"], color="gray", linestyle=":")
        axes.set_title(task.replace("_", " "), loc="left", fontsize=11)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e5e7eb")
    figure.supxlabel("hidden state (0: embedding output)", fontsize=10)
    figure.supylabel("accuracy of a linear probe; dotted: the most frequent class", fontsize=10)
    figure.savefig(reports / "tasks.png", dpi=100)


def main(folder: Path, reports: Path, most: int | None) -> None:
    """Print a table with a line per task and a column per layer."""
    reports.mkdir(parents=True, exist_ok=True)
    tasks = sorted(path.parent for path in folder.glob("*/te.txt"))
    for number, task in enumerate(tasks):
        scores = probe(task, reports, most)
        if number == 0:
            print(
                f"{'':24}" + "".join(f"{name.removesuffix('.mean').replace('hidden_states', ''):>8}" for name in scores)
            )
        print(f"{task.name:24}" + "".join(f"{score:8.3f}" for score in scores.values()), flush=True)
    draw([task.name for task in tasks], reports)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None)
