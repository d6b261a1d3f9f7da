"""Estimates the cost of a plan from shapes: floating-point operations and bytes.

Counted are products (two operations a multiply-add), attention, reductions and folds; embedding lookups, norms
and activations are left out (a few per cent). Letters: n tokens a text, r rows needed at the top, H hidden size,
F feed-forward size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from layertap.errors import OptionError
from layertap.features.plan import Input, Plan, make_plan
from layertap.features.program import Capture, Program
from layertap.features.schema import ModelFacts, WindowSize
from layertap.models.positions import Disentangled
from layertap.models.spec import EncoderSpec
from layertap.records import FeatureSchema

TEMPLATE_TOKENS = 2  # of nearly every template, a first and a last
STATE_BYTES = 4  # captures are float32, whatever the precision


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Cost of a plan, as means over texts.

    Attributes:
        flop: floating-point operations a text.
        handed_over: bytes that leave the backend, a text.
        result: bytes of all features, a text.
        tokens: tokens a text, as given (before any limit).
    """

    flop: float
    handed_over: float
    result: float
    tokens: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Texts for which the same inputs give the same tokens, so that one run serves them.

    Attributes:
        inputs: indices into `Plan.inputs`.
        lengths: tokens of each sequence of these texts; a text has several where it is run in windows.
        texts: how many they are.
        share: of all texts, 0..1.
    """

    inputs: frozenset[int]
    lengths: tuple[float, ...]
    texts: int
    share: float


def token_counts(lengths: Sequence[int] | float) -> tuple[float, ...]:
    """Return tokens a text, one number for each; a mean stands for one text.

    Raises:
        OptionError: none, or one below 1.
    """
    counts = tuple(float(n) for n in lengths) if isinstance(lengths, Sequence) else (float(lengths),)
    if not counts or min(counts) < 1:
        raise OptionError("explain needs token counts of 1 and more, or their mean")
    return counts


def runs(inputs: tuple[Input, ...], counts: Sequence[float], windows: WindowSize | None) -> tuple[Run, ...]:
    """Group inputs that run together: a text within several limits has the same tokens under each of them.

    A prompt's own tokens are not counted.
    """
    texts_of_group: dict[frozenset[int], list[tuple[float, ...]]] = {}
    for count in counts:
        cut = [(given.variant, sequences_of(count, given.max_length, windows)) for given in inputs]
        for seen in dict.fromkeys(cut):
            group = frozenset(i for i, other in enumerate(cut) if other == seen)
            texts_of_group.setdefault(group, []).append(seen[1])
    return tuple(
        Run(
            inputs=group,
            lengths=tuple(length for text in texts for length in text),
            texts=len(texts),
            share=len(texts) / len(counts),
        )
        for group, texts in texts_of_group.items()
    )


def sequences_of(count: float, limit: int, windows: WindowSize | None) -> tuple[float, ...]:
    """Return tokens of each sequence that a text of `count` tokens is run as; the edges of words are not known here."""
    if windows is None:
        return (min(count, limit),)
    size, overlap = windows.under(limit)
    if count <= size:
        return (count,)
    step = max(1, size - TEMPLATE_TOKENS - overlap)
    full, rest = divmod(count - TEMPLATE_TOKENS - overlap, step)
    return (float(size),) * int(full) + ((TEMPLATE_TOKENS + overlap + rest,) if rest else ())


def estimate(plan: Plan, facts: ModelFacts, counts: Sequence[float]) -> Cost:
    """Estimate what a text costs on average."""
    flop = handed_over = 0.0
    for run in runs(plan.inputs, counts, facts.windows):
        for program in plan.programs(run.inputs):
            flop += sum(program_flop(program, facts.spec, n) for n in run.lengths)
            handed_over += sum(capture_bytes(c, facts.spec, n) for c in program.captures for n in run.lengths)
    result = sum(schema_bytes(schema, plan, facts, counts) for schema in plan.schemas)
    texts = len(counts)
    return Cost(flop=flop / texts, handed_over=handed_over / texts, result=result, tokens=sum(counts) / texts)


def saving(plan: Plan, facts: ModelFacts, counts: Sequence[float], rule: str) -> Cost:
    """Estimate how much more a text would cost if one rule was off."""
    without = make_plan(plan.features, facts, rules=replace(plan.rules, **{rule: False}))
    now, then = estimate(plan, facts, counts), estimate(without, facts, counts)
    return Cost(
        flop=then.flop - now.flop,
        handed_over=then.handed_over - now.handed_over,
        result=then.result - now.result,
        tokens=now.tokens,
    )


def program_flop(program: Program, spec: EncoderSpec, n: float) -> float:
    """Operations of one program on a text of n tokens."""
    pruned = program.top_rows_only and program.stop > 0
    full = program.stop - 1 if pruned else program.stop
    flop = 2 * n * spec.table_size * spec.hidden_size if spec.embedding_projection else 0.0
    windows = Counter(spec.windows[:full]) if spec.windows else {None: full}
    flop += sum(times * block_flop(spec, n, n, window) for window, times in windows.items())
    if pruned:
        rows = top_rows(program)
        flop += block_flop(spec, n, n if rows is None else min(n, rows), spec.window_of(full))
    if spec.convolution is not None and program.stop > 0:
        asked = top_rows(program) if pruned and program.stop == 1 else None
        flop += 2 * (n if asked is None else min(n, asked)) * spec.convolution.kernel_size * spec.hidden_size**2
    return flop + sum(capture_flop(capture, spec, n) for capture in program.captures)


def block_flop(spec: EncoderSpec, n: float, r: float, window: int | None = None) -> float:
    """Return one block: keys and values for n tokens; queries, attention, output and feed-forward for r of them."""
    h, f, g = spec.hidden_size, spec.intermediate_size, spec.key_value_size
    reached = n if window is None else min(n, 2 * window + 1)
    wide = 3 if spec.gated else 2
    positions = distance_flop(spec.relative, h, n, r) if isinstance(spec.relative, Disentangled) else 0.0
    return 4 * n * h * g + r * (4 * h * h + 4 * reached * h + 2 * wide * h * f) + positions


def distance_flop(relative: Disentangled, h: int, n: float, r: float) -> float:
    """Queries and keys against vectors of distances, which are projected once for all texts."""
    met = min(2 * n - 1, 2 * relative.span)
    return 2 * met * h * (r * relative.content_to_position + n * relative.position_to_content)


def top_rows(program: Program) -> int | None:
    """Return rows a text that captures need from block `stop`: distinct first, last and CLS tokens; None: not known."""
    at_top = [capture for capture in program.captures if capture.layers[-1] == program.stop]
    if any(capture.segments in ("words", "spans") for capture in at_top):
        return None
    rows = {
        # CLS counts as the first token, which it is in every family that has one there
        ("tokens", "first") if c.segments in ("cls", "windows") else (c.segments, c.reduce)
        for c in at_top
    }
    return len(rows)


def capture_flop(capture: Capture, spec: EncoderSpec, n: float) -> float:
    """Estimate the operations of one capture: folding and reducing, or attention once more."""
    if capture.attention is not None:
        heads = spec.num_attention_heads if capture.heads is None else len(capture.heads)
        return 2 * heads * n * n * spec.head_size
    h, k = spec.hidden_size, len(capture.layers)
    pooler = 2 * h * h if capture.pooler else 0
    folding = k * n * h if k > 1 or capture.weights else 0
    reducing = n * h if capture.reduce in ("sum", "max", "min") else 0
    return pooler + folding + reducing


def capture_bytes(capture: Capture, spec: EncoderSpec, n: float) -> float:
    """Return bytes handed over for one text of n tokens; words and spans count as one a token, the most as a rule."""
    if capture.attention is not None:
        heads = spec.num_attention_heads if capture.heads is None else len(capture.heads)
        return STATE_BYTES * n * n * (heads if capture.attention == "heads" else 1)
    one = capture.reduce is not None and capture.segments not in ("words", "spans")
    return STATE_BYTES * spec.hidden_size * (1 if one else n)


def schema_bytes(schema: FeatureSchema, plan: Plan, facts: ModelFacts, counts: Sequence[float]) -> float:
    """Return the bytes of one result array for a text; words and spans count as one for each token."""
    name = schema.name if schema.name in plan.features else schema.name.removesuffix(".scale")
    limit = plan.inputs[plan.input_of[name]].max_length
    seen = counts if facts.windows is not None else [min(n, limit) for n in counts]
    values, squares = (sum(n**power for n in seen) / len(counts) for power in (1, 2))
    return schema.value_bytes(records=1, values=values, squares=squares)
