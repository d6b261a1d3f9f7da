"""Finishes captures in numpy: folding, dividing, joining, normalising, storing.

Shape letters: X rows of a value (N texts, or the tokens, words or spans of all of them), L layers, H hidden size,
S segments, T packed tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from layertap.features.concat import Concat
from layertap.features.expr import Apply, AsType, Expr, Normalize, Truncate
from layertap.features.grammar import PoolOp
from layertap.features.plan import Plan
from layertap.features.program import Capture, SegmentKind
from layertap.features.taps import Divisor, Reading, Tap
from layertap.models.sentence import Dense, DenseActivation, LayerNorm
from layertap.packing import Segments
from layertap.records import Array

Floats = npt.NDArray[np.float32]


def finish(
    plan: Plan,
    name: str,
    captures: Mapping[Capture, Floats],
    segments: Mapping[SegmentKind, Segments],
) -> dict[str, Array]:
    """Return one feature's arrays from a backend's captures.

    Args:
        plan: the plan whose program ran.
        name: which of its features.
        captures: what the backend handed over: float32 [S, H] where reduced, [T, H] where not, [M] of attention.
        segments: every kind that `plan.segment_kinds` names.

    Returns:
        The feature under its name, and `<name>.scale` for int8: [N, ...] where dense, token-major [M, ...] where
        ragged, flat [M] of attentions (`unit_counts` says how many of the M are each text's). Arrays may share memory
        with `captures`.
    """
    readings = iter(plan.readings[name])
    value = _evaluate(plan.resolved[name], readings, captures, segments)
    counts = unit_counts(plan, name, segments)
    assert counts is None or len(value) == counts.sum(), f"{name}: {value.shape}"
    stored = plan.resolved[name]
    if not isinstance(stored, AsType):
        return {name: value}
    if stored.dtype == "int8":
        quantised, scale = to_int8(value)
        return {name: quantised, f"{name}.scale": scale}
    return {name: to_float16(value) if stored.dtype == "float16" else to_binary(value)}


def unit_counts(plan: Plan, name: str, segments: Mapping[SegmentKind, Segments]) -> npt.NDArray[np.int64] | None:
    """Count the tokens, words or spans of each text of a ragged feature, int64 [N]; None for a dense one."""
    match plan.readings[name][0].tap.unit:
        case "tokens":
            return segments["tokens"].counts()
        case "content":
            return segments["content"].counts()
        case "words" | "spans" as unit:
            texts = segments[unit].texts
            assert texts is not None
            return np.diff(texts).astype(np.int64)
        case "maps":
            shape = next(schema.shape for schema in plan.schemas if schema.name == name)
            return np.square(segments["tokens"].counts()) * math.prod(shape)
        case _:
            return None


def _evaluate(
    expr: Expr,
    readings: Iterator[Reading],
    captures: Mapping[Capture, Floats],
    segments: Mapping[SegmentKind, Segments],
) -> Floats:
    """Compute float32 [X, H] or [X, L, H]; takes one reading a tap, in the order of `taps.taps`."""
    match expr:
        case Concat():
            parts = [_evaluate(part, readings, captures, segments) for part in expr.parts]
            return np.concatenate(parts, axis=-1)
        case Normalize():
            return normalize(_evaluate(expr.of, readings, captures, segments))
        case Apply(step=step):
            value = _evaluate(expr.of, readings, captures, segments)
            return dense(value, step) if isinstance(step, Dense) else layer_norm(value, step)
        case Truncate():
            # a copy: a view would keep the whole array alive
            return np.ascontiguousarray(_evaluate(expr.of, readings, captures, segments)[..., : expr.size])
        case AsType():
            return _evaluate(expr.of, readings, captures, segments)
    return tapped(next(readings), captures, segments)


def tapped(reading: Reading, captures: Mapping[Capture, Floats], segments: Mapping[SegmentKind, Segments]) -> Floats:
    """Return a tap's value, float32 [X, H] or [X, L, H]: what the backend left to do of folding, reducing, dividing."""
    tap = reading.tap
    parts = [captures[capture] for capture in reading.captures]
    if tap.attention is not None:
        lengths = segments["tokens"].counts()
        if not reading.reduced:
            parts = [select_heads(part, tap, lengths) for part in parts]
        return stack_maps(parts, lengths) if tap.stacked else fold_layers(parts, tap)
    value = _mean_over(parts[0], tap) if reading.folded else fold_layers(parts, tap)
    if tap.pooling is None:
        return select_rows(value, segments["content" if tap.unit == "content" else "tokens"])
    rows = segments[tap.pooling.segments]
    if not reading.reduced:
        value = reduce_rows(value, rows, tap.pooling.reduce)
    if tap.pooling.divisor is not None:
        value = divide(value, rows, tap.pooling.divisor)
    return value if tap.again is None else pool_units(value, rows, tap.again)


def fold_layers(parts: Sequence[Floats], tap: Tap) -> Floats:
    """Return one array a layer, each [X, H] -> [X, H], [X, L, H] where layers are kept, [X, L * H] where joined."""
    if tap.stacked:
        return np.stack(parts, axis=1)
    if tap.fold == "concat":
        return np.concatenate(parts, axis=1)
    total = parts[0] * np.float32(tap.weights[0]) if tap.weights else parts[0]
    for i, part in enumerate(parts[1:], 1):
        if tap.fold == "max":
            total = np.maximum(total, part)
        else:
            total = total + (part * np.float32(tap.weights[i]) if tap.weights else part)
    return _mean_over(total, tap)


def select_heads(maps: Floats, tap: Tap, lengths: npt.NDArray[np.int64]) -> Floats:
    """Select from float32 [M], maps of all heads of each text, those of some heads, or their mean, the plain way."""
    squares = np.square(lengths)
    num_heads = len(maps) // int(squares.sum())
    heads = list(range(num_heads) if tap.heads is None else tap.heads)
    texts = np.split(maps, np.cumsum(squares[:-1]) * num_heads)
    selected = [text.reshape(num_heads, -1)[heads] for text in texts]
    return np.concatenate([(own.mean(axis=0) if tap.attention == "mean" else own).ravel() for own in selected])


def stack_maps(parts: Sequence[Floats], lengths: npt.NDArray[np.int64]) -> Floats:
    """Return one array [M] a layer, text after text -> [L * M]: text after text, all layers of each."""
    if len(lengths) == 1 or len(parts) == 1:
        return np.concatenate(parts)
    ends = np.cumsum(np.square(lengths)) * (len(parts[0]) // int(np.square(lengths).sum()))
    return np.concatenate([part[begin:end] for begin, end in pairwise([0, *ends.tolist()]) for part in parts])


def _mean_over(total: Floats, tap: Tap) -> Floats:
    return total / np.float32(len(tap.layers)) if tap.fold == "mean" else total


def select_rows(value: Floats, rows: Segments) -> Floats:
    """Select from [T, ...] the rows of all segments, segment by segment; the value itself where that is all of them."""
    index = rows.rows()
    if len(index) == len(value) and bool((index == np.arange(len(value))).all()):
        return value
    selected: Floats = value[index]
    return selected


def pool_units(value: Floats, units: Segments, op: PoolOp) -> Floats:
    """Pool words, spans or windows [S, ...] to texts [N, ...]: of those that have tokens; a text without one gives
    zeros.
    """
    assert units.texts is not None
    filled_units = units.counts() > 0
    texts = np.concatenate([[0], np.cumsum(filled_units)])[units.texts]
    value = value if filled_units.all() else value[filled_units]
    counts = np.diff(texts)
    if op == "mean" and (counts == 1).all():
        return value
    result = np.zeros((len(counts), *value.shape[1:]), dtype=np.float32)
    filled = np.flatnonzero(counts)
    if len(filled) == 0:
        return result
    begins, each = texts[:-1][filled], counts[filled].astype(np.float32).reshape(-1, *([1] * (value.ndim - 1)))
    match op:
        case "first":
            result[filled] = value[begins]
        case "last":
            result[filled] = value[texts[1:][filled] - 1]
        case "max":
            result[filled] = np.maximum.reduceat(value, begins, axis=0)
        case "min":
            result[filled] = np.minimum.reduceat(value, begins, axis=0)
        case "weighted_mean":
            places = np.arange(1, len(value) + 1) - np.repeat(texts[:-1], counts)
            weighted = value * places.astype(np.float32).reshape(-1, *([1] * (value.ndim - 1)))
            result[filled] = np.add.reduceat(weighted, begins, axis=0) / (each * (each + 1) / 2)
        case _:
            by = {"mean": each, "mean_sqrt_len": np.sqrt(each)}.get(op, np.float32(1))
            result[filled] = np.add.reduceat(value, begins, axis=0) / by
    return result


def reduce_rows(value: Floats, rows: Segments, reduce: str) -> Floats:
    """Reduce [T, ...] to [S, ...], the plain way: a segment at a time; a segment without rows gives zeros."""
    result = np.zeros((len(rows), *value.shape[1:]), dtype=np.float32)
    for s in range(len(rows)):
        ranges = range(rows.offsets[s], rows.offsets[s + 1])
        picked = [np.arange(rows.begin[r], rows.end[r]) for r in ranges]
        index = np.concatenate(picked) if picked else np.zeros(0, dtype=np.int64)
        if len(index) == 0:
            continue
        taken = value[index]
        if reduce == "sum":
            if rows.weights is not None:
                taken = taken * rows.weights[index].reshape(-1, *([1] * (value.ndim - 1)))
            result[s] = taken.sum(axis=0)
        elif reduce in ("max", "min"):
            result[s] = taken.max(axis=0) if reduce == "max" else taken.min(axis=0)
        else:
            result[s] = taken[0 if reduce == "first" else -1]
    return result


def divide(value: Floats, rows: Segments, divisor: Divisor) -> Floats:
    """Divide sums [S, ...] by the pooling's divisor; segments without rows stay zero."""
    counts = rows.counts()
    by = weight_sums(rows) if divisor == "weight" else counts.astype(np.float32)
    if divisor == "sqrt_count":
        by = np.sqrt(by)
    by[counts == 0] = 1
    quotient: Floats = value / by.reshape(-1, *([1] * (value.ndim - 1)))
    return quotient


def weight_sums(rows: Segments) -> Floats:
    """Sum the weights of each segment's rows, float32 [S]."""
    if rows.weights is None:
        return rows.counts().astype(np.float32)
    running = np.concatenate([[0.0], np.cumsum(rows.weights, dtype=np.float64)])
    ranges = np.concatenate([[0.0], np.cumsum(running[rows.end] - running[rows.begin])])
    sums: Floats = (ranges[rows.offsets[1:]] - ranges[rows.offsets[:-1]]).astype(np.float32)
    return sums


def normalize(value: Floats) -> Floats:
    """Vectors [..., H] divided by their length; a zero vector stays zero."""
    with np.errstate(invalid="ignore", over="ignore"):
        # not einsum, whose buffers end in the middle of a vector: a vector's bits would depend on where it stands
        squares = np.square(value.astype(np.float64)).sum(axis=-1, keepdims=True)
        lengths: Floats = np.sqrt(squares).astype(np.float32)
        lengths[lengths == 0] = 1
        normalized: Floats = value / lengths
    return normalized


def dense(value: Floats, step: Dense) -> Floats:
    """Vectors [..., C] -> [..., D]; sums of products in float32, as torch's linear layer."""
    with np.errstate(invalid="ignore", over="ignore"):
        total = _times(value, step.weight)
        if step.bias is not None:
            total = total + step.bias
        result = activate(total, step.activation)
        if isinstance(step.residual, str):
            return result if step.residual == "none" else result + value
        added: Floats = result + _times(value, step.residual)
        return added


def _times(value: Floats, weight: Floats) -> Floats:
    # a vector at a time: products of matrices give a row other bits beside other rows
    rows = np.ascontiguousarray(value).reshape(-1, value.shape[-1])
    result = np.empty((len(rows), len(weight)), dtype=np.float32)
    for row, out in zip(rows, result, strict=True):
        np.matmul(weight, row, out=out)
    return result.reshape(*value.shape[:-1], len(weight))


def activate(value: Floats, activation: DenseActivation) -> Floats:
    """Return an activation of torch.nn, number by number."""
    match activation:
        case "identity":
            return value
        case "tanh":
            result: Floats = np.tanh(value)
        case "relu":
            result = np.maximum(value, np.float32(0))
        case "sigmoid":
            result = _sigmoid(value)
        case "silu":
            result = value * _sigmoid(value)
        case "gelu":
            result = value * (np.float32(0.5) + np.float32(0.5) * _erf(value / np.float32(np.sqrt(2))))
    return result


def _sigmoid(value: Floats) -> Floats:
    # the same function without overflow
    half: Floats = np.float32(0.5) + np.float32(0.5) * np.tanh(value * np.float32(0.5))
    return half


def _erf(value: Floats) -> Floats:
    # numpy has none; these are a vector a text
    exact: Floats = np.asarray(np.frompyfunc(math.erf, 1, 1)(value.astype(np.float64)), dtype=np.float32)
    return exact


def layer_norm(value: Floats, step: LayerNorm) -> Floats:
    """Vectors [..., D] shifted and scaled as torch's LayerNorm does, moments in float64."""
    wide = value.astype(np.float64)
    centered = wide - wide.mean(axis=-1, keepdims=True)
    scaled = centered / np.sqrt(np.square(centered).mean(axis=-1, keepdims=True) + step.eps)
    normed: Floats = scaled.astype(np.float32) * step.weight + step.bias
    return normed


def to_float16(value: Floats) -> npt.NDArray[np.float16]:
    """Round to float16; beyond 65,504 becomes infinite."""
    with np.errstate(over="ignore"):
        return value.astype(np.float16)


def to_int8(value: Floats) -> tuple[npt.NDArray[np.int8], Floats]:
    """Quantise to symmetric int8, one scale a vector: `value` is about `quantised * scale[..., None]`.

    The scale is the largest |number| / 127, and values are rounded to the nearest, ties to even. A zero vector
    has zeros and scale 0. A vector that is not finite has zeros and the scale NaN or infinity, so that it gives
    NaN when scaled back.

    Returns:
        int8 [..., H] and float32 [...].
    """
    scale: Floats = np.abs(value).max(axis=-1) / np.float32(127)
    usable = np.isfinite(scale) & (scale > 0)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        steps = np.rint(value / np.where(usable, scale, np.float32(1))[..., None])
    steps = np.where(usable[..., None], np.clip(steps, -127, 127), 0)
    return steps.astype(np.int8), scale


def to_binary(value: Floats) -> npt.NDArray[np.uint8]:
    """Pack signs into uint8 [..., H / 8]: bit 1 where a number is above zero, in `numpy.packbits` order (first number
    highest).
    """
    return np.packbits(value > 0, axis=-1)
