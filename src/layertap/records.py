"""Inputs and results: `Record`, `Ragged`, `AttentionMaps`, `FeatureBatch`.

Shape letters here: N records, M values laid end to end, H hidden size, L layers.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, Literal, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from layertap.errors import InputError

Array: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Input row: a text, or a pair of texts or given words, with its id and columns.

    Attributes:
        row: 0-based number of the row in its input, counting rows that were skipped.
        text: the text as read; the tokenizer normalizes it. If words are given: the words with a space between.
        id: the user's own identifier, or None where the input has none.
        columns: the other columns, carried to the output unchanged.
        pair: the second text of a pair, or None.
        words: the text as words that the user gives, each tokenized by itself, or None.
        spans: character ranges [begin, end) of the text, in any order, overlapping or not; None: none are given.

    Raises:
        InputError: a field of another type.
    """

    row: int
    text: str
    id: str | int | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    pair: str | None = None
    words: tuple[str, ...] | None = None
    spans: tuple[tuple[int, int], ...] | None = None

    def __post_init__(self) -> None:
        # What is of another type would fail somewhere deep in a run, without the number of the row.
        wrong = _wrong_field(self)
        if wrong is not None:
            raise InputError(f"record {self.row!r}: {wrong}")

    @classmethod
    def of_words(
        cls,
        row: int,
        words: Sequence[str],
        *,
        id: str | int | None = None,  # noqa: A002 - the field's name
        columns: Mapping[str, Any] | None = None,
    ) -> Record:
        """Return a record of given words."""
        return cls(row=row, text=" ".join(words), id=id, columns=columns or {}, words=tuple(words))


_WHOLE = (int, Integral)  # int first: that is quick to tell


def _wrong_field(record: Any) -> str | None:
    """Return what is wrong with the types of a record's fields, or None."""
    if not _is_whole(record.row):
        return f"row is {record.row!r:.60}; expected a whole number"
    if not isinstance(record.text, str):
        return f"text is {record.text!r:.60}; expected a str"
    if not (record.pair is None or isinstance(record.pair, str)):
        return f"pair is {record.pair!r:.60}; expected a str or None"
    if not (record.id is None or isinstance(record.id, str) or _is_whole(record.id)):
        return f"id is {record.id!r:.60}; expected a str, a whole number or None"
    if not isinstance(record.columns, Mapping):
        return f"columns are {record.columns!r:.60}; expected a mapping of names to values"
    if not (record.words is None or (_is_list(record.words) and all(isinstance(word, str) for word in record.words))):
        return f"words are {record.words!r:.60}; expected a tuple of str"
    if not (record.spans is None or _is_list(record.spans)):
        return f"spans are {record.spans!r:.60}; expected a tuple of (begin, end)"
    for span in () if record.spans is None else record.spans:
        if not (_is_list(span) and len(span) == 2 and all(map(_is_whole, span))):
            return f"span {span!r:.60}: expected (begin, end) in whole numbers"
    return None


def _is_whole(value: object) -> bool:
    return isinstance(value, _WHOLE) and not isinstance(value, bool)


def _is_list(value: object) -> bool:
    return isinstance(value, tuple | list) or (isinstance(value, np.ndarray) and value.ndim > 0)


STRING_BYTES = 10
"""Approximate size of a string among the details: a token or word of six bytes, and where it ends."""


_COUNTED = frozenset({"token", "word", "span", "layer", "head", "label"})
"""Axes whose names are written beside their sizes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureSchema:
    """Name, dtype and shape of a result, known before anything runs.

    Attributes:
        name: the feature's name; a companion of int8 is called `<name>.scale`.
        dtype: of the values; `uint8` holds packed sign bits, `str` only details.
        shape: of one record's value (dense: [H], [L, H]), of one token's, word's or span's (ragged: [H], [L, H],
            [] for a scale), or of what stands before the token axes of attentions ([A], [L, A], []).
        ragged: one value a token, word or span instead of one a record.
        maps: one value a pair of tokens: attentions, [*shape, T, T] a record.
        axes: names of the axes of one record's value, in order: `token`, `word` or `span` first where the feature is
            ragged, then `layer`, `head`, `dim`, `query`, `key`, as far as there are. If none are given, they follow
            from the shape. They describe and do not distinguish: equal schemas may differ in them.
    """

    name: str
    dtype: Literal["float32", "float16", "int8", "uint8", "int32", "bool", "str"]
    shape: tuple[int, ...]
    ragged: bool
    maps: bool = False
    axes: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        if not self.axes:
            object.__setattr__(self, "axes", self._usual_axes())
        assert len(self.axes) == self.ragged + len(self.shape) + 2 * self.maps, f"{self.axes} of {self.shape}"

    def _usual_axes(self) -> tuple[str, ...]:
        count = len(self.shape)
        if self.maps:
            return (*("layer", "head")[-count:][:count], "query", "key")
        inner = ("layer", "dim")[-count:] if 0 < count <= 2 else tuple(f"axis_{i}" for i in range(count))
        return (("token",) if self.ragged else ()) + inner

    @property
    def sizes(self) -> tuple[str, ...]:
        """Sizes of one record's value in words, an axis each: `("tokens", "7 layers", "384")`."""
        lengths = (*(("",) if self.ragged else ()), *map(str, self.shape), *(("T", "T") if self.maps else ()))
        return tuple(
            (f"{length} {name}{'' if length == '1' else 's'}" if name in _COUNTED else length).strip()
            for name, length in zip(self.axes, lengths, strict=True)
        )

    @property
    def described(self) -> str:
        """Dtype and shape of one record's value in words: `float32 [tokens, 7 layers, 384]`."""
        return f"{self.dtype} [{', '.join(self.sizes)}]" if self.axes else self.dtype

    def value_bytes(self, *, records: float, values: float, squares: float) -> float:
        """Return the bytes that the values of some records take; where each record's values end is not counted.

        Args:
            records: number of records.
            values: number of tokens, words or spans, where there is a value for each of them.
            squares: sum of the squares of the records' tokens, for attentions.
        """
        size = STRING_BYTES if self.dtype == "str" else np.dtype(self.dtype).itemsize
        count = squares if self.maps else values if self.ragged else records
        return size * math.prod(self.shape) * count


@dataclass(frozen=True, slots=True, eq=False)
class Ragged:
    """Rows of different lengths: behaves as a list of N arrays, holds two.

    The first axis is always that of tokens (or words, or spans), here and in every file: `ragged[i][t]` belongs to
    token t, as `token_ids[i][t]` does. Where there are several layers they are the second axis, [T, L, H];
    `ragged[i].swapaxes(0, 1)` is [L, T, H], the order in which transformers stacks `hidden_states`.

    Attributes:
        values: [M, H] or [M, L, H], the values of all records laid end to end; a token, word or span each. Strings are
            an object array [M].
        offsets: int64 [N+1]; record i owns `values[offsets[i]:offsets[i+1]]`.

    `ragged[i]` is a view of these rows: [T_i, H] or [T_i, L, H]. A slice of records is a `Ragged`.
    """

    values: Array
    offsets: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, index: int) -> Array: ...
    @overload
    def __getitem__(self, index: slice) -> Ragged: ...
    def __getitem__(self, index: int | slice) -> Array | Ragged:
        if isinstance(index, slice):
            chosen = [self[i] for i in range(*index.indices(len(self)))]
            return Ragged.from_rows(chosen) if chosen else Ragged(self.values[:0], np.zeros(1, dtype=np.int64))
        i = _place(index, len(self))
        rows: Array = self.values[self.offsets[i] : self.offsets[i + 1]]
        return rows

    def __iter__(self) -> Iterator[Array]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        shape = ", ".join(("n", *map(str, self.values.shape[1:])))
        return f"Ragged({len(self)} records of [{shape}], values {list(self.values.shape)} {self.values.dtype})"

    @classmethod
    def from_rows(cls, rows: Sequence[Array]) -> Ragged:
        """Lays arrays [T_i, H] or [T_i, L, H] end to end; at least one is needed."""
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        return cls(np.concatenate(rows, axis=0), offsets)


@dataclass(frozen=True, slots=True, eq=False)
class AttentionMaps:
    """Attentions of texts of different lengths: behaves as a list of N arrays, holds two.

    Attributes:
        values: float32 [M], the maps of all records laid end to end.
        lengths: int64 [N], tokens a record.
        leading: what stands before the token axes: (A,), (L, A), (L,) or ().

    `maps[i]` is a view [*leading, T_i, T_i]: row q holds how much token q attends to each. A slice of records is an
    `AttentionMaps`.
    """

    values: Array
    lengths: npt.NDArray[np.int64]
    leading: tuple[int, ...]

    @property
    def offsets(self) -> npt.NDArray[np.int64]:
        """int64 [N+1], where each record's values begin, and the end."""
        sizes = np.square(self.lengths) * math.prod(self.leading)
        return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes)])

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, index: int) -> Array: ...
    @overload
    def __getitem__(self, index: slice) -> AttentionMaps: ...
    def __getitem__(self, index: int | slice) -> Array | AttentionMaps:
        if isinstance(index, slice):
            chosen = [self[i].reshape(-1) for i in range(*index.indices(len(self)))]
            return AttentionMaps(np.concatenate([self.values[:0], *chosen]), self.lengths[index], self.leading)
        i = _place(index, len(self))
        begin, length, scale = int(np.square(self.lengths[:i]).sum()), int(self.lengths[i]), math.prod(self.leading)
        flat: Array = self.values[begin * scale : (begin + length * length) * scale]
        return flat.reshape(*self.leading, length, length)

    def __iter__(self) -> Iterator[Array]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        shape = ", ".join((*map(str, self.leading), "n", "n"))
        return f"AttentionMaps({len(self)} records of [{shape}], {self.values.dtype})"


def _place(index: int, number: int) -> int:
    """Return the place of record `index` of `number`, which counts from the end where it is negative."""
    try:
        place = operator.index(index)
    except TypeError:
        raise TypeError(f"{index!r}: the arrays of a feature, one a record, are named by number or slice") from None
    if not -number <= place < number:
        raise IndexError(f"record {index} of {number}")
    return place % number


Feature: TypeAlias = Array | Ragged | AttentionMaps


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FeatureBatch:
    """Features of consecutive records, in input order.

    Attributes:
        records: the N records.
        features: name -> array [N, ...], `Ragged` or `AttentionMaps` of N; column order. `<name>.scale` companions
            (float32 [N]) follow the int8 feature that they belong to.
    """

    records: Sequence[Record]
    features: Mapping[str, Feature]

    def __len__(self) -> int:
        return len(self.records)
