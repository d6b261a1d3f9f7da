"""Stored features as datasets of PyTorch: `FeatureDataset` and `FeatureIterableDataset`.

Both read what `layertap.open` opens, a file or a folder of shards, and can be given to `torch.utils.data.DataLoader`
with any number of workers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from layertap.errors import BackendError, OptionError

try:
    import torch
    from torch.utils.data import Dataset, IterableDataset, default_collate, get_worker_info
except ImportError:
    raise BackendError("datasets of PyTorch need torch: pip install 'layertap[torch]'") from None

from layertap.data.store import FeatureFile
from layertap.data.store import open as open_features
from layertap.data.writers.base import ID
from layertap.records import Feature

Item: TypeAlias = dict[str, Any]
"""One record: name -> tensor of a feature, or value of a column."""


class FeatureDataset(Dataset[Item]):
    """Map-style dataset of stored features: `dataset[i]` is record i.

    An item is a dict: a tensor for each feature ([H] or [L, H] of a dense one, [T, H] or [T, L, H] of one with a vector
    for each token, word or span), and the value of each column that was asked for. Every worker of a `DataLoader` opens
    the file by itself. Parquet is read a row group at a time, so that a shuffling sampler reads much more than it
    returns; batches that are sorted by number, or `FeatureIterableDataset`, read each row group once.

    Args:
        path: a file, or a folder of shards.
        features: names of the features to return; None: all.
        columns: names of carried columns to return as Python values; `id` stands for the record's id.
        partial: open an unfinished folder as far as it is there.

    Raises:
        InputError: the features cannot be opened.
        OptionError: a feature or column that is not there.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        features: Sequence[str] | None = None,
        *,
        columns: Sequence[str] = (),
        partial: bool = False,
    ) -> None:
        self._stored = _Stored(path, features, columns, partial)

    def __len__(self) -> int:
        return self._stored.length

    def __getitem__(self, index: int) -> Item:
        (item,) = self._stored.items([index])
        return item

    def __getitems__(self, indices: Sequence[int]) -> list[Item]:
        """Return several records; a `DataLoader` calls this for a batch."""
        return self._stored.items(indices)


class FeatureIterableDataset(IterableDataset[Item]):
    """Iterable dataset of stored features, in order, divided among ranks and among the workers of a `DataLoader`.

    Items are those of `FeatureDataset`. Each rank has consecutive records, and each of its workers consecutive ones of
    these, so that every record is returned once in all, and each part of the file is read by one process.

    Args:
        path, features, columns, partial: as for `FeatureDataset`.
        rank, world_size: number of this process, from 0, and of all processes that share the records; None: those of
            `torch.distributed` if it is initialised when the dataset is made, else one process.
        even: give each rank the same number of records, so that distributed training does not wait for a longer one;
            the last `len(file) % world_size` records are left out.

    Raises:
        InputError: the features cannot be opened.
        OptionError: a feature or column that is not there; a rank that does not fit `world_size`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        features: Sequence[str] | None = None,
        *,
        columns: Sequence[str] = (),
        rank: int | None = None,
        world_size: int | None = None,
        even: bool = False,
        partial: bool = False,
    ) -> None:
        if (rank is None) != (world_size is None):
            raise OptionError("rank and world_size belong together; give both, or neither")
        if rank is None or world_size is None:
            is_distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
            rank = torch.distributed.get_rank() if is_distributed else 0
            world_size = torch.distributed.get_world_size() if is_distributed else 1
        if not 0 <= rank < world_size:
            raise OptionError(f"rank {rank} of world_size {world_size}: expected 0 to world_size - 1")
        self._stored = _Stored(path, features, columns, partial)
        length = self._stored.length
        self.records = (
            range(rank * (length // world_size), (rank + 1) * (length // world_size))
            if even
            else _part(range(length), rank, world_size)
        )

    def __iter__(self) -> Iterator[Item]:
        worker = get_worker_info()
        records = self.records if worker is None else _part(self.records, worker.id, worker.num_workers)
        yield from self._stored.blocks(records)


def collate(items: Sequence[Item]) -> dict[str, Any]:
    """Put items together as a batch: tensors of one shape are stacked, others and values of columns stay lists.

    For the argument `collate_fn` of a `DataLoader`, where features have a vector for each token, word or span.
    """
    return {name: _collated([item[name] for item in items]) for name in items[0]}


def _collated(values: list[Any]) -> Any:
    is_dense = all(isinstance(value, torch.Tensor) and value.shape == values[0].shape for value in values)
    return default_collate(values) if is_dense else values


class _Stored:
    """Features that each process opens by itself, as records."""

    def __init__(
        self, path: str | os.PathLike[str], features: Sequence[str] | None, columns: Sequence[str], partial: bool
    ) -> None:
        if isinstance(features, str) or isinstance(columns, str):
            raise OptionError("features and columns are lists of names, not a string")
        self._partial = partial
        self._process = os.getpid()
        self._open = file = open_features(path, partial=partial)
        self._path = file.path
        self.length = len(file)
        self._features = list(file.features) if features is None else list(features)
        self._columns = list(columns)
        known = [*file.columns, *([ID] if file.ids is not None else [])]
        for what, names, there in (("feature", self._features, [*file.features]), ("column", self._columns, known)):
            for name in names:
                if name not in there:
                    raise OptionError(f"{self._path}: there is no {what} {name!r}; there are {', '.join(there)}")

    def items(self, indices: Sequence[int]) -> list[Item]:
        """Return records; they are read in ascending order, since neighbours share what is read."""
        places = dict.fromkeys(sorted(indices, key=lambda i: i % self.length if self.length else i))
        read = {i: self._item(i) for i in places}
        return [read[i] for i in indices]

    def blocks(self, records: range) -> Iterator[Item]:
        """Yield consecutive records, which are read block by block."""
        file = self._file
        size = min((file.block_records(name) for name in self._features), default=1 << 16)
        for begin in range(records.start, records.stop, size):
            end = min(begin + size, records.stop)
            features = {name: file[name][begin:end] for name in self._features}
            columns = {name: self._values(name)[begin:end] for name in self._columns}
            for i in range(end - begin):
                yield _tensors(features, i) | {name: values[i] for name, values in columns.items()}

    def _item(self, index: int) -> Item:
        features = {name: [self._file[name][index]] for name in self._features}
        return _tensors(features, 0) | {name: self._values(name)[index] for name in self._columns}

    def _values(self, name: str) -> Sequence[Any]:
        file = self._file
        if name in file.columns:
            return file.columns[name]
        assert file.ids is not None
        return file.ids

    @property
    def _file(self) -> FeatureFile:
        """The open file; a forked process opens its own, as Arrow's threads are not forked."""
        if self._process != os.getpid():
            self._open, self._process = open_features(self._path, partial=self._partial), os.getpid()
        return self._open


def _tensors(features: Mapping[str, Feature | list[Any]], index: int) -> Item:
    return {name: _tensor(feature[index]) for name, feature in features.items()}


def _tensor(array: Any) -> Any:
    """Convert a record's array to a tensor with its own memory; strings stay a list."""
    values = np.array(array)
    return values.tolist() if values.dtype.kind in "OU" else torch.from_numpy(values)


def _part(records: range, number: int, count: int) -> range:
    """Return part `number` of `count` nearly equal parts of consecutive records."""
    size = len(records)
    return range(records.start + size * number // count, records.start + size * (number + 1) // count)
