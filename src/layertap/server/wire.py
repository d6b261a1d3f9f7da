"""Bytes of answers: JSON with shortest decimals, base64, safetensors, npz, Arrow streams; in pieces, text by text."""

from __future__ import annotations

import base64
import io
import json
import struct
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from layertap.data.slices import cut
from layertap.data.writers.base import map_shapes, values_of
from layertap.data.writers.npy import header as npy_header
from layertap.data.writers.parquet import feature_columns, feature_fields
from layertap.data.writers.safetensors import DTYPES, METADATA_KEY
from layertap.data.writers.spill import OFFSETS, SHAPES
from layertap.records import Array, AttentionMaps, Feature, FeatureSchema, Ragged
from layertap.safetensors_header import encode_header

NUMPY = orjson.OPT_SERIALIZE_NUMPY

SAFETENSORS = "application/vnd.safetensors"
ARROW = "application/vnd.apache.arrow.stream"
NPZ = "application/x-npz"
JSON = "application/json"
BINARY_TYPES = (SAFETENSORS, ARROW, NPZ)

PIECE_BYTES = 1 << 18
"""Size of the pieces in which arrays are sent."""


def json_of(value: Any) -> bytes:
    """Write a value as JSON; a float32 has the shortest decimals that read back as the same float32."""
    return orjson.dumps(value, option=NUMPY, default=_plain)


def float_array(vector: Array) -> Array:
    """Return a vector as a float32 array that JSON and base64 can be made of."""
    return np.ascontiguousarray(vector, dtype="<f4")


def base64_of(vector: Array) -> str:
    """Write a vector as base64 of its little-endian float32 values."""
    return base64.b64encode(float_array(vector).data).decode("ascii")


def row_of(feature: Feature, index: int) -> Any:
    """Return the values of one record in a layout that JSON can be made of: an array, or a scalar of numpy."""
    row = feature[index]
    return np.ascontiguousarray(row) if np.ndim(row) else row


def list_pieces(rows: Iterable[Any]) -> Iterator[bytes]:
    """Yield a list as JSON, some rows at a time."""
    begin = b"["
    held: list[Any] = []
    size = 0
    for row in rows:
        held.append(row)
        size += getattr(row, "nbytes", 64)
        if size >= PIECE_BYTES:
            yield begin + json_of(held)[1:-1]
            begin, held, size = b",", [], 0
    if held:
        yield begin + json_of(held)[1:-1]
        begin = b","
    yield b"]" if begin == b"," else b"[]"


def safetensors_pieces(
    schemas: Sequence[FeatureSchema], features: Mapping[str, Feature], metadata: Mapping[str, Any]
) -> tuple[int, Iterator[bytes]]:
    """Return the size of a safetensors file with the arrays of `arrays_of`, and its pieces.

    The metadata are JSON under the key `layertap` of the header's `__metadata__`.
    """
    arrays = arrays_of(schemas, features)
    header, order = encode_header(
        {name: (DTYPES[array.dtype.name], array.shape) for name, array in arrays.items()},
        metadata={METADATA_KEY: json.dumps(metadata)},
    )

    def pieces() -> Iterator[bytes]:
        yield struct.pack("<Q", len(header)) + header
        for name in order:
            yield from _raw(arrays[name])

    return 8 + len(header) + sum(array.nbytes for array in arrays.values()), pieces()


def npz_pieces(
    schemas: Sequence[FeatureSchema], features: Mapping[str, Feature], metadata: Mapping[str, Any]
) -> Iterator[bytes]:
    """Yield the pieces of an npz file with the arrays of `arrays_of`, and `metadata` as JSON in a string array."""
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        text = np.array(json.dumps(metadata))
        for name, array in (*arrays_of(schemas, features).items(), ("metadata", text)):
            info = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            with archive.open(info, "w", force_zip64=True) as member:
                member.write(npy_header(array.dtype, array.shape))
                for piece in _raw(array):
                    member.write(piece)
                    yield sink.taken()
        # The directory of the archive is written when it is closed.
    yield sink.taken()


def arrow_pieces(
    schemas: Sequence[FeatureSchema],
    features: Mapping[str, Feature],
    metadata: Mapping[str, Any],
    *,
    num_records: int,
) -> Iterator[bytes]:
    """Yield the pieces of an Arrow stream: one row per text, columns as in the Parquet files of `layertap extract`."""
    import pyarrow as pa

    schema = pa.schema(
        [pa.field("index", pa.int64(), nullable=False), *(one for own in schemas for one in feature_fields(own))],
        metadata={METADATA_KEY: json.dumps(metadata)},
    )
    sink = _Sink()
    size = sum(values_of(feature).nbytes for feature in features.values())
    step = max(1, int(num_records * PIECE_BYTES / max(1, size)))
    with pa.ipc.new_stream(pa.PythonFile(sink, mode="w"), schema) as writer:
        for begin in range(0, num_records, step):
            end = min(begin + step, num_records)
            columns: list[Any] = [pa.array(range(begin, end), pa.int64())]
            for own in schemas:
                columns += feature_columns(own, cut(features[own.name], begin, end), ())
            writer.write_batch(pa.record_batch(columns, schema=schema))
            yield sink.taken()
    yield sink.taken()


def arrays_of(schemas: Sequence[FeatureSchema], features: Mapping[str, Feature]) -> dict[str, Array]:
    """Return the arrays that safetensors and npz hold, in the layout of the files of `layertap extract`.

    A dense feature is `name` [N, ...]. One per token, word or span is `name` [M, ...], the values of all texts laid end
    to end, and `name.offsets`, int64 [N + 1]. Attention maps are `name` [M], flat, with `name.offsets` and
    `name.shapes`, int64 [N, k].
    """
    arrays: dict[str, Array] = {}
    for schema in schemas:
        feature = features[schema.name]
        arrays[schema.name] = np.ascontiguousarray(values_of(feature))
        if isinstance(feature, Ragged | AttentionMaps):
            arrays[schema.name + OFFSETS] = np.ascontiguousarray(feature.offsets, dtype=np.int64)
        if isinstance(feature, AttentionMaps):
            arrays[schema.name + SHAPES] = map_shapes(feature)
    return arrays


def _raw(array: Array) -> Iterator[bytes]:
    """Yield the bytes of an array in pieces."""
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8) if array.size else np.empty(0, dtype=np.uint8)
    for begin in range(0, len(flat), PIECE_BYTES):
        yield flat[begin : begin + PIECE_BYTES].tobytes()


def _plain(value: object) -> object:
    """Return what orjson writes instead of a value that it does not know: arrays of strings, and scalars of numpy."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(type(value).__name__)


class _Sink(io.RawIOBase):
    """File that is written once from its beginning to its end, and read in pieces in between."""

    def __init__(self) -> None:
        self._held: list[bytes] = []

    def writable(self) -> bool:
        """Tell that this file is written."""
        return True

    def write(self, data: Any) -> int:
        """Hold bytes until they are taken."""
        self._held.append(bytes(data))
        return len(self._held[-1])

    def taken(self) -> bytes:
        """Return what was written since the last call."""
        data = b"".join(self._held)
        self._held.clear()
        return data
