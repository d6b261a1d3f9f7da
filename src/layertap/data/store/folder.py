"""A folder of features as one storage: the shards, of which a few are open at a time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from layertap.data.folder import FolderContents, FolderRoot, LocalFiles, ShardRecord, folder_files, read_contents
from layertap.data.folder.layout import FILE_COLUMN
from layertap.data.folder.remote import RemoteFiles
from layertap.data.remote import RemotePlace
from layertap.data.slices import join
from layertap.data.store.parquet import ParquetStorage, RemoteStored
from layertap.data.store.storage import BLOCK_BYTES, Storage
from layertap.data.writers.base import ID
from layertap.errors import InputError, printable
from layertap.locks import ForkSafeLock
from layertap.records import Feature
from layertap.stored_file import StoredFile

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")

OPEN_SHARDS = 4
"""Number of shards that stay open; each keeps up to 16 MiB of what was read last."""


class FolderStorage(Storage):
    """Storage of a folder of features; shards are opened when their records are asked for.

    A shard that is opened must have the size, the number of records and the features that the folder states.

    Args:
        path: the folder.
        contents: its plan, and the records of the shards.
        open_shard: function that opens the shard of a record.
    """

    def __init__(
        self, path: Path | str, contents: FolderContents, open_shard: Callable[[ShardRecord], ParquetStorage]
    ) -> None:
        plan = contents.plan
        self.path = path
        self.is_complete = contents.is_complete
        self.features = {schema.name: schema for schema in plan.schemas}
        self.provenance = plan.provenance
        names = {column.name: column.type for column in plan.columns}
        self.has_ids = names.pop(ID, None) is not None
        self.columns = {FILE_COLUMN: "string", **names}
        self._records = contents.records
        self._ends = np.array([0, *accumulate(record.rows for record in self._records)], dtype=np.int64)
        self.num_records = int(self._ends[-1])
        size = sum(record.size for record in self._records)
        self._block_records = max(1, self.num_records * BLOCK_BYTES // max(1, size))
        self._open_shard = open_shard
        self._shards: OrderedDict[int, ParquetStorage] = OrderedDict()
        self._lock = ForkSafeLock()
        self._is_closed = False

    def _read(self, name: str, begin: int, end: int) -> Feature:
        pieces = self._pieces(begin, end, lambda shard, first, last: shard.read(name, first, last))
        return pieces[0] if len(pieces) == 1 else join(self.features[name], pieces)

    def _read_rows(self, begin: int, end: int) -> npt.NDArray[np.int64]:
        pieces = self._pieces(begin, end, lambda shard, first, last: shard.rows(first, last))
        return np.concatenate([np.zeros(0, np.int64), *pieces])

    def _read_ids(self, begin: int, end: int) -> list[Any]:
        pieces = self._pieces(begin, end, lambda shard, first, last: shard.ids(first, last))
        return [value for piece in pieces for value in piece]

    def _read_values(self, name: str, begin: int, end: int) -> list[Any]:
        pieces = self._pieces(begin, end, lambda shard, first, last: shard.values(name, first, last))
        return [value for piece in pieces for value in piece]

    def block_records(self, name: str) -> int:  # noqa: ARG002 - row groups are of all columns
        """Return about how many records have 8 MiB."""
        return self._block_records

    def arrow_schema(self) -> pa.Schema:
        """Return the Arrow schema of the shards."""
        if not self._records:
            raise InputError(f"{printable(self.path)}: no shard is finished yet, so that there is no table to read")
        return self._shard(0).arrow_schema()

    def arrow_batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the records as Arrow, a row group at a time, in order."""
        for number, record in enumerate(self._records):
            if record.rows:
                yield from self._shard(number).arrow_batches()

    def close(self) -> None:
        """Close the shards; later reads are refused."""
        with self._lock:
            self._is_closed = True
            shards, self._shards = self._shards, OrderedDict()
        for shard in shards.values():
            shard.close()

    def _pieces(self, begin: int, end: int, read: Callable[[ParquetStorage, int, int], T]) -> list[T]:
        """Read records `begin:end`, shard by shard."""
        if begin >= end:
            self._check_open()
            return []
        first = int(np.searchsorted(self._ends, begin, side="right")) - 1
        last = int(np.searchsorted(self._ends, end, side="left"))
        return [
            read(self._shard(number), max(begin, low) - low, min(end, high) - low)
            for number, (low, high) in enumerate(self._bounds(first, last), start=first)
            if low < high
        ]

    def _bounds(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        return pairwise(self._ends[first : last + 1].tolist())

    def _shard(self, number: int) -> ParquetStorage:
        """Return the storage of a shard, opened if it is not; the last few stay open.

        A shard that leaves the last few is closed when the thread that still reads it lets go of it.
        """
        with self._lock:
            self._check_open()
            shard = self._shards.get(number)
            if shard is None:
                shard = self._shards[number] = self._opened(self._records[number])
            self._shards.move_to_end(number)
            while len(self._shards) > OPEN_SHARDS:
                self._shards.popitem(last=False)
            return shard

    def _opened(self, record: ShardRecord) -> ParquetStorage:
        shard = self._open_shard(record)
        features = {name: (schema.dtype, schema.shape) for name, schema in shard.features.items()}
        stated = {name: (schema.dtype, schema.shape) for name, schema in self.features.items()}
        if record.rows == 0:  # attentions of no records state no heads
            features = stated if features.keys() == stated.keys() else features
        if shard.num_records != record.rows or features != stated or shard.has_ids != self.has_ids:
            shard.close()
            raise damaged(f"{self.path}/{record.place}", "it does not hold the records and features that are stated")
        return shard

    def _check_open(self) -> None:
        if self._is_closed:
            raise InputError(f"{printable(self.path)}: this folder was closed; open it again")


def open_folder(root: FolderRoot, *, partial_: bool) -> FolderStorage:
    """Open the storage of a folder of features.

    Args:
        root: the folder.
        partial_: whether an unfinished folder is opened as far as it is there.

    Raises:
        InputError: no folder of features, an unfinished one, or one whose plan or records are damaged.
    """
    path = root.url if isinstance(root, RemotePlace) else root
    # Shards are opened when they are read, perhaps after the current folder has become another one.
    files = folder_files(root if isinstance(root, RemotePlace) else root.absolute())
    return FolderStorage(path, read_contents(files, partial=partial_), partial(open_shard, files))


def open_shard(files: LocalFiles | RemoteFiles, record: ShardRecord) -> ParquetStorage:
    """Open the file of a shard, which must have the size that its record states.

    Raises:
        InputError: the file is missing, has another size, or is damaged.
    """
    place: Path | str
    file: StoredFile | RemoteStored
    if isinstance(files, RemoteFiles):
        place = files.place(record.place).url
        try:
            opened = files.place(record.place).open()
        except InputError as error:
            raise damaged(place, str(error).removeprefix(f"{place}: ")) from None
        file, size = RemoteStored(opened), opened.entry.size
    else:
        place = files.path(record.place)
        try:
            stored = StoredFile(place, error=InputError)
        except InputError as error:
            raise damaged(place, str(error).removeprefix(f"{place}: ")) from None
        file, size = stored, stored.size
    try:
        if size != record.size:
            raise damaged(place, f"it has {size:,} bytes, and the folder states {record.size:,}")
        return ParquetStorage(place, file)
    except BaseException:
        file.close()
        raise


def damaged(place: Path | str, reason: str) -> InputError:
    """Build the error for a shard that is missing or is not as the folder states."""
    return InputError(
        f"{printable(place)}: {reason}; run the extraction again to make this shard again, or open the folder anew if "
        "it has changed since it was opened"
    )
