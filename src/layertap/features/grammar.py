"""In which order steps may follow each other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Literal, get_args

LayerOp = Literal["mean", "sum", "max", "concat", "mix"]
PoolOp = Literal["cls", "first", "last", "mean", "max", "min", "sum", "mean_sqrt_len", "weighted_mean"]
UnitOp = Literal["first", "last", "mean", "max", "min", "sum"]
Unit = Literal["text", "tokens", "content", "words", "spans", "maps"]
"""Unit that has one vector each; `content` are the tokens without the template's special ones. `maps` are no vectors
but attentions, a number for each two tokens."""
StoredType = Literal["float16", "int8", "binary"]


MAX_TEXT = 4096
"""Characters of a feature text at most."""
MAX_DEPTH = 64
MAX_SIZE = 1000


class Kind(IntEnum):
    """Kinds of steps, in the order in which they may follow each other."""

    SOURCE = 0
    LAYERS = 1
    HEADS = 2
    HEADS_MEAN = 3
    UNITS = 4
    POOLING = 5
    VECTORS = 6


STEPS: dict[str, Kind] = {
    **{f"layer_{op}": Kind.LAYERS for op in get_args(LayerOp)},
    "heads": Kind.HEADS,
    "heads_mean": Kind.HEADS_MEAN,
    **dict.fromkeys(("tokens", "words", "spans"), Kind.UNITS),
    **dict.fromkeys(get_args(PoolOp), Kind.POOLING),
    **dict.fromkeys(("normalize", "truncate", "astype"), Kind.VECTORS),
    "unnormed": Kind.SOURCE,  # still a source, of another state
}

STEPS_OF_MAPS = ("layer_mean", "heads", "heads_mean", "astype")


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """Properties of a value that are known without a model.

    Attributes:
        kind: of the last step.
        layers: there is a layers axis.
        unit: what there is a vector for; "text": there is no axis of tokens, words or spans.
        stored: `astype` was applied; nothing may follow.
        unnormed: `unnormed` was applied.
        depth: steps and joins from here down to the farthest source.
        size: steps, joins and sources in all.
    """

    kind: Kind
    layers: bool
    unit: Unit
    stored: bool = False
    unnormed: bool = False
    depth: int = 0
    size: int = 1

    @property
    def ragged(self) -> bool:
        """There is an axis of tokens, words or spans."""
        return self.unit != "text"

    def after(self, kind: Kind) -> Form:
        """Return the form after a step that changes no axis."""
        return replace(self, kind=kind, depth=self.depth + 1, size=self.size + 1)


def refusal(form: Form, step: str) -> str | None:
    """Say why `step` cannot follow a value of this form; None if it can."""
    kind = STEPS[step]
    if form.stored:
        return "astype is the last step"
    if form.depth >= MAX_DEPTH:
        return f"a feature has at most {MAX_DEPTH} steps"
    if form.unit == "maps" and step not in STEPS_OF_MAPS:
        return "of attentions only the mean folds layers" if kind == Kind.LAYERS else "attentions are maps, no vectors"
    if form.unit != "maps" and kind in (Kind.HEADS, Kind.HEADS_MEAN):
        return "only attentions have heads, as in attentions[0].heads(0, 3)"
    if kind == Kind.SOURCE:
        return _refusal_of_unnormed(form)
    if kind == Kind.VECTORS:
        return None
    if not form.ragged and kind != Kind.LAYERS and form.kind != Kind.VECTORS:
        return "it has one vector a text already" if not form.layers else "it has one vector a layer already"
    if form.kind > kind:
        return f"a step on {_SUBJECT[kind]} comes before one on {_SUBJECT[form.kind]}"
    if form.kind == kind and kind == Kind.LAYERS:
        return "its layers are folded already"
    if kind == Kind.LAYERS and not form.ragged:
        return "it has one vector a text"
    if kind == Kind.LAYERS and not form.layers:
        return f"it is one layer; select several, as in {'attentions' if form.unit == 'maps' else 'hidden_states'}[-4:]"
    if form.kind == kind:
        return f"only one step on {_SUBJECT[kind]} is possible"
    if step == "cls" and form.unit == "content":
        return "the special tokens are left out, and the CLS token is one"
    if step == "cls" and form.unit in ("words", "spans"):
        return f"it has one vector a {form.unit.removesuffix('s')}, and the CLS token is none"
    return None


def _refusal_of_unnormed(form: Form) -> str | None:
    if form.kind != Kind.SOURCE:
        return "it comes right after its source"
    if not form.ragged:
        return "only hidden states can be had as they are before the final norm"
    return "it is unnormed already" if form.unnormed else None


_SUBJECT = {
    Kind.SOURCE: "nothing",
    Kind.LAYERS: "layers",
    Kind.HEADS: "heads",
    Kind.HEADS_MEAN: "all heads",
    Kind.UNITS: "units",
    Kind.POOLING: "tokens",
    Kind.VECTORS: "vectors",
}


def steps_after(form: Form) -> tuple[str, ...]:
    """Return the steps that can follow a value of this form."""
    return tuple(step for step in STEPS if refusal(form, step) is None)
