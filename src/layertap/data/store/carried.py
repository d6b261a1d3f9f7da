"""Values that records carry, as a sequence that reads what is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias, overload

from layertap.data.store.column import place_of

ReadValues: TypeAlias = Callable[[int, int], list[Any]]
"""Values of records `begin:end`, with 0 <= begin <= end <= N."""

VALUES_AT_ONCE = 1 << 16


class CarriedColumn(Sequence[Any]):
    """A column that came with the input, or the ids: a value (str, int, float, list, dict, None ...) a record.

    `column[i]` is a value, `column[a:b]` a list of them.

    Attributes:
        name: name of the column.
        type: Arrow's name of its type, for example `string` or `int64`.
    """

    def __init__(self, name: str, read: ReadValues, *, length: int, type: str) -> None:  # noqa: A002 - Arrow's term
        self.name = name
        self.type = type
        self._read = read
        self._length = length

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            begin, end, step = index.indices(self._length)
            if step == 1:
                return self._read(begin, max(begin, end))
            return [self[i] for i in range(begin, end, step)]
        i = place_of(index, self._length)
        return self._read(i, i + 1)[0]

    def __iter__(self) -> Iterator[Any]:
        for begin in range(0, self._length, VALUES_AT_ONCE):
            yield from self._read(begin, min(begin + VALUES_AT_ONCE, self._length))

    def __repr__(self) -> str:
        return f"CarriedColumn({self.name!r}, {self._length} records, {self.type})"
