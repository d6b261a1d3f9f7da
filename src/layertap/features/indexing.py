"""Interprets square brackets: layers that `hidden_states[...]` or `attentions[...]` selects, and `[:, 0]`.

Everything else that people write with torch tensors is refused with the spelling that works.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TypeAlias

from layertap.errors import FeatureError

MAX_NUMBER = 2**31 - 1


@dataclass(frozen=True, slots=True)
class LayerSlice:
    """`start:stop:step` as written; None where nothing was written."""

    start: int | None = None
    stop: int | None = None
    step: int | None = None

    def __str__(self) -> str:
        start, stop = ("" if bound is None else str(bound) for bound in (self.start, self.stop))
        return f"{start}:{stop}" + ("" if self.step is None else f":{self.step}")


Selection: TypeAlias = int | tuple[int, ...] | LayerSlice
"""Layers as written: one (no layers axis), a list in its order, or a slice (both keep a layers axis)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layered:
    """Description, for messages, of a source with layers to select.

    Attributes:
        name: as in the language.
        lowest: what number 0 is.
        counted: what a model has a number of.
        of_tuple: what to write in the place of several axes in one bracket, where the first is one layer.
    """

    name: str
    lowest: str
    counted: str
    of_tuple: str


HIDDEN_STATES = Layered(
    name="hidden_states",
    lowest="embedding output",
    counted="hidden states",
    of_tuple="select the layer first, then its tokens, as in hidden_states[{layer}][:, 0]",
)
ATTENTIONS = Layered(
    name="attentions",
    lowest="first block",
    counted="blocks with attentions",
    of_tuple="select the layer first, then its heads, as in attentions[{layer}].heads(0, 3)",
)


def selection_text(selection: Selection) -> str:
    """Return a selection as it is written between brackets: `-1`, `[1, 6, 12]`, `-4:`."""
    return str(list(selection)) if isinstance(selection, tuple) else str(selection)


def selection_of(key: object, of: Layered = HIDDEN_STATES) -> Selection:
    """Return the layers that `hidden_states[key]`, or another with layers, selects.

    Raises:
        FeatureError: a key that is not one layer, a list of layers or a slice, an empty or a repeated one.
    """
    if isinstance(key, slice):
        bounds = [None if b is None else _number(b, key, of) for b in (key.start, key.stop, key.step)]
        if bounds[2] == 0:
            raise FeatureError(f"{of.name}[{key_text(key)}]: a step of 0 selects nothing")
        return LayerSlice(*bounds)
    if isinstance(key, list):
        layers = tuple(_number(layer, key, of) for layer in key)
        if not layers:
            raise FeatureError(f"{of.name}[[]] selects nothing; name layers as in {of.name}[[1, 6, 12]]")
        _refuse_repeated(layers, selection_text(layers), of)
        return layers
    if isinstance(key, tuple):
        raise FeatureError(_tuple_advice(key, of))
    return _number(key, key, of)


def _number(value: object, key: object, of: Layered) -> int:
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise FeatureError(
            f"{of.name}[{key_text(key)}]: layers are whole numbers: one ({of.name}[-1]), "
            f"a list ({of.name}[[1, 6, 12]]) or a slice ({of.name}[-4:])"
        ) from None
    if abs(number) > MAX_NUMBER:
        raise FeatureError(f"{of.name}: a layer number of {number.bit_length()} bits; no model has that many")
    return number


def _refuse_repeated(layers: tuple[int, ...], text: str, of: Layered) -> None:
    for layer in layers:
        if layers.count(layer) > 1:
            raise FeatureError(f"{of.name}[{text}] selects layer {layer} more than once; name each layer once")


def _tuple_advice(key: tuple[object, ...], of: Layered) -> str:
    text = key_text(key)
    if key and all(isinstance(layer, int) for layer in key):
        return f"{of.name}[{text}]: a list of layers has its own brackets; write {of.name}[[{text}]]"
    if key and isinstance(key[0], slice) and of is HIDDEN_STATES:
        layers = key_text(key[0])
        return (
            f"hidden_states[{text}]: `[:, 0]` on several layers is not a feature; write hidden_states[{layers}].first "
            "for the first token of each of these layers, or hidden_states[-1][:, 0] for the last layer's"
        )
    layer = key_text(key[0]) if key else "-1"
    return f"{of.name}[{text}]: {of.of_tuple.format(layer=layer)}"


def resolve(selection: Selection, num_states: int, of: Layered = HIDDEN_STATES) -> tuple[int, ...]:
    """Return the selected layers as numbers 0..num_states-1, in the order asked; `num_states` is how many there are.

    Raises:
        FeatureError: out of range (never clamped), empty, or repeated.
    """
    text, top = selection_text(selection), num_states - 1
    valid = f"0 ({of.lowest}) to {top} (last), or -1 to -{num_states}"
    if isinstance(selection, LayerSlice):
        low, high = -num_states, num_states
        for bound in (selection.start, selection.stop):
            if bound is not None and not low <= bound <= high:
                raise FeatureError(
                    f"{of.name}[{text}]: {bound} is out of range; this model has {num_states} {of.counted}, "
                    f"and slice bounds go from {low} to {high}"
                )
        layers = tuple(range(num_states)[selection.start : selection.stop : selection.step])
        if not layers:
            raise FeatureError(f"{of.name}[{text}] selects no layer; this model's are {valid}")
        return layers
    asked = selection if isinstance(selection, tuple) else (selection,)
    for layer in asked:
        if not -num_states <= layer <= top:
            raise FeatureError(f"{of.name}[{text}]: {layer} is out of range; this model's layers are {valid}")
    layers = tuple(layer % num_states for layer in asked)
    _refuse_repeated(layers, text, of)
    return layers


def refuse_unless_first(key: object, value: str, *, layers: bool, tokens: bool) -> None:
    """Refuses every `value[key]` but `[:, 0]` and `[:, 0, :]` on one layer's tokens, with the spelling that works.

    Args:
        key: what stands in the brackets, as Python passes it.
        value: the text of the feature before the brackets.
        layers: whether it has a layers axis.
        tokens: whether it has a token axis.
    """
    whole, text = slice(None), key_text(key)
    axes = key[:-1] if isinstance(key, tuple) and len(key) == 3 and key[2] == whole else key
    if not tokens:
        raise FeatureError(_vector_advice(key, value, text))
    if axes == (whole, 0) and not isinstance(axes[1], bool):
        if layers:
            raise FeatureError(
                f"{value}[{text}]: `[:, 0]` on several layers could mean the first layer or the first token; "
                f"write {value}.first for the first token of each layer"
            )
        return
    if axes == (0, 0):
        advice = f"there is no batch axis: a feature is asked for every text; write {value}.first for the first token"
    elif axes == (whole, -1):
        advice = f"write {value}.last: the last token of each text, never padding"
    elif axes == (whole, slice(1, -1)):
        advice = f"write {value}.mean(special=False), or another pooling, to leave the special tokens out"
    elif layers:
        advice = f"layers are selected once, as in hidden_states[-4:]; tokens are pooled, as in {value}.mean"
    else:
        advice = (
            f"only `[:, 0]` is understood, as {value}.first; "
            f"{value}.last, {value}.mean and other poolings give one vector, and {value} alone every token"
        )
    raise FeatureError(f"{value}[{text}]: {advice}")


def _vector_advice(key: object, value: str, text: str) -> str:
    last = key[-1] if isinstance(key, tuple) and key else key
    if (
        isinstance(last, slice)
        and last.start is None
        and last.step is None
        and isinstance(last.stop, int)
        and last.stop > 0
    ):
        return f"{value}[{text}]: write {value}.truncate({last.stop}) for the first {last.stop} numbers of the vector"
    return f"{value}[{text}]: {value} has no token axis to index; .truncate(n) keeps the first n numbers"


def key_text(key: object) -> str:
    """Return a key as people write it: `:, 0`."""
    if isinstance(key, tuple):
        return ", ".join(key_text(part) for part in key)
    if isinstance(key, slice):
        start, stop = ("" if bound is None else _scalar_text(bound) for bound in (key.start, key.stop))
        return f"{start}:{stop}" + ("" if key.step is None else f":{_scalar_text(key.step)}")
    if key is Ellipsis:
        return "..."
    return _scalar_text(key)


def _scalar_text(key: object) -> str:
    if isinstance(key, list):
        return f"[{key_text(tuple(key))}]"
    if isinstance(key, int) and abs(key) > MAX_NUMBER:
        return "-..." if key < 0 else "..."  # Python prints no number of more than 4,300 digits
    return str(key) if isinstance(key, int) else repr(key)[:40]
