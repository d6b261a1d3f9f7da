"""The plan for people: what runs, what is captured and reduced where, what it costs, and which rule saved what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from textwrap import wrap

from layertap.features.cost import Cost, Run, estimate, runs, saving, schema_bytes, token_counts, top_rows
from layertap.features.plan import Plan
from layertap.features.program import Capture, Program
from layertap.features.rules import Rules
from layertap.features.schema import ModelFacts
from layertap.words import aligned, in_bytes, scaled

MEANING = {
    "stop": "no block above the highest layer needed",
    "capture": "tokens reduced inside the backend",
    "rows": "the top block only at the tokens needed",
    "share": "one run for all features",
    "fold": "layers folded after pooling",
    "heads": "the pooler only if asked for",
    "repeat": "equal texts once, where they meet in a chunk",
}


def explain(
    plan: Plan,
    facts: ModelFacts,
    *,
    lengths: Sequence[int] | float,
    num_records: int | None,
    precision: str,
    backend: str = "",
    repeated: float = 0.0,
) -> str:
    """Return the plan as text for a terminal, at most about 100 columns wide where names are short.

    Args:
        plan: what to explain.
        facts: the model that it was made for.
        lengths: tokens of each text of a sample, special tokens included and nothing cut; or their mean.
        num_records: texts of the whole input, or None: unknown.
        precision: what the model computes in.
        backend: what would run it, in words.
        repeated: share of the sample's tokens, 0..1, in texts that are equal to an earlier one.

    Raises:
        OptionError: no lengths, or one below 1.
    """
    counts = token_counts(lengths)
    spec, cost = facts.spec, estimate(plan, facts, counts)
    lines = [f"{spec.architecture}: {spec.num_hidden_layers} blocks, hidden size {spec.hidden_size}, {precision}"]
    lines += [f"backend {backend}", ""] if backend else [""]
    lines += _features(plan)
    for run in runs(plan.inputs, counts, facts.windows):
        for i, program in enumerate(plan.programs(run.inputs)):
            lines += _run(plan, run, program, i)
    lines += _costs(plan, facts, cost, counts, num_records)
    lines += _rules(plan, facts, counts, cost.flop * repeated)
    return "\n".join(lines) + "\n"


def _features(plan: Plan) -> list[str]:
    rows = []
    for schema in plan.schemas:
        if schema.name in plan.features:
            text = str(plan.features[schema.name])
            limit = f"of {plan.inputs[plan.input_of[schema.name]]}"
            rows.append((schema.name, f"{schema.described} a text", limit, "" if text == schema.name else f"= {text}"))
        else:
            rows.append((schema.name, f"{schema.described} a text", "", ""))
    return ["features", *aligned(rows), ""]


def _run(plan: Plan, run: Run, program: Program, i: int) -> list[str]:
    whose = "every text" if run.share == 1 else f"{run.share:.0%} of texts"
    tokens = sum(run.lengths) / len(run.lengths)
    title = f"run over {whose}, {tokens:.0f} tokens on average"
    if len(run.lengths) > run.texts:
        title = f"run over {whose} in {len(run.lengths) / run.texts:.1f} windows of {tokens:.0f} tokens on average"
    if len(plan.inputs) > 1 or not plan.rules.share:
        names = plan.features_of(run.inputs)
        title += f", for {', '.join(names if plan.rules.share else names[i : i + 1])}"
    titles = wrap(title, 100, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    if program.stop == 0:
        top = "the embedding output only"
    elif program.top_rows_only:
        rows = top_rows(program)
        where = "tokens of words or spans" if rows is None else f"{rows} token{'s' if rows > 1 else ''} a text"
        top = f"block {program.stop} at {where}"
    else:
        top = f"block {program.stop} at every token"
    facts = [
        ("blocks", f"{program.stop} of {plan.num_hidden_layers}"),
        ("rows at the top", top),
        ("captures", f"{len(program.captures)}, held only while their layer is there"),
    ]
    return [*titles, *aligned(facts), *(f"    {line}" for line in _captures(program)), ""]


def _captures(program: Program) -> list[str]:
    """Return one line for captures that differ only in their layer."""
    grouped: dict[str, list[Capture]] = {}
    for capture in program.captures:
        grouped.setdefault(_what(capture), []).append(capture)
    lines = []
    for what, captures in grouped.items():
        layers = sorted({layer for capture in captures for layer in capture.layers})
        word = "layer" if captures[0].attention is None else "block"
        lines.append((f"{word}{'' if len(layers) == 1 else 's'} {_spans(layers)}", what))
    return [line.strip() if len(lines) == 1 else line[2:] for line in aligned(lines)]


def _what(capture: Capture) -> str:
    if capture.pooler:
        return "the pooler head on the first token, in the backend"
    if capture.attention is not None:
        heads = "all heads" if capture.heads is None else f"heads {', '.join(map(str, capture.heads))}"
        return f"attentions{', the mean' if capture.attention == 'mean' else ''} of {heads}, handed over"
    folded = ""
    if len(capture.layers) > 1:
        folded = f"{'weighted ' if capture.weights else ''}{capture.fold} over layers, then "
    if capture.unnormed:
        folded = f"before the final norm, {folded}"
    if capture.segments is None:
        return f"{folded}every token, handed over whole"
    rows = {
        "tokens": "all tokens",
        "content": "the text's own tokens",
        "cls": "the CLS token",
        "tokens_by_position": "all tokens, weighted by position",
        "content_by_position": "the text's own tokens, weighted by position",
        "after_prompt": "the tokens after the prompt",
        "after_prompt_by_position": "the tokens after the prompt, weighted by position",
        "words": "the tokens of each word",
        "spans": "the tokens of each span",
    }[capture.segments]
    reduced = rows if capture.segments == "cls" else f"{capture.reduce} of {rows}"
    return f"{folded}{reduced}, reduced in the backend"


def _spans(layers: Sequence[int]) -> str:
    """Write 0, 1, 2, 5 as `0-2, 5`."""
    spans: list[list[int]] = []
    for layer in layers:
        if spans and layer == spans[-1][-1] + 1:
            spans[-1].append(layer)
        else:
            spans.append([layer])
    return ", ".join(str(span[0]) if len(span) == 1 else f"{span[0]}-{span[-1]}" for span in spans)


def _costs(plan: Plan, facts: ModelFacts, cost: Cost, counts: Sequence[float], num_records: int | None) -> list[str]:
    rows = [
        ("computed", f"{_flop(cost.flop)} a text of {cost.tokens:.0f} tokens", _total(_flop, cost.flop, num_records)),
        ("handed over", f"{in_bytes(cost.handed_over)} a text", _total(in_bytes, cost.handed_over, num_records)),
    ]
    for schema in plan.schemas:
        size = schema_bytes(schema, plan, facts, counts)
        rows.append((schema.name, f"{in_bytes(size)} a text", _total(in_bytes, size, num_records)))
    if len(plan.schemas) > 1:
        rows.append(("all features", f"{in_bytes(cost.result)} a text", _total(in_bytes, cost.result, num_records)))
    return ["estimates", *aligned(rows), ""]


def _rules(plan: Plan, facts: ModelFacts, counts: Sequence[float], repeated_flop: float) -> list[str]:
    rows = []
    for rule in Rules.names():
        if not getattr(plan.rules, rule):
            rows.append((rule, MEANING[rule], "off"))
            continue
        saved = saving(plan, facts, counts, rule)
        flop = repeated_flop if rule == "repeat" else saved.flop
        parts = [_flop(flop)] if flop >= 0.5 else []
        parts += [f"{in_bytes(saved.handed_over)} handed over"] if saved.handed_over >= 0.5 else []
        rows.append((rule, MEANING[rule], f"saves {' and '.join(parts)} a text" if parts else "nothing to save here"))
    return ["rules", *aligned(rows)]


def _total(form: Callable[[float], str], value: float, num_records: int | None) -> str:
    return (
        ""
        if num_records is None
        else f"{form(value * num_records)} for {num_records:,} text{'' if num_records == 1 else 's'}"
    )


def _flop(value: float) -> str:
    return scaled(value, ("FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP"))
