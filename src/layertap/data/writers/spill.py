"""Arrays that grow in temporary files, for formats that store each array whole, after its length."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from layertap.data.json_text import plain_text
from layertap.data.writers.base import ID, ROW, WriterOptions, map_shapes, refuse_clashes, values_of
from layertap.errors import InputError, OptionError
from layertap.files import StagedOutput
from layertap.records import Array, AttentionMaps, FeatureBatch, Ragged, Record

if TYPE_CHECKING:
    import pyarrow as pa

OFFSETS = ".offsets"
SHAPES = ".shapes"

COPY_BYTES = 1 << 20


class SpillFile:
    """Array [n, *row_shape] in a temporary file, to which rows are appended.

    Attributes:
        name: name of the array in the output.
        dtype: dtype of the array.
        file: the temporary file.
    """

    def __init__(self, name: str, file: BinaryIO, *, dtype: Any, row_shape: tuple[int, ...] = ()) -> None:
        self.name = name
        self.dtype = np.dtype(dtype)
        self.file = file
        self._row_shape = row_shape
        self._count = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Current shape of the array."""
        return (self._count, *self._row_shape)

    @property
    def nbytes(self) -> int:
        """Current size of the array in bytes."""
        return math.prod(self.shape, start=self.dtype.itemsize)

    def append(self, values: Array) -> None:
        """Append rows, an array [m, *row_shape] of the same dtype."""
        self.file.write(np.ascontiguousarray(values, dtype=self.dtype).reshape(-1).view(np.uint8).data)
        self._count += len(values)

    def copy_to(self, target: BinaryIO) -> None:
        """Copy the bytes of the array into another file."""
        self.file.seek(0)
        shutil.copyfileobj(self.file, target, COPY_BYTES)


class SpillFiles:
    """All arrays of an output: the row numbers, the ids, and the features.

    A ragged feature is stored as its concatenated values, token by token, and `<name>.offsets`, int64 [N+1].
    Attentions are the concatenated values of all maps, `<name>.offsets`, int64 [N+1], and `<name>.shapes`,
    int64 [N, k]. Ids are int64 (uint64 if those of the input are); ids that are strings are stored as their
    concatenated UTF-8 bytes, uint8, and `id.offsets`, int64. Ids of mixed types are stored as JSON text.

    Attributes:
        arrays: the arrays by name.
    """

    def __init__(self, output: StagedOutput, options: WriterOptions) -> None:
        self._options = options
        self._output = output
        self.arrays: dict[str, SpillFile] = {}
        self._add(ROW, np.int64)
        if ID in options.column_types:
            dtype = id_dtype(options.column_types[ID])
            self._add(ID, np.uint8 if dtype is None else dtype)
            if dtype is None:
                self._add_offsets(ID)
        for schema in options.schemas:
            self._add(schema.name, schema.dtype, () if schema.maps else schema.shape)
            if schema.ragged or schema.maps:
                self._add_offsets(schema.name)
            if schema.maps:
                self._add(schema.name + SHAPES, np.int64, (len(schema.shape) + 2,))

    def write(self, batch: FeatureBatch) -> None:
        """Append a batch to all arrays."""
        self.arrays[ROW].append(np.array([record.row for record in batch.records], dtype=np.int64))
        if ID in self.arrays:
            self._write_ids(batch.records)
        for schema in self._options.schemas:
            feature = batch.features[schema.name]
            if isinstance(feature, Ragged | AttentionMaps):
                self._append_offsets(schema.name, feature.offsets[1:])
            if isinstance(feature, AttentionMaps):
                self.arrays[schema.name + SHAPES].append(map_shapes(feature))
            self.arrays[schema.name].append(values_of(feature))

    def drop(self, name: str) -> None:
        """Delete the temporary file of an array that has been copied."""
        self._output.remove(self.arrays.pop(name).file)

    def _add(self, name: str, dtype: Any, row_shape: tuple[int, ...] = ()) -> None:
        self.arrays[name] = SpillFile(name, self._output.create(), dtype=dtype, row_shape=row_shape)

    def _add_offsets(self, name: str) -> None:
        self._add(name + OFFSETS, np.int64)
        self.arrays[name + OFFSETS].append(np.zeros(1, dtype=np.int64))

    def _append_offsets(self, name: str, ends: Array) -> None:
        self.arrays[name + OFFSETS].append(ends + self.arrays[name].shape[0])

    def _write_ids(self, records: Iterable[Record]) -> None:
        ids = [self._stored_id(record) for record in records]
        if ID + OFFSETS not in self.arrays:
            self.arrays[ID].append(np.array(ids, dtype=self.arrays[ID].dtype))
            return
        self._append_offsets(ID, np.cumsum([len(text) for text in ids], dtype=np.int64))
        self.arrays[ID].append(np.frombuffer(b"".join(ids), dtype=np.uint8))

    def _stored_id(self, record: Record) -> Any:
        """Return an id as its array stores it: an integer within the range of the dtype, or bytes."""
        value, dtype = checked_id(record, self._options.format), self.arrays[ID].dtype
        if ID + OFFSETS not in self.arrays:
            limits = np.iinfo(dtype)
            if isinstance(value, int) and limits.min <= value <= limits.max:
                return value
        else:
            return plain_text(value).encode()
        raise InputError(
            f"row {record.row + 1}: the id {value!r} has another type than those before it; "
            "make all ids strings or all of them integers, or write jsonl"
        )


def check_spilled(options: WriterOptions, *reserved: str) -> None:
    """Refuse what a file of arrays cannot hold: carried columns, strings, and names that clash."""
    refuse_columns(options)
    refuse_strings(options)
    offsets = [schema.name + OFFSETS for schema in options.schemas if schema.ragged or schema.maps]
    shapes = [schema.name + SHAPES for schema in options.schemas if schema.maps]
    refuse_clashes(options, [ROW, ID, ID + OFFSETS, *offsets, *shapes, *reserved])


def refuse_strings(options: WriterOptions) -> None:
    """Refuse features that are strings, for formats that hold numbers only."""
    strings = [schema.name for schema in options.schemas if schema.dtype == "str"]
    if strings:
        are, them = ("is", "it") if len(strings) == 1 else ("are", "them")
        raise OptionError(
            f"{options.format} holds numbers, and {', '.join(map(repr, strings))} {are} text; leave {them} out, or "
            "write parquet or jsonl"
        )


def refuse_columns(options: WriterOptions) -> None:
    """Refuse carried columns, for formats that hold none."""
    columns = [name for name, type_ in options.column_types.items() if name != ID or not _can_be_id(type_)]
    if columns:
        raise OptionError(
            f"{options.format} holds no other columns, and {', '.join(map(repr, columns))} would be carried; "
            "carry none, or write parquet or jsonl"
        )


def id_dtype(type_: pa.DataType | None) -> Any:
    """Return the dtype for ids of an Arrow type, or None for ids that are stored as strings."""
    import pyarrow as pa

    if type_ is None or not pa.types.is_integer(type_):
        return None
    return np.uint64 if pa.types.is_uint64(type_) else np.int64


def checked_id(record: Record, format_name: str) -> str | int:
    """Return the id of a record; a record without an id is refused."""
    if record.id is None:
        raise InputError(
            f"row {record.row + 1} has no id, and {format_name} has no null; write parquet or jsonl, "
            "or name another id column"
        )
    return record.id


def _can_be_id(type_: pa.DataType | None) -> bool:
    import pyarrow as pa

    if type_ is not None and pa.types.is_dictionary(type_):
        type_ = type_.value_type
    return type_ is None or pa.types.is_integer(type_) or "string" in str(type_)
