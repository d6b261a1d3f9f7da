"""safetensors, npz and npy: arrays at known places of a file."""

from __future__ import annotations

import contextlib
import io
import json
import math
import mmap
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from layertap.data.readers.source import open_raw
from layertap.data.store.storage import BLOCK_BYTES, Storage, feature_dtype, maps_of, unreadable
from layertap.data.writers.base import ID, ROW
from layertap.data.writers.companions import offsets_place, provenance_place
from layertap.data.writers.npz import PROVENANCE
from layertap.data.writers.safetensors import DTYPES, METADATA, METADATA_KEY
from layertap.data.writers.spill import OFFSETS, SHAPES
from layertap.errors import InputError
from layertap.records import Array, Feature, FeatureSchema, Ragged

LOCAL_HEADER = struct.Struct("<26xHH")
"""Of a zip member: how long its name and its extra field are."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StoredArray:
    """An array of a file.

    Attributes:
        dtype, shape: what it is.
        load: gives it, as a view of the file where that is possible.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    load: Callable[[], Array]

    @property
    def nbytes(self) -> int:
        """Bytes of its numbers."""
        return self.dtype.itemsize * math.prod(self.shape)


class ArrayStorage(Storage):
    """Features of arrays, as `writers.spill.SpillFiles` lays them out."""

    def __init__(
        self,
        path: Path,
        arrays: Mapping[str, StoredArray],
        provenance: Mapping[str, Any],
        *,
        close: Callable[[], None],
    ) -> None:
        self.path = path
        self.provenance = provenance
        self._stored = dict(arrays)
        self._loaded: dict[str, Array] = {}
        self._close = close
        self._closed = False
        self.has_ids = ID in arrays
        self.num_records = self._count()
        self.features = {
            name: self._schema(name) for name in arrays if name not in (ROW, ID) and not self._is_companion(name)
        }
        for name in self.features:
            self._check(name)

    def _read(self, name: str, begin: int, end: int) -> Feature:
        """Records `begin:end` of a feature, a copy."""
        schema, values = self.features[name], self._array(name)
        if not schema.ragged and not schema.maps:
            return values[begin:end].copy()
        offsets = self._array(name + OFFSETS)[begin : end + 1].astype(np.int64)
        part = values[offsets[0] : offsets[-1]].copy()
        if schema.ragged:
            return Ragged(part, offsets - offsets[0])
        return maps_of(part, self._array(name + SHAPES)[begin:end].astype(np.int64), schema.shape)

    def _read_rows(self, begin: int, end: int) -> npt.NDArray[np.int64]:
        """Input row numbers; without an array of them no row was left out."""
        if ROW not in self._stored:
            return np.arange(begin, end, dtype=np.int64)
        return self._array(ROW)[begin:end].astype(np.int64)

    def _read_ids(self, begin: int, end: int) -> list[Any]:
        """Ids of records `begin:end`."""
        if ID + OFFSETS not in self._stored:
            found: list[Any] = self._array(ID)[begin:end].tolist()
            return found
        offsets = self._array(ID + OFFSETS)[begin : end + 1].tolist()
        data = self._array(ID)[offsets[0] : offsets[-1]].tobytes()
        return [data[b - offsets[0] : e - offsets[0]].decode() for b, e in pairwise(offsets)]

    def block_records(self, name: str) -> int:
        """Records of about 8 MiB."""
        return max(1, self.num_records * BLOCK_BYTES // max(1, self._stored[name].nbytes))

    def close(self) -> None:
        """Lets the file go."""
        self._closed = True
        self._loaded.clear()
        self._close()

    def _array(self, name: str) -> Array:
        if self._closed:
            raise InputError(f"{self.path}: this file was closed; open it again")
        if name not in self._loaded:
            self._loaded[name] = self._stored[name].load()
        return self._loaded[name]

    def _count(self) -> int:
        ends = next((array for name, array in self._stored.items() if name.endswith(OFFSETS)), None)
        counted = self._stored.get(ROW) or ends or next(iter(self._stored.values()), None)
        if counted is None or not counted.shape:
            raise unreadable(self.path, "it holds no records")
        return counted.shape[0] - (counted is ends)

    def _is_companion(self, name: str) -> bool:
        return any(name.endswith(end) and name.removesuffix(end) in self._stored for end in (OFFSETS, SHAPES))

    def _schema(self, name: str) -> FeatureSchema:
        stored = self._stored[name]
        is_maps = name + SHAPES in self._stored
        shape = self._leading(name) if is_maps else stored.shape[1:]
        dtype = feature_dtype(self.path, name, stored.dtype.name)
        ragged = name + OFFSETS in self._stored and not is_maps
        return FeatureSchema(name=name, dtype=dtype, shape=shape, ragged=ragged, maps=is_maps)

    def _leading(self, name: str) -> tuple[int, ...]:
        """What stands before the token axes; of no records, so many zeros."""
        shapes = self._stored[name + SHAPES]
        if len(shapes.shape) != 2:
            raise unreadable(self.path, f"the shapes of {name!r} are no table")
        if not shapes.shape[0]:
            return (0,) * max(0, shapes.shape[1] - 2)
        return tuple(self._array(name + SHAPES)[0, :-2].tolist())

    def _check(self, name: str) -> None:
        """Refuses arrays whose lengths do not go together."""
        schema, stored = self.features[name], self._stored[name]
        ends = self._stored.get(name + OFFSETS) if schema.ragged or schema.maps else None
        if ends is None:
            whole = stored.shape[:1] == (self.num_records,)
        else:
            whole = ends.shape == (self.num_records + 1,) and self._array(name + OFFSETS)[-1] == stored.shape[0]
        if not whole:
            raise unreadable(self.path, f"{name!r} is not of {self.num_records} records")


class Mapped:
    """A file in the address space, not in memory: pages come when they are touched."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self.size = file.seek(0, io.SEEK_END)
        self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def stored(self, dtype: np.dtype[Any], shape: tuple[int, ...], begin: int) -> StoredArray:
        """The array whose numbers begin at a byte of the file."""

        def load() -> Array:
            count = math.prod(shape)
            if not count:
                return np.empty(shape, dtype)
            return np.frombuffer(self._map, dtype, count, begin).reshape(shape)

        array = StoredArray(dtype=dtype, shape=shape, load=load)
        if begin + array.nbytes > self.size:
            raise unreadable(self.path, "it is truncated")
        return array

    def close(self) -> None:
        """Unmaps the file, or leaves that to whoever looks at it last."""
        with contextlib.suppress(BufferError):
            self._map.close()


def open_safetensors(path: Path, file: BinaryIO) -> ArrayStorage:
    """Storage of a safetensors file."""
    mapped = Mapped(path, file)
    file.seek(0)
    size = int.from_bytes(file.read(8), "little")
    if size > mapped.size - 8:
        raise unreadable(path, "it is truncated in its header")
    numpy_names = {code: name for name, code in DTYPES.items()}
    arrays = {}
    try:
        entries: dict[str, Any] = json.loads(file.read(size))
        provenance = entries.pop(METADATA, {}).get(METADATA_KEY)
        if provenance is None:
            raise unreadable(path, "a safetensors file of someone else: its metadata has no 'layertap'")
        for name, entry in entries.items():
            dtype = np.dtype(numpy_names[entry["dtype"]])
            arrays[name] = mapped.stored(dtype, tuple(entry["shape"]), 8 + size + entry["data_offsets"][0])
        return ArrayStorage(path, arrays, json.loads(provenance), close=mapped.close)
    except (KeyError, TypeError, AttributeError, UnicodeDecodeError, json.JSONDecodeError):
        raise unreadable(path, "its header is damaged") from None


def open_npz(path: Path, file: BinaryIO) -> ArrayStorage:
    """Storage of an npz file; members that someone compressed are read whole when they are first asked for."""
    try:
        with zipfile.ZipFile(file) as archive:
            mapped = Mapped(path, file)
            arrays = {
                info.filename.removesuffix(".npy"): _member(archive, info, mapped, file) for info in archive.infolist()
            }
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        raise unreadable(path, f"it is truncated or damaged ({error})") from None
    text = arrays.pop(PROVENANCE, None)
    if text is None or ROW not in arrays or text.dtype.kind != "U":
        raise unreadable(path, "an npz file of someone else: it has no 'provenance' and 'row'")

    return ArrayStorage(path, arrays, json.loads(str(text.load())), close=mapped.close)


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, mapped: Mapped, file: BinaryIO) -> StoredArray:
    with archive.open(info) as member:
        dtype, shape = _array_header(member)
        header_bytes = member.tell()
    if info.compress_type == zipfile.ZIP_STORED:
        file.seek(info.header_offset)
        begin = info.header_offset + LOCAL_HEADER.size + sum(LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size)))
        return mapped.stored(dtype, shape, begin + header_bytes)

    def load() -> Array:
        with zipfile.ZipFile(mapped.path) as again, again.open(info.filename) as member:
            array: Array = np.lib.format.read_array(member, allow_pickle=False)
        return array

    return StoredArray(dtype=dtype, shape=shape, load=load)


def open_npy(path: Path, file: BinaryIO) -> ArrayStorage:
    """Storage of an npy file, and of what stands beside it: provenance, and where records end in a ragged one."""
    real = Path(os.path.realpath(path))
    sidecar, ends = provenance_place(real), offsets_place(real)
    try:
        provenance = json.loads(sidecar.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise unreadable(path, f"there is no {sidecar.name} beside it (numpy.load reads any npy file)") from None
    except (OSError, ValueError) as error:
        raise unreadable(sidecar, f"it cannot be read ({error})") from None
    named = list(provenance.get("features", ())) if isinstance(provenance, dict) else []
    name = named[0] if len(named) == 1 else path.stem
    maps = [Mapped(path, file)]
    arrays = {name: _whole_array(maps[0], file)}
    if ends.exists():
        with open_raw(ends) as beside:
            maps.append(Mapped(ends, beside))
            arrays[name + OFFSETS] = _whole_array(maps[1], beside)

    def close() -> None:
        for mapped in maps:
            mapped.close()

    return ArrayStorage(path, arrays, provenance, close=close)


def _whole_array(mapped: Mapped, file: BinaryIO) -> StoredArray:
    file.seek(0)
    try:
        dtype, shape = _array_header(file)
    except ValueError as error:
        raise unreadable(mapped.path, f"its header is damaged ({error})") from None
    return mapped.stored(dtype, shape, file.tell())


def _array_header(file: Any) -> tuple[np.dtype[Any], tuple[int, ...]]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if fortran or dtype.hasobject:
        raise ValueError("not an array in C order of numbers or strings")
    return dtype, shape
