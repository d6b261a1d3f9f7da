"""`FlatEncodings`: what the tokenizers library gives for a batch, as arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from tokenizers import Encoding

IntArray = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FlatEncodings:
    """A batch's encodings laid end to end: one conversion for the batch, not one a text.

    Attributes:
        ids: int32 [T].
        ends: where each encoding's rows end.
        offsets: int32 [T, 2], characters, or None.
        type_ids: int32 [T], or None.
        word_ids: int32 [T], -1 for tokens of no word, or None.
    """

    ids: IntArray
    ends: list[int]
    offsets: IntArray | None = None
    type_ids: IntArray | None = None
    word_ids: IntArray | None = None

    @classmethod
    def of(
        cls, encodings: Sequence[Encoding], *, offsets: bool = False, type_ids: bool = False, word_ids: bool = False
    ) -> FlatEncodings:
        """Converts the ids, and what else is wanted."""
        lists = [encoding.ids for encoding in encodings]
        ends = list(accumulate(map(len, lists)))
        count = ends[-1] if ends else 0
        return cls(
            ids=_ints(lists, count),
            ends=ends,
            offsets=_pairs((encoding.offsets for encoding in encodings), count) if offsets else None,
            type_ids=_ints((encoding.type_ids for encoding in encodings), count) if type_ids else None,
            word_ids=_words(encoding.word_ids for encoding in encodings) if word_ids else None,
        )


def _ints(lists: Iterable[list[int]], count: int) -> IntArray:
    return np.fromiter(chain.from_iterable(lists), dtype=np.int32, count=count)


def _pairs(lists: Iterable[list[tuple[int, int]]], count: int) -> IntArray:
    numbers = chain.from_iterable(chain.from_iterable(lists))
    return np.fromiter(numbers, dtype=np.int32, count=2 * count).reshape(-1, 2)


def _words(lists: Iterable[list[int | None]]) -> IntArray:
    # as float, None becomes nan
    numbers = np.array(list(chain.from_iterable(lists)), dtype=np.float64)
    return np.where(np.isnan(numbers), -1, numbers).astype(np.int32)
