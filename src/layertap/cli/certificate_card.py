"""Format a certificate for a terminal, at most 100 columns wide unless names are long."""

from __future__ import annotations

import math
from collections.abc import Mapping

from layertap.verify.certificate import Certificate, Figures, SetupResult
from layertap.verify.measure import OWN_ERROR_FACTOR
from layertap.words import aligned, counted

RIGHT_ALIGNED = 4
FAILURES_SHOWN = 3
POOLERS = {
    "untrained": "stored, never trained; compared all the same",
    "absent": "not in the files: not compared",
    "none": "this architecture has none",
}


def in_lines(certificate: Certificate, refused: Mapping[str, str] | None = None) -> list[str]:
    """Formats a certificate: facts about the comparison, one table per setup, and the verdict last.

    Args:
        certificate: the results.
        refused: for each backend that cannot run the model, the reason.
    """
    not_run = [("not run", why) for why in (refused or {}).values()]
    lines = [certificate.model, *aligned([*_rows(certificate), *not_run])]
    for result in certificate.results:
        lines += ["", *_table(result)]
    return [*lines, "", verdict(certificate)]


def verdict(certificate: Certificate) -> str:
    """Summarises a certificate in one line: passed, or the setups and figures that failed."""
    if certificate.passed:
        return f"passed: {counted(len(certificate.results), 'setup')}, every figure within its bound"
    failed = [f"{result.setup} ({_some(result.failures)})" for result in certificate.results if not result.passed]
    if certificate.texts.different_ids:
        failed.insert(0, "token ids")
    return "FAILED: " + "; ".join(failed)


def _some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - FAILURES_SHOWN} more" if len(names) > FAILURES_SHOWN else ""
    return ", ".join(names[:FAILURES_SHOWN]) + more


def _rows(certificate: Certificate) -> list[tuple[str, str]]:
    texts = certificate.texts
    lengths = f"{min(texts.lengths):,} to {max(texts.lengths):,} tokens, {sum(texts.lengths):,} in all"
    limit = f"{texts.max_length:,} tokens"
    if texts.max_length < certificate.max_length:
        limit += f" (the model takes {certificate.max_length:,})"
    rows = [
        (
            "against",
            f"{certificate.reference_class} of transformers {certificate.versions['transformers']}, in float64",
        ),
        ("texts", f"{counted(len(texts.lengths), 'text')} ({texts.source}) of {lengths}"),
        ("limit", limit),
        ("token ids", _ids(certificate)),
    ]
    if certificate.last_normed is not None:
        last = f"hidden_states[{certificate.last_normed}]"
        rows.append(("norm", f"{last} comes out of the final norm, those below do not"))
    if certificate.pooler in POOLERS:
        rows.append(("pooler", POOLERS[certificate.pooler]))
    return rows


def _ids(certificate: Certificate) -> str:
    different = certificate.texts.different_ids
    if different is None:
        return "not compared: transformers cannot load this tokenizer"
    if not different:
        return "those of transformers' tokenizer"
    which = ", ".join(str(i + 1) for i in different[:8]) + (", ..." if len(different) > 8 else "")
    others = f"transformers' tokenizer gives other ids for {counted(len(different), 'text')} (number {which})"
    if not certificate.texts.own_ids:
        return f"FAILED: {others}"
    return (
        f"those of tokenizer.json; {others}, since it reads that file as {certificate.texts.reference_class} and "
        "builds it anew: state the right tokenizer_class in tokenizer_config.json, or PreTrainedTokenizerFast"
    )


def _table(result: SetupResult) -> list[str]:
    """Formats the result of one setup, one line per output."""
    where = f"{result.setup.backend} on {result.setup.device} ({result.instruction_set}), {result.setup.precision}"
    bound = f"error at most {result.bound:.1e}" if result.is_exact else f"cosine at least {result.bound}"
    if result.setup.precision == "float32" and result.bound > result.base_bound:
        bound += f", {OWN_ERROR_FACTOR} times transformers' largest"
    rows: list[tuple[str, ...]] = [
        ("", "layertap", "", "transformers", "", ""),
        ("", "error / RMS", "cosine", "error / RMS", "cosine", ""),
    ]
    rows += [
        (output.name, *_figures(output.layertap), *_figures(output.transformers), _mark(result.allows(output.layertap)))
        for output in result.outputs
    ]
    rows += [
        (name, *_figures(finding), "", "", _mark(result.allows_apart(finding)))
        for name, finding in (("alone - packed", result.alone), ("shuffled - packed", result.shuffled))
    ]
    verdict = "passed" if result.passed else "FAILED"
    return [f"{where}: {verdict}, {bound}", *aligned(rows, right=range(1, RIGHT_ALIGNED + 1))]


def _mark(allowed: bool) -> str:
    return "" if allowed else "FAILED"


def _figures(finding: Figures) -> tuple[str, str]:
    error = finding.error_over_rms
    if not math.isfinite(error):
        return "not finite", "-"
    return f"{error:.1e}" if error else "0", f"{finding.cosine:.6f}"
