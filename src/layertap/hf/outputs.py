"""Outputs of a model, by name, index or slice, or as a tuple.

Shape letters: B sequences, S columns of the padded batch, L layers, H hidden size.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import ItemsView, Iterable, Iterator, ValuesView
from typing import Any, SupportsIndex

from torch.utils import _pytree as pytree

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
    """Placeholder in slot 1 for checkpoints without a pooler; reading the slot raises an error with `reason`."""

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def error(self) -> UntrainedPoolerError:
        """Error that explains why there is no pooler output, and what to do."""
        return UntrainedPoolerError(self.reason)

    def __repr__(self) -> str:
        return "<absent: touching it raises UntrainedPoolerError>"


def _touch(value: Any) -> Any:
    """Return the value of a slot, or raise the error of an absent pooler."""
    if isinstance(value, AbsentPooler):
        raise value.error()
    return value


class OutputTuple(tuple[Any, ...]):
    """Tuple of outputs (`return_dict=False`); reading the slot of an absent pooler raises an error."""

    __slots__ = ()

    def __getitem__(self, index: SupportsIndex | slice) -> Any:
        values = tuple.__getitem__(self, index)
        if isinstance(index, slice):
            for value in tuple.__iter__(values):
                _touch(value)
            return values
        return _touch(values)

    def __iter__(self) -> Iterator[Any]:
        return map(_touch, tuple.__iter__(self))


class BaseModelOutputWithPoolingAndCrossAttentions(OrderedDict[str, Any]):
    """Dictionary of the outputs of a model, in the order of transformers, with access by attribute and index.

    Attributes:
        last_hidden_state: [B, S, H], zeros in masked cells. Slot 0.
        pooler_output: [B, H], a dense layer and tanh on the last hidden state of the first token. Slot 1. If the
            checkpoint has no pooler, reading it (by name, index, slice or iteration over values) raises
            `UntrainedPoolerError`. With `add_pooling_layer=False` there is no such slot, as in transformers.
        hidden_states: L + 1 tensors [B, S, H], the output of the embeddings and of each layer, if requested, else
            None.
        attentions: L tensors [B, A, S, S], the attention probabilities of each layer, if requested, else None.
        cross_attentions: an empty tuple beside `attentions` where transformers has one, else None.
        past_key_values: always None.
    """

    def __init__(self, values: Iterable[tuple[str, Any]] = ()) -> None:
        super().__init__()
        for name, value in values:
            if value is not None:
                self[name] = value

    def __getitem__(self, key: Any) -> Any:
        """Return the output named `key`, or, for an index or a slice, the outputs in those slots."""
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
        """Return the output named `key`, or `default` if there is none."""
        return self[key] if super().__contains__(key) else default

    # The dictionary's own views, and its pickling, would read past `__getitem__`.

    def values(self) -> ValuesView[Any]:  # type: ignore[override]
        """Return the outputs in the order of their slots."""
        return ValuesView(self)

    def items(self) -> ItemsView[str, Any]:  # type: ignore[override]
        """Return names and outputs in the order of their slots."""
        return ItemsView(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ([(name, OrderedDict.__getitem__(self, name)) for name in self],)

    def to_tuple(self) -> OutputTuple:
        """Return the outputs as a tuple, without their names."""
        return OutputTuple(OrderedDict.__getitem__(self, name) for name in self)

    def __repr__(self) -> str:
        shown = (f"{name}={OrderedDict.__getitem__(self, name)!r}" for name in self)
        return f"{type(self).__name__}({', '.join(shown)})"


def _flatten(output: BaseModelOutputWithPoolingAndCrossAttentions) -> tuple[list[Any], tuple[str, ...]]:
    values = [(name, OrderedDict.__getitem__(output, name)) for name in output]
    present = [(name, value) for name, value in values if not isinstance(value, AbsentPooler)]
    return [value for _, value in present], tuple(name for name, _ in present)


def _unflatten(values: Iterable[Any], names: tuple[str, ...]) -> BaseModelOutputWithPoolingAndCrossAttentions:
    return BaseModelOutputWithPoolingAndCrossAttentions(zip(names, values, strict=True))


# torch.export takes a model only if it knows the containers of its outputs; torch has no public name for this yet.
pytree.register_pytree_node(
    BaseModelOutputWithPoolingAndCrossAttentions,
    _flatten,
    _unflatten,
    serialized_type_name="layertap.hf.BaseModelOutputWithPoolingAndCrossAttentions",
)
pytree.register_pytree_node(
    OutputTuple, lambda values: (list(tuple.__iter__(values)), None), lambda values, _: OutputTuple(values)
)
