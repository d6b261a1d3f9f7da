"""Ids of a file: a lazy sequence, and the places of each id."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from layertap.data.store.carried import CarriedColumn
from layertap.data.store.storage import Storage
from layertap.data.writers.base import ID


class Ids(Sequence[Any]):
    """The ids of a file's records, in order; read where they are asked for."""

    def __init__(self, storage: Storage) -> None:
        self._column = CarriedColumn(ID, storage.ids, length=storage.num_records, type="str or int")

    def __len__(self) -> int:
        return len(self._column)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        return self._column[index]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._column)

    def places(self, wanted: object) -> list[int]:
        """Return every place of an id, in order.

        The first call reads all ids, no features, and keeps 16 bytes of each.
        """
        hashes, order = self._index
        first, last = np.searchsorted(hashes, hash(wanted), side="left"), np.searchsorted(hashes, hash(wanted), "right")
        candidates: list[int] = order[first:last].tolist()
        return [i for i in candidates if self[i] == wanted]

    @cached_property
    def _index(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Hashes of the ids in ascending order, and the record of each."""
        hashes = np.fromiter(map(hash, self), np.int64, len(self))
        order = np.argsort(hashes, kind="stable")
        return hashes[order], order
