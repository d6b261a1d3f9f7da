"""One feature of a file, as a sequence that reads what is asked for."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from layertap.data.slices import join
from layertap.errors import FeatureError
from layertap.records import Array, Feature, FeatureSchema, Ragged

Read: TypeAlias = Callable[[int, int], Feature]
"""Records `begin:end`, with 0 <= begin <= end <= N, as a copy."""


class FeatureColumn:
    """One feature of all records; an index, slice or list reads those records and no others.

    `column[i]` is an array: [H] or [L, H] of a dense feature, [T_i, H] or [T_i, L, H] of a ragged one, [*leading,
    T_i, T_i] of attentions; `column.schema.axes` names its axes. Slices and lists of records give arrays [n, ...],
    `Ragged` or `AttentionMaps`. Iterating reads block after block. All are copies, which stay when the file is closed.

    Attributes:
        schema: dtype, shape and names of the axes.
    """

    def __init__(
        self,
        schema: FeatureSchema,
        read: Read,
        *,
        length: int,
        block_records: int,
        scales: FeatureColumn | None = None,
    ) -> None:
        self.schema = schema
        self._read = read
        self._length = length
        self._block_records = block_records
        self._scales = scales

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> Array: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | Array) -> Feature: ...
    def __getitem__(self, index: int | slice | Sequence[int] | Array) -> Feature:
        if isinstance(index, slice):
            begin, end, step = index.indices(self._length)
            if step == 1:
                return self._read(begin, max(begin, end))
            return self._take(range(begin, end, step))
        if isinstance(index, int | np.integer):
            i = place_of(index, self._length)
            return np.asarray(self._read(i, i + 1)[0])
        return self._take([place_of(i, self._length) for i in index])

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        """Read the whole feature as one array [N, ...], as `numpy.asarray(column)` does.

        Raises:
            FeatureError: the records' arrays differ in their number of tokens, words or spans.
            ValueError: `copy` is False; a file cannot be read without one.
        """
        if copy is False:
            raise ValueError("the values are read from a file, which always makes a copy; leave copy=False out")
        values = self[:]
        if not isinstance(values, np.ndarray):
            raise FeatureError(
                f"{self.schema.name!r} has arrays of different lengths, which are no single array; column[:].values "
                "has them end to end, and column[i] is that of a record"
            )
        return values if dtype is None else values.astype(dtype, copy=False)

    def __iter__(self) -> Iterator[Array]:
        for block in self.blocks():
            yield from (np.asarray(block[i]) for i in range(len(block)))

    def blocks(self, records: int | None = None) -> Iterator[Feature]:
        """Yield consecutive records at a time: arrays [n, ...], `Ragged` or `AttentionMaps`.

        Args:
            records: how many; None: about 8 MiB of them.
        """
        size = self._block_records if records is None else max(1, records)
        for begin in range(0, self._length, size):
            yield self._read(begin, min(begin + size, self._length))

    @property
    def dequantized(self) -> FeatureColumn:
        """An int8 feature as float32, its numbers times their vector's scale.

        Each is at most half a scale step off the number that was quantised, and the step is the largest of its
        vector / 127. A vector that was not finite gives NaN.

        Raises:
            FeatureError: the feature is not int8.
        """
        if self._scales is None:
            raise FeatureError(f"{self.schema.name!r} holds {self.schema.dtype}; only int8 features have scales")
        read, scales = self._read, self._scales._read

        def scaled(begin: int, end: int) -> Feature:
            return _scaled(read(begin, end), scales(begin, end))

        return FeatureColumn(
            replace(self.schema, dtype="float32"), scaled, length=self._length, block_records=self._block_records
        )

    def __repr__(self) -> str:
        return f"FeatureColumn({self.schema.name!r}, {self._length} records of {self.schema.described})"

    def _take(self, places: Sequence[int]) -> Feature:
        # In ascending order, what is read for one record (a row group, a shard) still serves its neighbours.
        pieces = {i: self._read(i, i + 1) for i in sorted(set(places))}
        return join(self.schema, [pieces[i] for i in places])


def place_of(index: Any, length: int) -> int:
    """Return a record's place counted from the beginning.

    Raises:
        IndexError: there is no such record.
        TypeError: the index is not a whole number; a mask of bools is none.
    """
    if isinstance(index, bool | np.bool_):
        raise TypeError("records are taken by their numbers, not by a mask; use numpy.flatnonzero(mask)")
    whole = operator.index(index)
    place = whole + length if whole < 0 else whole
    if not 0 <= place < length:
        raise IndexError(f"record {whole} of {length}")
    return place


def _scaled(steps: Feature, scales: Feature) -> Feature:
    """Multiply int8 [..., H] by float32 [...]."""
    if isinstance(steps, Ragged) and isinstance(scales, Ragged):
        return Ragged(_product(steps.values, scales.values), steps.offsets)
    assert isinstance(steps, np.ndarray)
    assert isinstance(scales, np.ndarray)
    return _product(steps, scales)


def _product(steps: Array, scales: Array) -> Array:
    with np.errstate(invalid="ignore"):  # zero steps of an infinite scale
        product: Array = steps.astype(np.float32) * scales[..., None]
    return product
