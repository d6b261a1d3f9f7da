"""Format the measurements as Markdown."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from statistics import median

from benchmarks.accuracy import AccuracyTable
from benchmarks.corpus import CorpusRun
from benchmarks.machine import Machine
from benchmarks.memory import MemoryTable
from benchmarks.ratios import ratio_by_round
from benchmarks.scores import REFERENCE, RESAMPLES, Score, ScoresTable
from benchmarks.selection import WHOLE, SelectionTable
from benchmarks.speed import RowTimes, SpeedTable, median_rate
from benchmarks.stages import StagesTable
from benchmarks.startup import StartupTable

_NONE = "-"
_HOW = (
    "Rows of one table ran in turn in one run, each in a process of its own, and the figures are medians of the "
    "rounds. Ratios are taken round by round: median (smallest to largest). Every row does the whole job, "
    "from texts to vectors: the mean of the last hidden state over all tokens."
)
_MIB = 1024**2


def heading(machine: Machine, date: datetime.date) -> str:
    """Format the first lines of a results file."""
    return "\n".join(
        [
            f"# layertap on {machine.cores} cores of {machine.processor}, {date.isoformat()}",
            "",
            f"- Processor: {machine.processor}; {machine.cores} cores; {machine.memory_bytes / 1024**3:.0f} GiB",
            f"- Instruction sets that matter: {', '.join(machine.flags) or 'none of those known'}",
            f"- System: {machine.system}",
            "",
            _HOW,
        ]
    )


def run_heading(command: str, versions: dict[str, str], *, rounds: int, threads: int) -> str:
    """Format the first lines of the section of one command."""
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    return "\n".join(["## Run", "", f"`{command}`", "", f"{rounds} rounds, {threads} threads. Versions: {listed}."])


def speed_section(model: str, table: SpeedTable, *, real_weights: bool) -> str:
    """Format a speed table, with the ratios that claims use on top."""
    size = f"{table.texts} texts, {table.tokens} tokens (mean {table.tokens / table.texts:.0f})"
    lines = [
        f"### Speed: {model}, {table.workload}",
        "",
        f"{table.description}: {size}, {table.flops / table.texts / 1e9:.2f} GFLOP a text.",
        "",
        *_claims(table),
        *markdown_table(_SPEED_COLUMNS, [_speed_cells(times, table) for times in table.rows] + _limit_rows(table)),
    ]
    if not real_weights:
        lines += ["", "Random weights: cosine and error say that the rows compute the same thing, no more."]
    if table.others_share is not None:
        lines += ["", f"Other processes used {table.others_share:.0%} of all cores meanwhile."]
    if table.limit_unknown:
        lines += ["", f"Limit not measured: {table.limit_unknown}."]
    return "\n".join(lines + _failures(table.failed))


_SPEED_COLUMNS = (
    "row",
    "texts/s",
    "tokens/s",
    "ours is faster by",
    "share of limit",
    "smallest cosine",
    "error / RMS",
    "run as",
)


def _speed_cells(times: RowTimes, table: SpeedTable) -> list[str]:
    ours = _ours_for(times, table)
    faster = _NONE if times.ours or ours is None else str(ratio_by_round(times.seconds, ours.seconds))
    limit = _limit_rate(table, times.precision)
    rate = median_rate(times, table.texts)
    return [
        times.row,
        _number(rate),
        _number(median_rate(times, table.tokens)),
        faster,
        _NONE if limit is None else f"{rate / limit:.0%}",
        f"{times.agreement.smallest_cosine:.6f}",
        f"{times.agreement.largest_error:.1e}",
        str(times.variant),
    ]


def _limit_rows(table: SpeedTable) -> list[list[str]]:
    rows = []
    for precision in ("float32", "bfloat16", "int8"):
        rate = _limit_rate(table, precision)
        if rate is not None:
            peak = table.peaks[0][precision].instruction
            operations = _peak(table, precision)
            how = f"{peak}, registers only, {operations / 1e12:.2f} T operations/s"
            tokens = rate * table.tokens / table.texts
            rows.append([f"limit, {precision}", _number(rate), _number(tokens), *[_NONE] * 4, how])
    return rows


def _limit_rate(table: SpeedTable, precision: str) -> float | None:
    """Return the texts per second at the processor's peak; None if there is no measured peak."""
    if not table.peaks or precision not in table.peaks[0]:
        return None
    return _peak(table, precision) * table.texts / table.flops


def _peak(table: SpeedTable, precision: str) -> float:
    """Return the peak of the best round, since a limit holds for an undisturbed processor."""
    return max(each[precision].operations_per_second for each in table.peaks)


def _ours_for(times: RowTimes, table: SpeedTable) -> RowTimes | None:
    """Select layertap's row at the same precision; without one, int8 is compared with layertap's bfloat16."""
    ours = {row.precision: row for row in table.rows if row.ours}
    return ours.get(times.precision, ours.get("bfloat16") if times.precision == "int8" else None)


def best_peer(table: SpeedTable, precision: str) -> RowTimes | None:
    """Select the other library with the shortest median time at a precision."""
    peers = [row for row in table.rows if not row.ours and row.library != "layertap" and row.precision == precision]
    return min(peers, key=lambda row: median(row.seconds), default=None)


def _claims(table: SpeedTable) -> list[str]:
    lines = []
    for precision in ("float32", "bfloat16", "int8"):
        best = best_peer(table, precision)
        ours = None if best is None else _ours_for(best, table)
        if best is not None and ours is not None:
            ratio = ratio_by_round(best.seconds, ours.seconds)
            lines.append(f"- {ours.row} over the best {precision} peer, {best.row}: **{ratio}**")
    return [*lines, ""] if lines else []


def memory_section(model: str, table: MemoryTable) -> str:
    """Format the peak memory of each row."""
    rows = [[name, f"{peak / _MIB:,.0f}"] for name, peak in table.peak_bytes.items()]
    lines = [
        f"### Peak memory: {model}, {table.workload.name}",
        "",
        f"A fresh process that loads the row in its default variant and runs {len(table.workload.texts)} texts once.",
        "",
        *markdown_table(("row", "peak resident, MiB"), rows),
    ]
    return "\n".join(lines + _failures(table.failed))


def startup_section(model: str, table: StartupTable) -> str:
    """Format the seconds of whole processes."""
    rows = [
        [name, f"{median(each):.2f}", f"{min(each):.2f} to {max(each):.2f}"] for name, each in table.seconds.items()
    ]
    lines = [
        f"### Cold start: {model}",
        "",
        "Whole processes, model files in the system's cache; the vector is written to a file.",
        "",
        *markdown_table(("process", "seconds", "range"), rows),
    ]
    return "\n".join(lines + _failures(table.failed))


def selection_section(model: str, table: SelectionTable) -> str:
    """Format the cost of each feature relative to the mean over the last layer."""
    whole = table.seconds[WHOLE]
    rows = [
        [f"`{feature}`", _number(len(table.workload.texts) / median(seconds)), str(ratio_by_round(seconds, whole))]
        for feature, seconds in table.seconds.items()
    ]
    return "\n".join(
        [
            f"### Cost of what is asked: {model}, {table.precision}, {table.workload.name}",
            "",
            *markdown_table(("feature", "texts/s", f"time over that of `{WHOLE}`"), rows),
        ]
    )


def stages_section(model: str, workload: str, table: StagesTable) -> str:
    """Format each stage's share of the time and of the peak."""
    whole = table.seconds * table.threads
    rows = [
        [
            stage.replace("_", " "),
            f"{seconds / whole:.1%}",
            _share_of_peak(table, table.operations.get(stage, 0), seconds),
        ]
        for stage, seconds in table.stages.items()
    ]
    outside = whole - sum(table.stages.values())
    everything = sum(table.operations.values())
    rows.append(["outside the engine, waiting", f"{outside / whole:.1%}", ""])
    rows.append(["all", "100.0%", _share_of_peak(table, everything, whole)])
    rate = table.texts * table.rounds / table.seconds
    peak = "unknown" if table.peak is None else f"{table.peak.operations_per_second / 1e9:,.0f} GFLOP/s"
    return "\n".join(
        [
            f"### Stages: {model}, {table.precision} on {table.instruction_set}, {workload}",
            "",
            f"{_number(rate)} texts/s on {table.threads} threads; peak of the {table.precision} instruction {peak}.",
            "",
            *markdown_table(("stage", "share of the time", "share of the peak while in it"), rows),
        ]
    )


def _share_of_peak(table: StagesTable, operations: int, thread_seconds: float) -> str:
    if table.peak is None or not operations:
        return ""
    return f"{operations / (thread_seconds / table.threads) / table.peak.operations_per_second:.0%}"


def accuracy_section(model: str, table: AccuracyTable) -> str:
    """Format the accuracy of every hidden state against transformers in float32."""
    rows = [[str(row.layer), f"{row.smallest_cosine:.7f}", f"{row.largest_error:.1e}"] for row in table.layers]
    return "\n".join(
        [
            f"### Accuracy: {model}, {table.precision}",
            "",
            f"Every token of {table.texts} texts, ours packed together, transformers float32 each text alone.",
            "",
            *markdown_table(("hidden state", "smallest cosine", "error / RMS"), rows),
        ]
    )


def scores_section(model: str, table: ScoresTable) -> str:
    """Format the scores with one column per row, since there are fewer rows than scores."""
    measured = table.scores[REFERENCE]
    rows = [[name, *(_score(table.scores[row][name]) for row in table.scores)] for name in measured]
    rows += [
        [
            f"cosine, `{feature}`: smallest, median",
            *(f"{each[feature].smallest:.6f}, {each[feature].median:.6f}" for each in table.closeness.values()),
        ]
        for feature in table.closeness[REFERENCE]
    ]
    how = (
        f"SST-2: logistic regression on the training part, accuracy on {table.sentences:,} sentences; fitted on "
        "vectors of the same precision unless it says otherwise. "
        f"STS-B, English: cosines of {table.pairs:,} pairs, nothing fitted. "
        f"In brackets the difference to {REFERENCE} in padded batches, with the middle 95 % of {RESAMPLES:,} paired "
        "resamples of the test items. "
        f"Cosines: of the vectors of all {table.texts:,} texts with the reference's."
    )
    lines = [f"### Scores: {model}", "", how, "", *markdown_table(("score", *table.scores), rows)]
    return "\n".join(lines + _failures(table.failed))


def no_scores_section(model: str) -> str:
    """Format the section of a model with random weights, which has no scores."""
    return f"### Scores: {model}\n\nNot measured: with random weights there is nothing to score."


def _score(score: Score) -> str:
    return f"{score.value:.4f} ({score.difference:+.4f}: {score.low:+.4f} to {score.high:+.4f})"


def corpus_section(model: str, runs: Sequence[CorpusRun]) -> str:
    """Format memory against corpus size."""
    base = runs[0].peak_bytes
    rows = [
        [
            f"{run.records:,}",
            f"{run.peak_bytes / _MIB:,.0f}",
            f"{(run.peak_bytes - base) / _MIB:+,.0f}",
            f"{run.seconds:.1f}",
            f"{run.output_bytes / _MIB:,.1f}",
        ]
        for run in runs
    ]
    return "\n".join(
        [
            f"### Memory against corpus size: {model}",
            "",
            "`layertap extract` in bfloat16 on sentences of movie reviews, to Parquet; whole processes.",
            "",
            *markdown_table(("records", "peak resident, MiB", "more than the first", "seconds", "output, MiB"), rows),
        ]
    )


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Format the lines of a table; all columns but the first are numbers."""
    aligned = ["---"] + ["---:"] * (len(columns) - 1)
    return ["| " + " | ".join(cells) + " |" for cells in (columns, aligned, *rows)]


def _failures(failed: dict[str, str]) -> list[str]:
    if not failed:
        return []
    return ["", "Did not run here:", "", *(f"- {name}: {reason}" for name, reason in failed.items())]


def _number(value: float) -> str:
    """Format a number with three significant digits and thousands separated."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
