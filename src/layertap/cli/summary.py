"""What `layertap extract` says at its end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from layertap.cli.units import in_shape
from layertap.engine.extractor import Extractor
from layertap.engine.summary import RunSummary
from layertap.words import aligned, counted, in_bytes, per_second


def report(
    extractor: Extractor,
    features: Sequence[str] | None,
    run: RunSummary,
    *,
    output: Path | None,
    skipped: int,
    error_list: Path,
    starting: float,
    running: float,
    results: Sequence[str] | None = None,
) -> list[str]:
    """Lines for a terminal.

    Args:
        extractor: what ran.
        features: as asked for; None: the default.
        run: counts.
        output: the file made, or None: standard output.
        skipped: rows left out.
        error_list: the file that lists them.
        starting: seconds before the first text.
        running: seconds from then to the end.
        results: what was made, in words; None: the features.
    """
    made = _features(extractor, features) if results is None else results
    rows = [(("features" if results is None else "results") if i == 0 else "", line) for i, line in enumerate(made)]
    rows.append(
        ("texts", f"{run.records:,} in {counted(run.tokens, 'token')}, layers run {run.layers_run} of {run.layers}")
    )
    notes = [*extractor.tokenizer.notes, *run.notes()]
    asked, trained = extractor.semantics.max_length, extractor.facts.max_length
    if asked is not None and asked > trained:
        notes.append(f"texts of up to {asked} tokens were taken; the model was trained on {trained} and fewer")
    rows += [("note" if i == 0 else "", note) for i, note in enumerate(notes)]
    rows.append(("backend", f"{extractor.semantics.precision} on {extractor.selection}"))
    if skipped:
        rows.append(("skipped", f"{counted(skipped, 'row')}, listed in {error_list}"))
    rate = f", {per_second(run.records, running)} texts/s, {per_second(run.tokens, running)} tokens/s"
    rows.append(("time", f"{running:.1f} s{rate if run.records else ''}; {starting:.1f} s before that to start"))
    rows.append(("output", "standard output" if output is None else f"{output}, {in_bytes(output.stat().st_size)}"))
    return aligned(rows, indent="")


def _features(extractor: Extractor, features: Sequence[str] | None) -> list[str]:
    plan = extractor.plan(features)
    rows = []
    for schema in plan.schemas:
        text = str(plan.features[schema.name]) if schema.name in plan.features else ""
        said = "the default feature" if features is None else f"= {text}" if text not in ("", schema.name) else ""
        rows.append((schema.name, in_shape(schema, plan.unit_of(schema.name)), said))
    return aligned(rows, indent="")
