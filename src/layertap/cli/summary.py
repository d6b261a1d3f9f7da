"""The summary that a command prints when a file has been written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from layertap.cli.tables import print_facts
from layertap.engine.extractor import Extractor
from layertap.engine.summary import RunSummary
from layertap.words import aligned, counted, in_bytes, rate

if TYPE_CHECKING:
    from layertap.features.naming import Features
    from layertap.jobs.job import Job


def print_summary(
    extractor: Extractor,
    job: Job,
    run: RunSummary,
    *,
    starting: float,
    running: float,
    results: Sequence[str] | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Print what a run did to standard error.

    Args:
        extractor: the model that ran.
        job: what was to be done.
        run: counts of the run.
        starting: seconds before the first text.
        running: seconds from then to the end.
        results: descriptions of what was made, or None for the features.
        notes: remarks beside those of the run.
    """
    made = features_in_words(extractor, job.features) if results is None else results
    rows = [(("features" if results is None else "results") if i == 0 else "", line) for i, line in enumerate(made)]
    rows.append(
        ("texts", f"{run.records:,} in {counted(run.tokens, 'token')}, layers run {run.layers_run} of {run.layers}")
    )
    warnings = run.warnings()
    notes = [*extractor.tokenizer.notes, *(note for note in run.notes() if note not in warnings), *notes]
    asked, trained = extractor.semantics.max_length, extractor.facts.max_length
    if asked is not None and asked > trained:
        notes.append(f"texts of up to {asked} tokens were taken; the model was trained on {trained} and fewer")
    rows += [("warning" if i == 0 else "", warning) for i, warning in enumerate(warnings)]
    rows += [("note" if i == 0 else "", note) for i, note in enumerate(notes)]
    rows.append(("backend", f"{extractor.semantics.precision} on {extractor.selection}"))
    if run.skipped:
        rows.append(("skipped", f"{counted(run.skipped, 'row')}, listed in {job.error_list}"))
    speed = f", {rate(run.records, running, 'text')}, {rate(run.tokens, running, 'token')}" if run.records else ""
    rows.append(("time", f"{running:.1f} s{speed}; {starting:.1f} s before that to start"))
    size = "" if job.is_streamed else in_bytes(Path(job.output).stat().st_size)
    rows.append(("output", "standard output" if job.is_streamed else f"{job.output}, {size}"))
    print_facts(rows)


def features_in_words(extractor: Extractor, features: Features | None) -> list[str]:
    """Describe each result in a line: its name, its dtype and shape, and what it stands for."""
    plan = extractor.plan(features)
    rows = []
    for schema in plan.schemas:
        text = str(plan.features[schema.name]) if schema.name in plan.features else ""
        said = "the default feature" if features is None else f"= {text}" if text not in ("", schema.name) else ""
        rows.append((schema.name, f"{schema.described} a text", said))
    return aligned(rows, indent="")
