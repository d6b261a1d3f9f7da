"""A numpy backend without a model, an oracle without a plan, and generated features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import strategies as st

from layertap.backends.base import rows_needed
from layertap.engine import segments as engine_segments
from layertap.engine.segments import UnitRows
from layertap.features.concat import Concat, concat
from layertap.features.expr import AsType, Expr, LayerFold, Normalize, Pool, Tokens, Truncate, Units, Unnormed
from layertap.features.grammar import UnitOp, steps_after
from layertap.features.indexing import LayerSlice
from layertap.features.plan import Plan
from layertap.features.program import Capture, Program, SegmentKind
from layertap.features.schema import ModelFacts
from layertap.features.sources import (
    HiddenLayers,
    LastHiddenState,
    PoolerOutput,
    SentenceEmbedding,
    hidden_states,
    last_hidden_state,
    pooler_output,
    sentence_embedding,
)
from layertap.features.vectors import finish
from layertap.models.positions import PositionTable
from layertap.models.sentence import SentenceEmbeddingSpec
from layertap.models.spec import EncoderSpec
from layertap.packing import PackedBatch, Segments, pack

L, H = 4, 16

SPEC = EncoderSpec(
    architecture="bert",
    vocab_size=100,
    hidden_size=H,
    num_hidden_layers=L,
    num_attention_heads=2,
    intermediate_size=32,
    hidden_act="gelu",
    layer_norm_eps=1e-12,
    positions=PositionTable(rows=64),
    type_vocab_size=2,
    pad_token_id=0,
    hidden_dropout_prob=0.1,
    attention_probs_dropout_prob=0.1,
    norm_position="pre",
)


def make_facts(**changes: Any) -> ModelFacts:
    values: dict[str, Any] = {
        "spec": SPEC,
        "has_cls": True,
        "pooler": "trained",
        "use_untrained_pooler": False,
        "sentence_embedding": SentenceEmbeddingSpec(poolings=("mean",), steps=("normalize",)),
        "max_length": 64,
        "max_length_override": None,
    }
    return ModelFacts(**(values | changes))


@pytest.fixture(scope="session")
def facts() -> ModelFacts:
    return make_facts()


@pytest.fixture(scope="session")
def facts_with() -> Callable[..., ModelFacts]:
    return make_facts


# -- states of a text, from its ids alone


def states_of(ids: np.ndarray) -> np.ndarray:
    """float32 [L+1, T, H]"""
    rng = np.random.default_rng([len(ids), *(int(i) for i in ids)])
    return rng.standard_normal((L + 1, len(ids), H)).astype(np.float32)


def before_final_norm(top: np.ndarray) -> np.ndarray:
    """The state that the final norm makes state L, [T, H], of."""
    return top * np.float32(3) + np.float32(1)


POOLER = np.random.default_rng(7).standard_normal((H, H)).astype(np.float32) / H


def pooled(first_rows: np.ndarray) -> np.ndarray:
    return np.tanh(first_rows @ POOLER)


@dataclass
class NaiveBackend:
    """Runs programs the plain way and notes what it ran; rows that a program did not ask for are NaN."""

    ran: list[tuple[int, int, int]] = field(default_factory=list)  # (stop, rows at the top, captures)
    poolers: int = 0

    def run(
        self, program: Program, batch: PackedBatch, segments: Mapping[SegmentKind, Segments]
    ) -> dict[Capture, np.ndarray]:
        texts = [batch.input_ids[b:e] for b, e in zip(batch.cu_seqlens[:-1], batch.cu_seqlens[1:], strict=True)]
        states = np.concatenate([states_of(ids) for ids in texts], axis=1)[: program.stop + 1]
        needed = rows_needed(program, segments, batch.num_tokens)
        if needed is not None:
            kept = states[-1][needed]
            states[-1] = np.nan
            states[-1][needed] = kept
        self.ran.append((program.stop, batch.num_tokens if needed is None else len(needed), len(program.captures)))
        return {capture: self.capture(capture, states, segments) for capture in program.captures}

    def capture(self, capture: Capture, states: np.ndarray, segments: Mapping[SegmentKind, Segments]) -> np.ndarray:
        assert list(capture.layers) == sorted(set(capture.layers))
        chosen = states[list(capture.layers)]
        if capture.unnormed:
            assert capture.layers[-1] == L
            chosen[-1] = before_final_norm(chosen[-1])
        if capture.weights is not None:
            chosen = chosen * np.array(capture.weights, dtype=np.float32)[:, None, None]
        folded = chosen.max(axis=0) if capture.fold == "max" else chosen.sum(axis=0)
        if capture.segments is None:
            return folded
        rows = segments[capture.segments]
        out = np.zeros((len(rows), H), dtype=np.float32)
        for s in range(len(rows)):
            ranges = range(rows.offsets[s], rows.offsets[s + 1])
            index = np.concatenate([np.arange(0), *(np.arange(rows.begin[r], rows.end[r]) for r in ranges)]).astype(int)
            if len(index) == 0:
                continue
            if capture.reduce == "sum":
                weights = 1.0 if rows.weights is None else rows.weights[index, None]
                out[s] = (folded[index] * weights).sum(axis=0)
            elif capture.reduce in ("first", "last"):
                out[s] = folded[index[0 if capture.reduce == "first" else -1]]
            else:
                out[s] = getattr(folded[index], str(capture.reduce))(axis=0)
        if capture.pooler:
            self.poolers += 1
            return pooled(out)
        return out


def make_batch(texts: Sequence[tuple[list[int], tuple[int, int]]]) -> PackedBatch:
    return pack(
        [np.array(ids, dtype=np.int32) for ids, _ in texts],
        position_ids=lambda ids: np.arange(len(ids), dtype=np.int32),
        content=[content for _, content in texts],
        cls_index=0,
    )


def unit_ranges(content: tuple[int, int], unit: str) -> np.ndarray:
    """int32 [S, 2], made-up words or spans of a text: neighbours that share a token, one without any, one cut off."""
    n = content[1] - content[0]
    ranges = [(0, 2), (2, 3), (3, 3)] if unit == "words" else [(3, 6), (0, 1), (1, 4)]
    return np.array([(min(b, n), min(e, n)) for b, e in ranges[: 1 + n]], dtype=np.int32).reshape(-1, 2)


def segments_of(batch: PackedBatch, kinds: frozenset[SegmentKind]) -> dict[SegmentKind, Segments]:
    contents = list(zip(batch.content_begin.tolist(), batch.content_end.tolist(), strict=True))
    units: dict[SegmentKind, UnitRows] = {}
    for unit in ("words", "spans"):
        ranges = [unit_ranges(content, unit) for content in contents]
        texts = np.concatenate([[0], np.cumsum([len(each) for each in ranges])]).astype(np.int32)
        units[unit] = UnitRows(ranges=np.concatenate(ranges), texts=texts)
    return {kind: engine_segments.segments_of(batch, kind, units=units) for kind in kinds}


def run_plan(plan: Plan, batch: PackedBatch, backend: NaiveBackend | None = None) -> dict[str, np.ndarray]:
    """All features of a plan over one batch that stands for every input."""
    backend = backend or NaiveBackend()
    everything = frozenset(range(len(plan.inputs)))
    captures: dict[Capture, np.ndarray] = {}
    segments: dict[SegmentKind, Segments] = {}
    for program in plan.programs(everything):
        needed = segments_of(batch, plan.segment_kinds(program))
        captures |= backend.run(program, batch, needed)
        segments |= needed
    results: dict[str, np.ndarray] = {}
    for name in plan.features:
        results |= finish(plan, name, captures, segments)
    return results


# -- the oracle: an expression read node by node over one text, in float64


def oracle(expr: Expr, ids: Sequence[int], content: tuple[int, int]) -> np.ndarray:
    """[H], [L, H] (dense), or token-major [T, H], [T, L, H]; before `astype`."""
    value = _oracle(expr, states_of(np.array(ids, dtype=np.int32)).astype(np.float64), content)
    return value.swapaxes(0, 1) if expr.form.ragged and value.ndim == 3 else value


def _oracle(e: Expr, states: np.ndarray, content: tuple[int, int]) -> np.ndarray:
    match e:
        case LastHiddenState():
            return states[-1]
        case HiddenLayers(selection=int(i)):
            return states[i]
        case HiddenLayers(selection=LayerSlice() as s):
            return states[s.start : s.stop : s.step]
        case HiddenLayers(selection=tuple(layers)):
            return states[list(layers)]
        case PoolerOutput():
            return pooled(states[-1][0])
        case SentenceEmbedding():
            return _oracle(last_hidden_state.mean.normalize, states, content)
        case Concat(parts=parts):
            return np.concatenate([_oracle(part, states, content) for part in parts], axis=-1)
    if isinstance(e, Unnormed):
        raw = states.copy()
        raw[-1] = before_final_norm(states[-1])
        return _oracle(e.of, raw, content)
    value = _oracle(e.of, states, content)
    match e:
        case LayerFold(op="mix", weights=weights):
            return np.tensordot(weights, value, axes=1)
        case LayerFold(op="concat"):
            return np.concatenate(list(value), axis=-1)
        case LayerFold(op=op):
            return getattr(value, op)(axis=0)
        case Tokens(special=False):
            return value[..., content[0] : content[1], :]
        case Tokens() | AsType():
            return value
        case Units(unit=unit, op=op):
            own = value[..., content[0] : content[1], :]
            return np.stack([_pooled(own[..., b:e, :], op) for b, e in unit_ranges(content, unit)], axis=-2)
        case Normalize():
            length = np.linalg.norm(value, axis=-1, keepdims=True)
            return np.divide(value, length, out=np.zeros_like(value), where=length > 0)
        case Truncate(size=size):
            return value[..., :size]
        case Pool(of=of, op=op) if of.form.unit in ("words", "spans"):
            filled = [i for i, (begin, end) in enumerate(unit_ranges(content, of.form.unit)) if begin < end]
            return _pooled(value[..., filled, :], op)
        case Pool(op=op, special=special):
            return _pooled(value if special else value[..., content[0] : content[1], :], op)
    raise AssertionError(e)


def _pooled(value: np.ndarray, op: str) -> np.ndarray:
    n = value.shape[-2]
    if n == 0:
        return np.zeros((*value.shape[:-2], value.shape[-1]))
    if op in ("cls", "first", "last"):
        return value[..., -1 if op == "last" else 0, :]
    if op == "mean_sqrt_len":
        return value.sum(axis=-2) / np.sqrt(n)
    if op == "weighted_mean":
        return np.average(value, axis=-2, weights=np.arange(1, n + 1))
    return getattr(value, op)(axis=-2)


# -- generated features


@st.composite
def selections(draw: st.DrawFn, num_states: int) -> Any:
    one = st.integers(-num_states, num_states - 1)
    several = st.lists(one, min_size=1, max_size=4, unique_by=lambda i: i % num_states)
    bound = st.none() | st.integers(-num_states, num_states)
    step = st.none() | st.sampled_from([1, 2, -1, -3])
    ranges = st.builds(slice, bound, bound, step).filter(lambda s: len(range(num_states)[s]) > 0)
    return draw(st.one_of(one, several, ranges))


def has_top(e: Expr, num_states: int) -> bool:
    """Whether hidden state L is among those of a source."""
    if not isinstance(e, HiddenLayers):
        return True
    selection = e.selection
    if isinstance(selection, LayerSlice):
        return num_states - 1 in range(num_states)[selection.start : selection.stop : selection.step]
    layers = [selection] if isinstance(selection, int) else selection
    return num_states - 1 in {i % num_states for i in layers}


def _add_step(draw: st.DrawFn, e: Expr, step: str, size: int, layers: int) -> tuple[Expr, int, int]:
    if step == "layer_mix":
        weights = st.lists(st.floats(-2, 2), min_size=layers, max_size=layers)
        return e.layer_mix(*draw(weights)), size, 1
    if step == "truncate":
        size = draw(st.integers(1, size))
        return e.truncate(size), size, layers
    if step == "astype":
        types = ["float16", "int8"] + (["binary"] if size % 8 == 0 else [])
        return e.astype(draw(st.sampled_from(types))), size, layers
    if step in ("words", "spans"):
        return getattr(e, step)(draw(st.sampled_from(get_args(UnitOp)))), size, layers
    made = getattr(e, step)
    if isinstance(made, Tokens) or (isinstance(made, Pool) and step != "cls" and e.form.unit == "tokens"):
        made = made(special=draw(st.booleans()))
    return made, size * layers if step == "layer_concat" else size, 1 if step.startswith("layer_") else layers


@st.composite
def sized(draw: st.DrawFn, num_states: int = L + 1, hidden: int = H, depth: int = 1) -> tuple[Expr, int]:
    """A feature that the model of this file can give, and the size of its vectors."""
    kind = draw(st.sampled_from(["last", "layers", "layers", "layers", "pooler", "sentence"] + ["concat"] * depth))
    e: Expr
    size, layers = hidden, 1
    if kind == "layers":
        e = hidden_states[draw(selections(num_states))]
        if isinstance(e.selection, tuple):
            layers = len(e.selection)
        elif isinstance(e.selection, LayerSlice):
            s = e.selection
            layers = len(range(num_states)[s.start : s.stop : s.step])
    elif kind == "concat":
        unit = draw(st.sampled_from(["text", "tokens", "content", "words"]))
        part = sized(num_states, hidden, depth - 1).filter(
            lambda p: p[0].form.unit == unit and not p[0].form.layers and not p[0].form.stored
        )
        parts = draw(st.lists(part, min_size=2, max_size=3))
        e, size = concat(*(p[0] for p in parts)), sum(p[1] for p in parts)
    else:
        e = {"last": last_hidden_state, "pooler": pooler_output, "sentence": sentence_embedding}[kind]
    for _ in range(draw(st.integers(0, 4))):
        steps = [step for step in steps_after(e.form) if step != "unnormed" or has_top(e, num_states)]
        if not steps:
            break
        e, size, layers = _add_step(draw, e, draw(st.sampled_from(steps)), size, layers)
    return e, size


def expressions() -> st.SearchStrategy[Expr]:
    return sized().map(lambda pair: pair[0])


@st.composite
def batches(draw: st.DrawFn) -> list[tuple[list[int], tuple[int, int]]]:
    """Ids of each text, and which of them are its own; texts without own tokens included."""
    texts = []
    for _ in range(draw(st.integers(1, 4))):
        ids = draw(st.lists(st.integers(1, 99), min_size=1, max_size=7))
        begin = min(1, len(ids) - 1)
        texts.append((ids, (begin, max(begin, len(ids) - 1))))
    return texts


@pytest.fixture(scope="session")
def naive() -> SimpleNamespace:
    """The helpers of this file by name."""
    return SimpleNamespace(
        L=L,
        H=H,
        Backend=NaiveBackend,
        batch=make_batch,
        segments=segments_of,
        run=run_plan,
        oracle=oracle,
        expressions=expressions,
        batches=batches,
    )
