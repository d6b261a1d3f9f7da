"""Format the records of learning as Markdown."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from statistics import mean, median, stdev
from typing import Any

from benchmarks.learning.finetuned import BATCH_SIZE, EPOCHS, LEARNING_RATE
from benchmarks.learning.frozen import BEST, FIT, MIX
from benchmarks.learning.scores import METRICS
from benchmarks.learning.store import Store
from benchmarks.learning.tasks import LearningTask
from benchmarks.machine import Machine
from benchmarks.ratios import ratio_by_round
from benchmarks.report import markdown_table

Record = Mapping[str, Any]

_HOW = (
    "Figures are means over seeds with their standard deviation; those of each seed are in the JSON file beside this "
    "page. Two sides are called equal where their means differ by no more than twice the standard error of that."
)
_FROZEN = (
    "A seed draws nine tenths of the training part to learn from; the layer with the best figure on the validation "
    "part (the data's own, or where there is none the tenth left) is measured on the test part. Classifiers are "
    "multinomial logistic regressions with C = 1, on means over all tokens, or over a word's. A learned mix has its "
    "shares from the validation part, as [docs/heads.md](../../docs/heads.md) says. `layertap` is an `Extractor` "
    "and the solver of `layertap fit`; `transformers` is its padded batches and scikit-learn's "
    "`LogisticRegression`. Float32 on both sides."
)
_FINETUNED = (
    f"The whole training part, batches of {BATCH_SIZE}, AdamW with weight decay 0.01, a learning rate of "
    f"{LEARNING_RATE:g} at the head and all layers, rising over a tenth of the steps and falling to 0, gradients "
    "clipped at 1; the last checkpoint, nothing chosen. Epochs: {epochs}. `layertap` is `finetune`, `transformers` "
    "its `Trainer` with the same figures and its own order, dropout and new head. Words are judged by their first "
    "token on both sides."
)
_STEP = (
    "Seconds from the end of one step of the optimiser to the end of the next (batch, forward, backward, clipping, "
    "update): `finetune`, and `Trainer` with its own defaults (batches padded to their longest), on the same "
    f"sentences of SST-2, batches of {BATCH_SIZE}, both tokenised beforehand, in turn in one process, another first "
    "each round. Medians of the rounds, of which each is the median of 6 steps; the ratio is taken round by round: "
    "median (smallest to largest). Times are the process's own time on the processor, as others may be using the "
    "same core; by the clock they may be longer, and uneven."
)


def document(machine: Machine, date: datetime.date, store: Store, tasks: Mapping[str, LearningTask]) -> str:
    """Format all records as one page."""
    parts = [
        _heading(machine, date),
        _frozen(store, tasks),
        _layers(store, tasks),
        _finetuned(store, tasks),
        _step(store),
        _runs(store),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _heading(machine: Machine, date: datetime.date) -> str:
    cores = "core" if machine.cores == 1 else "cores"
    gib = machine.memory_bytes / 1024**3
    return "\n".join(
        [
            f"# Learning with layertap on {machine.cores} {cores} of {machine.processor}, {date.isoformat()}",
            "",
            f"all-MiniLM-L6-v2, {gib:.0f} GiB, {', '.join(machine.flags)}. {machine.system}. {_HOW}",
        ]
    )


def _frozen(store: Store, tasks: Mapping[str, LearningTask]) -> str:
    rows = []
    for name, task in tasks.items():
        for metric in task.metrics:
            for method in (BEST, MIX):
                ours, theirs = _both(store, part="frozen", task=name, method=method)
                if ours:
                    rows.append([f"{name}, {METRICS[metric]}", _how(ours), *_pair(ours, theirs, metric)])
    if not rows:
        return ""
    columns = ("data, figure", "classifier on", "layertap", "transformers", "difference", "equal")
    return "\n".join(
        [
            "## Frozen features",
            "",
            _FROZEN,
            "",
            *_sizes(tasks, store),
            "",
            *markdown_table(columns, rows),
            *_fits(store),
        ]
    )


def _how(records: Sequence[Record]) -> str:
    if records[0]["method"] == MIX:
        return "learned mix"
    layers = sorted({record["layer"] for record in records})
    return "best layer: " + " or ".join(map(str, layers))


def _sizes(tasks: Mapping[str, LearningTask], store: Store) -> list[str]:
    def size(part: Any, unit: str) -> str:
        if part is None:
            return "none"
        return f"{len(part):,}" if unit == "text" else f"{len(part):,} sentences, {len(part.flat):,} words"

    rows = [
        [name, task.title, *[size(part, task.unit) for part in (task.train, task.dev, task.test)]]
        for name, task in tasks.items()
        if any(store.of(task=name))
    ]
    return markdown_table(("data", "what", "training", "validation", "test"), rows)


def _fits(store: Store) -> list[str]:
    """State whether `fit_head` gives the figures that the table shows for seed 0."""
    told = []
    for record in store.of(part="frozen", method=FIT):
        held = next(store.of(part="frozen", task=record["task"], side="layertap", method=BEST, seed=0))
        off = max(abs(record["scores"][name] - held["scores"][name]) for name in record["scores"])
        told.append(f"{record['task']} {off:.4f}")
    if not told:
        return []
    return [
        "",
        f"`fit_head` on seed 0 from texts to figures differs from the solver on kept vectors by: {', '.join(told)}.",
    ]


def _layers(store: Store, tasks: Mapping[str, LearningTask]) -> str:
    rows = []
    for name, task in tasks.items():
        records = list(store.of(part="frozen", task=name, side="layertap", method=BEST))
        if records:
            means = [mean(values) for values in zip(*[record["test"] for record in records], strict=True)]
            rows.append([f"{name}, {METRICS[task.metrics[0]]}", *[f"{value:.3f}" for value in means]])
    if not rows:
        return ""
    count = len(rows[0]) - 1
    columns = ("data, figure", *[f"[{layer}]" for layer in range(count)])
    said = "Mean figure of each hidden state on the test part, `layertap` (the choice above did not see it):"
    return "\n".join(["### By layer", "", said, "", *markdown_table(columns, rows)])


def _finetuned(store: Store, tasks: Mapping[str, LearningTask]) -> str:
    rows = []
    for name in EPOCHS:
        for precision in ("float32", "bfloat16"):
            ours, theirs = _both(store, part="finetuned", task=name, precision=precision)
            if not ours:
                continue
            for metric in tasks[name].metrics:
                label = f"{name}, {METRICS[metric]}"
                each = " / ".join(" ".join(f"{r['scores'][metric]:.4f}" for r in side) for side in (ours, theirs))
                rows.append([label, precision, *_pair(ours, theirs, metric), each])
    if not rows:
        return ""
    columns = ("data, figure", "precision", "layertap", "transformers", "difference", "equal", "each seed")
    epochs = ", ".join(f"{name} {count}" for name, count in EPOCHS.items())
    return "\n".join(["## Fine-tuned", "", _FINETUNED.format(epochs=epochs), "", *markdown_table(columns, rows)])


def _step(store: Store) -> str:
    rows = []
    for precision in ("float32", "bfloat16"):
        cells = []
        for seconds in ("processor_seconds", "seconds"):
            ours, theirs = (
                [record[seconds] for record in store.of(part="step", side=side, precision=precision)]
                for side in ("layertap", "transformers")
            )
            if ours and len(ours) == len(theirs):
                cells += [f"{median(ours):.3f}", f"{median(theirs):.3f}", str(ratio_by_round(theirs, ours))]
        if cells:
            cells[2] = f"**{cells[2]}**"
            rows.append([precision, str(len(ours)), *cells])
    if not rows:
        return ""
    times = ("layertap, s", "Trainer, s", "layertap is faster by")
    columns = ("precision", "rounds", *times, *(f"{column}, by the clock" for column in times))
    return "\n".join(["## A step of fine-tuning", "", _STEP, "", *markdown_table(columns, rows)])


def _runs(store: Store) -> str:
    used = sorted({record["run"] for record in store.records})
    lines = ["## Commands", ""]
    for run in (store.runs[number] for number in used):
        versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
        lines.append(f"- `{run['command']}`, {versions}.")
    return "\n".join(lines)


def _both(store: Store, **wanted: Any) -> tuple[list[Record], list[Record]]:
    """Select the records of both sides for the seeds that both have."""
    ours, theirs = (
        {record["seed"]: record for record in store.of(side=side, **wanted)} for side in ("layertap", "transformers")
    )
    seeds = sorted(ours.keys() & theirs.keys())
    return [ours[seed] for seed in seeds], [theirs[seed] for seed in seeds]


def _pair(ours: Sequence[Record], theirs: Sequence[Record], metric: str) -> list[str]:
    """Format both means, their difference, and whether it is within the spread of the seeds, if there are several."""
    left, right = ([record["scores"][metric] for record in side] for side in (ours, theirs))
    difference = f"{mean(left) - mean(right):+.4f}"
    if min(len(left), len(right)) < 2:
        return [_figure(left), _figure(right), difference, "one seed"]
    error = math.hypot(stdev(left) / math.sqrt(len(left)), stdev(right) / math.sqrt(len(right)))
    return [_figure(left), _figure(right), difference, "yes" if abs(mean(left) - mean(right)) <= 2 * error else "no"]


def _figure(values: Sequence[float]) -> str:
    return f"{mean(values):.4f}" + (f" +- {stdev(values):.4f}" if len(values) > 1 else "")
