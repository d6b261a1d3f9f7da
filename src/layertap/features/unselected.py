"""Sources whose layers are not selected yet, and descriptions of other values in a feature's place."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import MethodType
from typing import TYPE_CHECKING, NoReturn

from layertap.errors import FeatureError
from layertap.features.indexing import Layered


class Unselected(ABC):
    """Source with layers of which none is selected yet; any use of it says how to select."""

    __slots__ = ()

    layered: Layered

    __iter__: None = None
    __contains__: None = None

    @abstractmethod
    def __getitem__(self, key: object) -> object: ...

    @property
    def advice(self) -> str:
        """Advice on how to select layers."""
        name = self.layered.name
        return (
            f"{name} needs its layers: {name}[-1] (the last), {name}[-4:] (the last four), {name}[[1, 6]] (a list) or "
            f"{name}[:] (all)"
        )

    if not TYPE_CHECKING:  # or every attribute would be taken for one

        def __getattr__(self, name: str) -> NoReturn:
            raise AttributeError(name if name.startswith("_") else self.advice)

    def __array__(self, dtype: object = None, copy: object = None) -> NoReturn:
        raise FeatureError(self.advice)

    def __bool__(self) -> NoReturn:
        raise FeatureError(self.advice)

    def __repr__(self) -> str:
        return self.layered.name

    def __reduce__(self) -> str:
        return self.layered.name


def described(value: object) -> str:
    """Describe a value that is no feature, for messages."""
    if isinstance(value, Unselected):
        return value.advice
    if isinstance(value, str):
        return f"the text {value[:60]!r}; layertap.parse(...) makes a feature of a text"
    if isinstance(value, MethodType):
        return f"the step {value.__name__} without its parentheses; it needs its argument in them"
    return f"a value of type {type(value).__name__}"
