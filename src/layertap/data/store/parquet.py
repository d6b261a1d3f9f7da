"""Parquet: row groups, the last few kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from layertap.data.remote import RemoteFile
from layertap.data.slices import cut, join
from layertap.data.store.storage import (
    FOREIGN_ERRORS,
    Storage,
    feature_dtype,
    maps_of,
    parse_provenance,
    unreadable,
)
from layertap.data.writers.base import ID, ROW
from layertap.data.writers.parquet import METADATA_KEY, SHAPE
from layertap.errors import InputError
from layertap.locks import ForkSafeLock
from layertap.records import Feature, FeatureSchema, Ragged
from layertap.stored_file import StoredFile

if TYPE_CHECKING:
    import pyarrow as pa

CACHE_BYTES = 16 << 20
"""Bytes of column chunks that are kept; the last one is kept whatever its size."""


class RemoteStored:
    """A remote file under a storage. An object on a store is replaced as a whole and never changed in place.

    Attributes:
        file: the open file.
    """

    def __init__(self, file: RemoteFile) -> None:
        self.file = file

    def check(self) -> None:
        """Refuse to be read once it is closed.

        Raises:
            InputError: it is closed.
        """
        if self.file.closed:
            raise InputError(f"{self.file.place.url}: this file was closed; open it again")

    def close(self) -> None:
        """Close the remote file; a second call does nothing."""
        self.file.close()


class ParquetStorage(Storage):
    """Storage of a Parquet file; reads a whole row group of each column that is asked for.

    Args:
        path: path or URL of the file, for messages.
        file: the open file.
    """

    def __init__(self, path: Path | str, file: StoredFile | RemoteStored) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.path = path
        self._stored = file
        self._lock = ForkSafeLock()  # Arrow's reader is not made for several threads
        try:
            if isinstance(file, RemoteStored):
                # Pre-buffering asks for the columns of a row group in few requests.
                self._file = pq.ParquetFile(file.file, pre_buffer=True)
            else:
                # Arrow opens the path a second time: its own reader needs half the memory of one over a Python stream.
                self._file = pq.ParquetFile(path, pre_buffer=False)
        except (pa.ArrowException, *FOREIGN_ERRORS) as error:
            raise unreadable(path, f"it is truncated or damaged ({error})") from None
        if isinstance(file, StoredFile):
            again = StoredFile(file.path, error=InputError)
            if again.state.difference(file.state) is not None:
                raise unreadable(path, "it was replaced while it was opened")
            again.close()
        self._schema = self._file.schema_arrow
        provenance = (self._schema.metadata or {}).get(METADATA_KEY)
        if provenance is None or ROW not in self._schema.names:
            raise unreadable(path, "a Parquet file of someone else: its metadata has no 'layertap'")
        self.provenance = parse_provenance(path, provenance)
        metadata = self._file.metadata
        self.num_records = metadata.num_rows
        counts = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        self._ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])
        self._leaves = _leaves(self._schema, [self._file.schema.column(i).path for i in range(metadata.num_columns)])
        self._cache: OrderedDict[tuple[int, str], pa.Array] = OrderedDict()
        self.has_ids = ID in self._schema.names
        self.columns = {
            field.name: str(field.type) for field in self._schema if field.nullable and field.name not in (ROW, ID)
        }
        self.features = {schema.name: schema for schema in self._feature_schemas()}

    def _read(self, name: str, begin: int, end: int) -> Feature:
        schema = self.features[name]
        pieces = [cut(self._feature(schema, group), first, last) for group, first, last in self._groups(begin, end)]
        return join(schema, pieces)

    def _read_rows(self, begin: int, end: int) -> npt.NDArray[np.int64]:
        parts = [self._column(group, ROW).to_numpy()[b:e] for group, b, e in self._groups(begin, end)]
        return np.concatenate([np.zeros(0, np.int64), *parts])

    def _read_ids(self, begin: int, end: int) -> list[Any]:
        return self._read_values(ID, begin, end)

    def _read_values(self, name: str, begin: int, end: int) -> list[Any]:
        return [
            value
            for group, first, last in self._groups(begin, end)
            for value in self._column(group, name)[first:last].to_pylist()
        ]

    def block_records(self, name: str) -> int:  # noqa: ARG002 - row groups are of all columns
        """Return about how many records a row group has."""
        return max(1, self.num_records // max(1, len(self._ends) - 1))

    def arrow_schema(self) -> pa.Schema:
        """Return the Arrow schema of the file."""
        return self._schema

    def arrow_batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the row groups as Arrow."""
        for group in range(len(self._ends) - 1):
            with self._lock:
                self._stored.check()
                table = self._read_group(group, None)
            yield from table.to_batches()

    def carried_batches(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield carried columns as Arrow, one batch for each row group; without names, batches of no columns."""
        import pyarrow as pa

        leaves = [leaf for name in names for leaf in self._leaves[name]]
        for group, (begin, end) in enumerate(pairwise(self._ends.tolist())):
            if not names:
                yield pa.RecordBatch.from_arrays([pa.nulls(end - begin)], names=[""])
                continue
            with self._lock:
                self._stored.check()
                table = self._read_group(group, leaves).select(list(names))
            arrays = [column.combine_chunks() for column in table.columns]
            yield pa.RecordBatch.from_arrays(arrays, schema=table.schema)

    def close(self) -> None:
        """Close the file and drop what is kept of it."""
        with self._lock:
            self._cache.clear()
            self._file.close()
            self._stored.close()

    def _groups(self, begin: int, end: int) -> list[tuple[int, int, int]]:
        """Return the row groups that hold records `begin:end`, with the range of records in each."""
        if begin >= end:
            return []
        first = int(np.searchsorted(self._ends, begin, side="right")) - 1
        last = int(np.searchsorted(self._ends, end, side="left"))
        return [
            (group, max(begin, low) - low, min(end, high) - low)
            for group, (low, high) in enumerate(pairwise(self._ends[first : last + 1].tolist()), start=first)
        ]

    def _feature(self, schema: FeatureSchema, group: int) -> Feature:
        """Return a feature of a row group, views of its columns."""
        column = self._column(group, schema.name)
        if schema.maps:
            sizes = self._column(group, schema.name + SHAPE).values.to_numpy().astype(np.int64)
            shapes = sizes.reshape(-1, len(schema.shape) + 2)
            return maps_of(column.values.to_numpy(zero_copy_only=False), shapes, schema.shape)
        values = column.values if schema.ragged else column
        count = len(values)
        for _ in schema.shape:
            values = values.flatten()
        array = values.to_numpy(zero_copy_only=False).reshape(count, *schema.shape)
        return Ragged(array, column.offsets.to_numpy().astype(np.int64)) if schema.ragged else array

    def _column(self, group: int, name: str) -> pa.Array:
        """Return a column of a row group; the last few are kept."""
        key = (group, name)
        with self._lock:
            self._stored.check()
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
            column = self._cache[key] = self._read_column(group, name)
            while len(self._cache) > 1 and sum(kept.nbytes for kept in self._cache.values()) > CACHE_BYTES:
                self._cache.popitem(last=False)
            return column

    def _read_column(self, group: int, name: str) -> pa.Array:
        # The whole path: a name alone would bring every column whose name goes on after it with a dot.
        table = self._read_group(group, self._leaves[name])
        column = table.column(table.schema.get_field_index(name)).combine_chunks()
        if len(column) != self._ends[group + 1] - self._ends[group]:
            raise unreadable(self.path, f"it is damaged in row group {group}: {name!r} has {len(column)} records there")
        return column

    def _read_group(self, group: int, columns: list[str] | None) -> pa.Table:
        """Read a row group, all columns or those with these paths; the caller holds the lock."""
        import pyarrow as pa

        try:
            table = self._file.read_row_group(group, columns=columns)
        except (pa.ArrowException, *FOREIGN_ERRORS) as error:
            self._stored.check()
            raise unreadable(self.path, f"it is damaged in row group {group} ({error})") from None
        self._stored.check()
        return table

    def _feature_schemas(self) -> list[FeatureSchema]:
        """List the schemas of the features: columns without nulls, other than `row`."""
        names = {field.name for field in self._schema if not field.nullable and field.name != ROW}
        shapes = {name for name in names if name.endswith(SHAPE) and name.removesuffix(SHAPE) in names}
        return [self._feature_schema(field) for field in self._schema if field.name in names - shapes]

    def _feature_schema(self, field: pa.Field) -> FeatureSchema:
        import pyarrow as pa

        kind = field.type
        is_maps = field.name + SHAPE in self._schema.names
        is_ragged = pa.types.is_list(kind)
        if is_ragged:
            kind = kind.value_type
        shape = []
        while pa.types.is_fixed_size_list(kind):
            shape.append(kind.list_size)
            kind = kind.value_type
        dtype = feature_dtype(self.path, field.name, DTYPES.get(str(kind), str(kind)))
        return FeatureSchema(
            name=field.name,
            dtype=dtype,
            shape=self._leading(field.name) if is_maps else tuple(shape),
            ragged=is_ragged and not is_maps,
            maps=is_maps,
        )

    def _leading(self, name: str) -> tuple[int, ...]:
        """Return the sizes before the token axes; empty if there are no records."""
        if not self.num_records:
            return ()
        return tuple(self._column(0, name + SHAPE)[0].as_py()[:-2])


DTYPES = {"float": "float32", "halffloat": "float16", "string": "str"}
"""Arrow's names that are not numpy's."""


def _leaves(schema: pa.Schema, paths: list[str]) -> dict[str, list[str]]:
    """Return column -> paths of the file's columns that it consists of."""
    leaves = {}
    begin = 0
    for field in schema:
        end = begin + _count(field.type)
        leaves[field.name] = paths[begin:end]
        begin = end
    return leaves


def _count(type_: pa.DataType) -> int:
    import pyarrow as pa

    if isinstance(type_, pa.BaseExtensionType):
        return _count(type_.storage_type)
    if pa.types.is_dictionary(type_):
        return _count(type_.value_type)
    return sum(_count(type_.field(i).type) for i in range(type_.num_fields)) or 1
