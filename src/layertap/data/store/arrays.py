"""Reads feature files that hold arrays at known places: safetensors, npz and npy."""

from __future__ import annotations

import io
import json
import math
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from layertap.data.store.axes import with_axes
from layertap.data.store.storage import BLOCK_BYTES, Storage, feature_dtype, maps_of, parse_provenance, unreadable
from layertap.data.writers.base import ID, ROW
from layertap.data.writers.companions import offsets_place, provenance_place
from layertap.data.writers.npz import PROVENANCE
from layertap.data.writers.parquet import METADATA_KEY as ARROW_METADATA_KEY
from layertap.data.writers.parquet import feature_columns, feature_fields
from layertap.data.writers.safetensors import DTYPES, METADATA_KEY
from layertap.data.writers.spill import OFFSETS, SHAPES
from layertap.errors import InputError, UsageError
from layertap.features.parse import parse
from layertap.records import Array, Feature, FeatureSchema, Ragged
from layertap.safetensors_header import HeaderError, read_header
from layertap.stored_file import StoredBytes, StoredFile, StoredFileStream

if TYPE_CHECKING:
    import pyarrow as pa

LOCAL_HEADER = struct.Struct("<26xHH")
"""Fields of a zip member's local header: lengths of its name and of its extra field."""

MOST_COMPRESSED = 1 << 30
"""Bytes of a compressed npz member at most: such a member is decompressed whole."""

LONGEST_ARRAY_HEADER = 4096
"""Bytes of an npy header at most; numpy writes 128."""

ARRAY_HEADER = re.compile(
    r"\{'descr': '([<|][biufUS][0-9]{1,9})', 'fortran_order': False, "
    r"'shape': \(((?:[0-9]{1,19}, ?)*(?:[0-9]{1,19})?)\), \} *\n"
)


class ArrayBytes(Protocol):
    """Bytes of an array, at a place of a file or still compressed."""

    def part(self, begin: int, end: int) -> ArrayBytes:
        """Return bytes `begin:end` of these, still unread."""

    def read(self) -> memoryview:
        """Copy the bytes into memory."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StoredArray:
    """An array in a file; its rows are read when they are asked for.

    Attributes:
        dtype: numpy dtype, little-endian.
        shape: sizes, outermost first.
        data: the bytes, row-major.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    data: ArrayBytes

    @property
    def nbytes(self) -> int:
        """Number of bytes in the array."""
        return self.dtype.itemsize * math.prod(self.shape)

    def rows(self, begin: int, end: int) -> Array:
        """Copy rows `begin:end` of the first axis; ValueError where the array has no such rows."""
        if not 0 <= begin <= end <= self.shape[0]:
            raise ValueError(f"rows {begin} to {end} of an array of {self.shape[0]}")
        width = self.dtype.itemsize * math.prod(self.shape[1:])
        data = self.data.part(begin * width, end * width).read()
        return np.frombuffer(data, self.dtype).reshape(end - begin, *self.shape[1:])

    def scalar(self) -> Any:
        """Return the value of an array without axes."""
        return np.frombuffer(self.data.read(), self.dtype)[0]


class CompressedBytes:
    """Bytes of a compressed npz member, which is decompressed whole at the first read and kept.

    Args:
        load: returns the member's array bytes.
    """

    def __init__(self, load: Callable[[], bytearray]) -> None:
        self._load = load
        self._data: memoryview | None = None

    def part(self, begin: int, end: int) -> CompressedBytes:
        """Return bytes `begin:end` of these."""
        return CompressedBytes(lambda: bytearray(self.read()[begin:end]))

    def read(self) -> memoryview:
        """Return the decompressed bytes of the array."""
        if self._data is None:
            self._data = memoryview(self._load())
        return self._data


class ArrayStorage(Storage):
    """Features stored as arrays, laid out as `writers.spill.SpillFiles` writes them.

    Args:
        path: the file.
        arrays: name -> array.
        provenance: what the writer recorded.
        files: the open files behind the arrays.
    """

    def __init__(
        self,
        path: Path,
        arrays: Mapping[str, StoredArray],
        provenance: Mapping[str, Any],
        *,
        files: tuple[StoredFile, ...],
    ) -> None:
        self.path = path
        self.provenance = provenance
        self._arrays = dict(arrays)
        self._files = files
        self.has_ids = ID in arrays
        self.num_records = self._count()
        self._check_rows_and_ids()
        self.features = {
            name: self._schema(name) for name in arrays if name not in (ROW, ID) and not self._is_companion(name)
        }
        for name in self.features:
            self._check(name)

    def _read(self, name: str, begin: int, end: int) -> Feature:
        schema, values = self.features[name], self._arrays[name]
        if not schema.ragged and not schema.maps:
            return values.rows(begin, end)
        offsets = self._arrays[name + OFFSETS].rows(begin, end + 1).astype(np.int64)
        part = values.rows(int(offsets[0]), int(offsets[-1]))
        if schema.ragged:
            return Ragged(part, offsets - offsets[0])
        return maps_of(part, self._arrays[name + SHAPES].rows(begin, end).astype(np.int64), schema.shape)

    def _read_rows(self, begin: int, end: int) -> npt.NDArray[np.int64]:
        # Without an array of row numbers no row was left out.
        if ROW not in self._arrays:
            return np.arange(begin, end, dtype=np.int64)
        return self._arrays[ROW].rows(begin, end).astype(np.int64)

    def _read_ids(self, begin: int, end: int) -> list[Any]:
        if ID + OFFSETS not in self._arrays:
            ids: list[Any] = self._arrays[ID].rows(begin, end).tolist()
            return ids
        offsets = self._arrays[ID + OFFSETS].rows(begin, end + 1).tolist()
        data = self._arrays[ID].rows(offsets[0], offsets[-1]).tobytes()
        return [data[b - offsets[0] : e - offsets[0]].decode() for b, e in pairwise(offsets)]

    def block_records(self, name: str) -> int:
        """Return how many records have about 8 MiB."""
        return max(1, self.num_records * BLOCK_BYTES // max(1, self._arrays[name].nbytes))

    def arrow_schema(self) -> pa.Schema:
        """Return the Arrow schema that a Parquet file of these features has."""
        import pyarrow as pa

        fields = [pa.field(ROW, pa.int64(), nullable=False)]
        if self.has_ids:
            kind = self._arrays[ID].dtype
            is_text = ID + OFFSETS in self._arrays or kind.kind == "U"
            fields.append(pa.field(ID, pa.string() if is_text else pa.from_numpy_dtype(kind)))
        for schema in self.features.values():
            fields += feature_fields(with_axes(schema, self.provenance))
        return pa.schema(fields, metadata={ARROW_METADATA_KEY: json.dumps(dict(self.provenance)).encode()})

    def arrow_batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the records as Arrow, about 8 MiB of the largest feature at a time."""
        import pyarrow as pa

        schema = self.arrow_schema()
        size = min((self.block_records(name) for name in self.features), default=self.num_records)
        for begin in range(0, self.num_records, max(1, size)):
            end = min(begin + size, self.num_records)
            columns = [pa.array(self.rows(begin, end))]
            if self.has_ids:
                columns.append(pa.array(self.ids(begin, end), schema.field(ID).type))
            for own in self.features.values():
                columns += feature_columns(own, self.read(own.name, begin, end), ())
            yield pa.RecordBatch.from_arrays(columns, schema=schema)

    def close(self) -> None:
        """Close the files behind the arrays."""
        for file in self._files:
            file.close()

    def _count(self) -> int:
        ends = next((array for name, array in self._arrays.items() if name.endswith(OFFSETS)), None)
        counted = self._arrays.get(ROW) or ends or next(iter(self._arrays.values()), None)
        if counted is None or not counted.shape or (counted is ends and not counted.shape[0]):
            raise unreadable(self.path, "it holds no records")
        return counted.shape[0] - (counted is ends)

    def _check_rows_and_ids(self) -> None:
        row, ids, ends = (self._arrays.get(name) for name in (ROW, ID, ID + OFFSETS))
        if row is not None and (row.shape != (self.num_records,) or row.dtype.kind not in "iu"):
            raise unreadable(self.path, f"'row' is not {self.num_records} whole numbers")
        if ids is None:
            return
        if ends is None:
            whole = ids.shape == (self.num_records,) and ids.dtype.kind in "iuU"
        else:
            whole = ids.dtype == np.uint8 and len(ids.shape) == 1 and self._ends_at(ends, ids.shape[0])
        if not whole:
            raise unreadable(self.path, f"'id' is not {self.num_records} ids")

    def _ends_at(self, offsets: StoredArray, count: int) -> bool:
        """Return whether offsets are N + 1 whole numbers of which the last is `count`."""
        if offsets.shape != (self.num_records + 1,) or offsets.dtype.kind not in "iu":
            return False
        return int(offsets.rows(self.num_records, self.num_records + 1)[0]) == count

    def _is_companion(self, name: str) -> bool:
        return any(name.endswith(end) and name.removesuffix(end) in self._arrays for end in (OFFSETS, SHAPES))

    def _schema(self, name: str) -> FeatureSchema:
        stored = self._arrays[name]
        if not stored.shape:
            raise unreadable(self.path, f"{name!r} is one number, not one a record")
        is_maps = name + SHAPES in self._arrays
        shape = self._leading(name) if is_maps else stored.shape[1:]
        dtype = feature_dtype(self.path, name, stored.dtype.name)
        ragged = name + OFFSETS in self._arrays and not is_maps
        return FeatureSchema(name=name, dtype=dtype, shape=shape, ragged=ragged, maps=is_maps)

    def _leading(self, name: str) -> tuple[int, ...]:
        """Return the sizes before the token axes of attentions; zeros if there are no records."""
        shapes = self._arrays[name + SHAPES]
        if len(shapes.shape) != 2 or shapes.shape[0] != self.num_records or shapes.dtype.kind not in "iu":
            raise unreadable(self.path, f"the shapes of {name!r} are no table of {self.num_records} rows")
        if not shapes.shape[0]:
            return (0,) * max(0, shapes.shape[1] - 2)
        first: list[int] = shapes.rows(0, 1)[0].tolist()
        if len(first) < 2 or min(first) < 0:
            raise unreadable(self.path, f"the shapes of {name!r} are damaged")
        return tuple(first[:-2])

    def _check(self, name: str) -> None:
        """Refuse arrays whose lengths do not go together."""
        schema, stored = self.features[name], self._arrays[name]
        if schema.ragged or schema.maps:
            ends = self._arrays.get(name + OFFSETS)
            whole = ends is not None and self._ends_at(ends, stored.shape[0])
            whole = whole and (not schema.maps or len(stored.shape) == 1)
        else:
            whole = stored.shape[0] == self.num_records
        if not whole:
            raise unreadable(self.path, f"{name!r} is not of {self.num_records} records")


def open_safetensors(path: Path, file: StoredFile) -> ArrayStorage:
    """Open the storage of a safetensors file."""
    try:
        entries, metadata = read_header(file)
    except HeaderError as error:
        raise unreadable(path, str(error)) from None
    text = metadata.get(METADATA_KEY)
    if not isinstance(text, str):
        raise unreadable(path, "a safetensors file of someone else: its metadata has no 'layertap'")
    numpy_names = {code: name for name, code in DTYPES.items()}
    arrays: dict[str, StoredArray] = {}
    for name, entry in entries.items():
        if entry.dtype not in numpy_names:
            raise unreadable(path, f"{name!r} holds {entry.dtype}, which is no feature's")
        arrays[name] = StoredArray(dtype=np.dtype(numpy_names[entry.dtype]), shape=entry.shape, data=entry.data)
    return ArrayStorage(path, arrays, parse_provenance(path, text), files=(file,))


def open_npz(path: Path, file: StoredFile) -> ArrayStorage:
    """Open the storage of an npz file; members that someone compressed are decompressed when first asked for."""
    arrays: dict[str, StoredArray] = {}
    try:
        with _zip(file) as archive:
            for info in archive.infolist():
                name = info.filename.removesuffix(".npy")
                if name in arrays:
                    raise unreadable(path, f"it holds {name!r} twice")
                arrays[name] = _member(archive, info, file)
    except InputError:
        raise
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, RuntimeError) as error:
        raise unreadable(path, f"it is truncated or damaged ({error})") from None
    _refuse_overlaps(path, arrays)
    provenance = arrays.pop(PROVENANCE, None)
    if provenance is None or ROW not in arrays or provenance.dtype.kind != "U" or provenance.shape != ():
        raise unreadable(path, "an npz file of someone else: it has no 'provenance' and 'row'")
    return ArrayStorage(path, arrays, parse_provenance(path, str(provenance.scalar())), files=(file,))


def _zip(file: StoredFile) -> zipfile.ZipFile:
    return zipfile.ZipFile(io.BufferedReader(StoredFileStream(file)))


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, file: StoredFile) -> StoredArray:
    with archive.open(info) as member:
        dtype, shape, header_bytes = _array_header(member)
    count = dtype.itemsize * math.prod(shape)
    if info.file_size != header_bytes + count:
        raise unreadable(
            file.path, f"{info.filename!r} is damaged: its header says {count} bytes of {dtype} {list(shape)}"
        )
    if info.compress_type == zipfile.ZIP_STORED:
        name_and_extra = LOCAL_HEADER.unpack(file.read(info.header_offset, info.header_offset + LOCAL_HEADER.size))
        begin = info.header_offset + LOCAL_HEADER.size + sum(name_and_extra) + header_bytes
        return StoredArray(dtype=dtype, shape=shape, data=_bytes_at(file, begin, count))
    if count > MOST_COMPRESSED:
        raise unreadable(
            file.path,
            f"{info.filename!r} is compressed and holds {count} bytes, more than the {MOST_COMPRESSED} that are "
            "decompressed; save it with numpy.savez",
        )

    def load() -> bytearray:
        data = bytearray()
        with _zip(file) as again, again.open(info.filename) as compressed:
            while piece := compressed.read(BLOCK_BYTES):
                data += piece
        del data[:header_bytes]
        return data

    return StoredArray(dtype=dtype, shape=shape, data=CompressedBytes(load))


def _bytes_at(file: StoredFile, begin: int, count: int) -> StoredBytes:
    if begin + count > file.size:
        raise unreadable(file.path, "it is truncated")
    return StoredBytes(file, begin, count)


def _refuse_overlaps(path: Path, arrays: Mapping[str, StoredArray]) -> None:
    """Refuse members that share bytes, as a zip whose directory was tampered with has them."""
    places = [array.data for array in arrays.values() if isinstance(array.data, StoredBytes) and array.data.nbytes]
    places.sort(key=lambda data: data.begin)
    if any(first.begin + first.nbytes > second.begin for first, second in pairwise(places)):
        raise unreadable(path, "it is damaged: arrays in it overlap")


def open_npy(path: Path, file: StoredFile) -> ArrayStorage:
    """Open the storage of an npy file and of what stands beside it: provenance, and a ragged feature's offsets."""
    real = Path(os.path.realpath(path))
    sidecar, ends = provenance_place(real), offsets_place(real)
    if not sidecar.exists():
        raise unreadable(path, f"there is no {sidecar.name} beside it (numpy.load reads any npy file)")
    beside = StoredFile(sidecar, error=InputError)
    provenance = parse_provenance(sidecar, beside.read_whole())
    beside.close()
    features = provenance.get("features", ())
    names = list(features) if isinstance(features, dict | list) else []
    name = names[0] if len(names) == 1 and isinstance(names[0], str) else path.stem
    files = [file]
    arrays = {name: _whole_array(file)}
    if ends.exists():
        files.append(StoredFile(ends, error=InputError))
        arrays[name + OFFSETS] = _whole_array(files[1])
    elif isinstance(features, dict) and _is_ragged(features.get(name)):
        # Otherwise each token would be taken for a record.
        raise unreadable(path, f"there is no {ends.name} beside it, which says where each record ends")
    return ArrayStorage(path, arrays, provenance, files=tuple(files))


def _is_ragged(feature: object) -> bool:
    """Return whether a feature, as the provenance names it, has a row per token, word or span."""
    try:
        return isinstance(feature, str) and parse(feature).form.ragged
    except UsageError:  # damaged, or no feature of the grammar
        return False


def _whole_array(file: StoredFile) -> StoredArray:
    try:
        dtype, shape, begin = _array_header(io.BufferedReader(StoredFileStream(file)))
    except (ValueError, EOFError) as error:
        raise unreadable(file.path, f"its header is damaged ({error})") from None
    count = dtype.itemsize * math.prod(shape)
    if begin + count < file.size:
        raise unreadable(file.path, f"it is damaged: {file.size - begin - count} bytes follow its array")
    return StoredArray(dtype=dtype, shape=shape, data=_bytes_at(file, begin, count))


def _array_header(file: Any) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """Read dtype, shape and length of an npy header, in the spelling that numpy writes; ValueError for any other.

    numpy's own reader evaluates the header as a Python literal, which fails in many ways on damaged ones.
    """
    start = file.read(12)
    if start[:6] != b"\x93NUMPY" or len(start) < 12 or start[6] not in (1, 2, 3) or start[7] != 0:
        raise ValueError("it does not begin as an npy file of version 1 to 3")
    long = start[6] > 1
    size = int.from_bytes(start[8:12] if long else start[8:10], "little")
    if size > LONGEST_ARRAY_HEADER:
        raise ValueError(f"a header of {size} bytes, more than {LONGEST_ARRAY_HEADER}")
    text = (b"" if long else start[10:]) + file.read(size if long else size - 2)
    matched = ARRAY_HEADER.fullmatch(text.decode("latin-1"))
    if len(text) != size or matched is None:
        raise ValueError("not an array in C order of numbers or strings")
    shape = tuple(int(number) for number in matched[2].split(",") if number.strip())
    if len(shape) > 32 or max(shape, default=0) >= 2**63:
        raise ValueError(f"impossible sizes {shape}")
    try:
        dtype = np.dtype(matched[1])
    except TypeError:
        raise ValueError(f"no dtype {matched[1]!r}") from None
    return dtype, shape, 12 + size if long else 10 + size
