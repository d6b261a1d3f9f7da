"""Values that a feature reads from the encoder (`Tap`), and how they are captured there (`Reading`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from layertap.features.concat import Concat
from layertap.features.expr import Expr, Heads, HeadsMean, LayerFold, Pool, Tokens, Units, Unnormed
from layertap.features.grammar import LayerOp, PoolOp, Unit, UnitOp
from layertap.features.program import Capture, Reduce, SegmentKind
from layertap.features.sources import AttentionLayers, HiddenLayers, PoolerOutput

Divisor = Literal["count", "sqrt_count", "weight"]
"""Divisor of a sum: number of rows, its square root, or the sum of the rows' weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduction:
    """A pooling of tokens, as a backend's reduction and a division afterwards."""

    segments: SegmentKind
    reduce: Reduce
    divisor: Divisor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tap:
    """The part of a feature that stands before its vector steps.

    Attributes:
        layers: 0..L in the order asked; (L,) for the pooler; of attentions their blocks 1..L.
        fold: what becomes of the layers axis; None: one layer, or an axis that is kept (`stacked`).
        weights: for the fold `mix`, one a layer.
        stacked: the value keeps a layers axis.
        pooling: what becomes of the token axis, or None: it is kept.
        again: what becomes of the words, spans or windows that `pooling` leaves, or None: they are kept, or it leaves
            none.
        unit: what the value has a vector for.
        pooler: the value is the pooler's.
        unnormed: the highest of `layers` is L, as it is before the final norm.
        attention: the value is attentions: of heads, or their mean.
        heads: which, in the order asked; None: all.
    """

    layers: tuple[int, ...]
    fold: LayerOp | None = None
    weights: tuple[float, ...] = ()
    stacked: bool = False
    pooling: Reduction | None = None
    again: PoolOp | None = None
    unit: Unit = "tokens"
    pooler: bool = False
    unnormed: bool = False
    attention: Literal["heads", "mean"] | None = None
    heads: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How a tap is captured, and so what is left to do in numpy.

    Attributes:
        tap: what is read.
        captures: one a layer, in the tap's order, or one of all layers where `folded`.
        folded: the backend folds the layers.
        reduced: the backend reduces the tokens.
    """

    tap: Tap
    captures: tuple[Capture, ...]
    folded: bool
    reduced: bool

    @property
    def segment_kinds(self) -> frozenset[SegmentKind]:
        """The segments that captures or numpy need."""
        kinds = {capture.segments for capture in self.captures}
        if self.tap.pooling is not None:
            kinds.add(self.tap.pooling.segments)
        elif self.tap.unit in ("tokens", "content", "maps"):
            kinds.add("content" if self.tap.unit == "content" else "tokens")
        return frozenset(kind for kind in kinds if kind is not None)


def pooler_capture(num_hidden_layers: int) -> Capture:
    """Return the pooler head on the last state of every window's first token."""
    return Capture(layers=(num_hidden_layers,), segments="windows", reduce="first", pooler=True)


def reduction_of(op: PoolOp, *, special: bool, prompt: bool = True) -> Reduction:
    """Return the reduction of a pooling: its rows, operation and divisor."""
    if op == "cls":
        return Reduction(segments="cls", reduce="first")
    rows: SegmentKind = "content" if not special else "tokens" if prompt else "after_prompt"
    if op == "weighted_mean":
        by_position: dict[SegmentKind, SegmentKind] = {
            "tokens": "tokens_by_position",
            "content": "content_by_position",
            "after_prompt": "after_prompt_by_position",
        }
        return Reduction(segments=by_position[rows], reduce="sum", divisor="weight")
    if op == "mean":
        return Reduction(segments=rows, reduce="sum", divisor="count")
    if op == "mean_sqrt_len":
        return Reduction(segments=rows, reduce="sum", divisor="sqrt_count")
    return Reduction(segments=rows, reduce=op)


def unit_reduction(unit: Literal["words", "spans"], op: UnitOp) -> Reduction:
    """Return the reduction of a pooling of words or spans."""
    if op == "mean":
        return Reduction(segments=unit, reduce="sum", divisor="count")
    return Reduction(segments=unit, reduce=op)


def tap_of(expr: Expr, num_hidden_layers: int) -> Tap:
    """Return the tap of a rewritten feature without vector steps and joins."""
    if isinstance(expr, PoolerOutput):
        head = Reduction(segments="windows", reduce="first")
        return Tap(layers=(num_hidden_layers,), pooler=True, pooling=head, again="mean", unit="text")
    unit = expr.form.unit
    if unit == "maps":
        return _tap_of_attentions(expr)
    pool, expr = (expr, expr.of) if isinstance(expr, Pool) else (None, expr)
    units, expr = (expr, expr.of) if isinstance(expr, Units) else (None, expr)
    pooling: Reduction | None = None
    if units is not None:
        pooling = unit_reduction(units.unit, units.op)
    elif pool is not None:
        special = pool.special and pool.of.form.unit != "content"
        pooling = reduction_of(pool.op, special=special, prompt=pool.prompt)
    if isinstance(expr, Tokens):
        expr = expr.of
    fold = expr if isinstance(expr, LayerFold) else None
    source = fold.of if fold is not None else expr
    unnormed = isinstance(source, Unnormed)
    if isinstance(source, Unnormed):
        source = source.of
    assert isinstance(source, HiddenLayers)
    assert isinstance(source.selection, int | tuple), "not rewritten for a model"
    several = isinstance(source.selection, tuple)
    return Tap(
        layers=source.selection if isinstance(source.selection, tuple) else (source.selection,),
        fold=fold.op if fold is not None else None,
        weights=fold.weights if fold is not None else (),
        stacked=several and fold is None,
        pooling=pooling,
        unnormed=unnormed,
        again=_again(units, pool),
        unit=unit,
    )


def _again(units: Units | None, pool: Pool | None) -> PoolOp | None:
    if pool is not None and pool.op == "cls":
        return "mean"  # of several windows
    return pool.op if units is not None and pool is not None else None


def _tap_of_attentions(expr: Expr) -> Tap:
    mean, expr = (expr, expr.of) if isinstance(expr, HeadsMean) else (None, expr)
    heads, expr = (expr, expr.of) if isinstance(expr, Heads) else (None, expr)
    fold, source = (expr, expr.of) if isinstance(expr, LayerFold) else (None, expr)
    assert isinstance(source, AttentionLayers)
    assert isinstance(source.selection, int | tuple), "not rewritten for a model"
    several = isinstance(source.selection, tuple)
    layers = source.selection if isinstance(source.selection, tuple) else (source.selection,)
    return Tap(
        layers=tuple(layer + 1 for layer in layers),
        fold=fold.op if fold is not None else None,
        stacked=several and fold is None,
        unit="maps",
        attention="heads" if mean is None else "mean",
        heads=heads.selection if heads is not None else None,
    )


def taps(expr: Expr, num_hidden_layers: int) -> tuple[Tap, ...]:
    """Return the taps of a rewritten feature, from left to right."""
    if isinstance(expr, Concat):
        return tuple(tap for part in expr.parts for tap in taps(part, num_hidden_layers))
    if is_tap(expr):
        return (tap_of(expr, num_hidden_layers),)
    return taps(expr.of, num_hidden_layers)  # type: ignore[attr-defined]


TAPPED = (HiddenLayers, AttentionLayers, PoolerOutput, Unnormed, LayerFold, Heads, HeadsMean, Tokens, Units, Pool)


def is_tap(expr: Expr) -> bool:
    """Return whether a feature has no vector step and no join."""
    return isinstance(expr, TAPPED)


def read(tap: Tap, *, capture: bool, fold: bool) -> Reading:
    """Return how a tap is captured.

    Args:
        tap: what is read.
        capture: reduce inside the backend; False: it hands over whole states.
        fold: pool each layer and fold the small vectors, where that commutes; False: the backend folds states.
    """
    if tap.pooler:
        return Reading(tap=tap, captures=(pooler_capture(tap.layers[0]),), folded=False, reduced=True)
    if tap.attention is not None:
        wanted = {"attention": tap.attention, "heads": tap.heads} if capture else {"attention": "heads"}
        captures = tuple(Capture(layers=(i,), **wanted) for i in tap.layers)
        return Reading(tap=tap, captures=captures, folded=False, reduced=capture)
    # so that lower layers are one capture with those of the normed feature
    raw = max(tap.layers) if tap.unnormed else None
    if not capture:
        whole = tuple(Capture(layers=(i,), unnormed=i == raw) for i in tap.layers)
        return Reading(tap=tap, captures=whole, folded=False, reduced=False)
    segments = tap.pooling.segments if tap.pooling else None
    reduce = tap.pooling.reduce if tap.pooling else None
    # A weight below zero turns a maximum into a minimum, even of a single layer.
    alone = len(tap.layers) == 1 and not tap.weights
    if tap.fold in (None, "concat") or alone or (fold and commutes(tap)):
        captures = tuple(Capture(layers=(i,), segments=segments, reduce=reduce, unnormed=i == raw) for i in tap.layers)
        return Reading(tap=tap, captures=captures, folded=False, reduced=True)
    by_layer = dict(zip(tap.layers, tap.weights, strict=True)) if tap.weights else {}
    layers = tuple(sorted(tap.layers))
    folded = Capture(
        layers=layers,
        fold="max" if tap.fold == "max" else "sum",
        weights=tuple(by_layer[i] for i in layers) if by_layer else None,
        segments=segments,
        reduce=reduce,
        unnormed=tap.unnormed,
    )
    return Reading(tap=tap, captures=(folded,), folded=True, reduced=True)


def commutes(tap: Tap) -> bool:
    """Return whether pooling each layer first and folding then gives the same.

    Choosing one row commutes with every fold, a sum with linear folds, and a maximum with a maximum.
    """
    if tap.pooling is None or tap.fold is None:
        return False
    if tap.pooling.reduce in ("first", "last"):
        return True
    if tap.pooling.reduce == "sum":
        return tap.fold != "max"
    return tap.pooling.reduce == "max" and tap.fold == "max"
