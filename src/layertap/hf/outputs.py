"""What a model gives back: by name, index and slice, or as a tuple.

Shape letters: B sequences, S columns of the padded batch, L layers, H hidden size.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import ItemsView, Iterable, Iterator, ValuesView
from typing import Any, SupportsIndex

from layertap.errors import UntrainedPoolerError

FIELDS = (
    "last_hidden_state",
    "pooler_output",
    "hidden_states",
    "past_key_values",
    "attentions",
    "cross_attentions",
)


class AbsentPooler:
    """Stands in slot 1 where a checkpoint has no pooler; whatever is asked of the slot raises `reason`."""

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def error(self) -> UntrainedPoolerError:
        """The error that says why there is nothing here and what to do."""
        return UntrainedPoolerError(self.reason)

    def __repr__(self) -> str:
        return "<absent: touching it raises UntrainedPoolerError>"


def _touch(value: Any) -> Any:
    """The value of a slot that somebody reads."""
    if isinstance(value, AbsentPooler):
        raise value.error()
    return value


class OutputTuple(tuple[Any, ...]):
    """The slots of an output as a tuple (`return_dict=False`); reading an absent pooler's slot raises."""

    __slots__ = ()

    def __getitem__(self, index: SupportsIndex | slice) -> Any:
        found = tuple.__getitem__(self, index)
        if isinstance(index, slice):
            for value in tuple.__iter__(found):
                _touch(value)
            return found
        return _touch(found)

    def __iter__(self) -> Iterator[Any]:
        return map(_touch, tuple.__iter__(self))


class BaseModelOutputWithPoolingAndCrossAttentions(OrderedDict[str, Any]):
    """The outputs that are there, in transformers' order: a dictionary that also knows attributes and indices.

    Attributes:
        last_hidden_state: [B, S, H]; rows at mask 0 are zeros. Slot 0.
        pooler_output: [B, H]: dense + tanh on the first token's last state. Slot 1, also where the checkpoint has
            no pooler: reading it (by name, index, slice or iteration over values) then raises
            `UntrainedPoolerError`. With `add_pooling_layer=False` the slot is not there, as in transformers.
        hidden_states: L + 1 tensors [B, S, H] - the embedding output, then every block's - where asked for, else None.
        past_key_values, attentions, cross_attentions: always None.
    """

    def __init__(self, values: Iterable[tuple[str, Any]] = ()) -> None:
        super().__init__()
        for name, value in values:
            if value is not None:
                self[name] = value

    def __getitem__(self, key: Any) -> Any:
        """The output called `key`, or slot `key` (an index or a slice) of those that are there."""
        return _touch(super().__getitem__(key)) if isinstance(key, str) else self.to_tuple()[key]

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        if name in FIELDS:
            return None
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}; it has {', '.join(FIELDS)}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in FIELDS:
            self[name] = value
        else:
            super().__setattr__(name, value)

    def get(self, key: str, default: Any = None) -> Any:
        """The output called `key`, or `default`."""
        return self[key] if super().__contains__(key) else default

    # The dictionary's own views, and its pickling, would read past `__getitem__`.

    def values(self) -> ValuesView[Any]:  # type: ignore[override]
        """The outputs, in order."""
        return ValuesView(self)

    def items(self) -> ItemsView[str, Any]:  # type: ignore[override]
        """Names and outputs, in order."""
        return ItemsView(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ([(name, OrderedDict.__getitem__(self, name)) for name in self],)

    def to_tuple(self) -> OutputTuple:
        """The outputs that are there, without names."""
        return OutputTuple(OrderedDict.__getitem__(self, name) for name in self)

    def __repr__(self) -> str:
        shown = (f"{name}={OrderedDict.__getitem__(self, name)!r}" for name in self)
        return f"{type(self).__name__}({', '.join(shown)})"
