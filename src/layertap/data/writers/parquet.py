"""Parquet: a column a feature, of fixed-size lists."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from layertap.data.arrow_row import ArrowRow
from layertap.data.json_text import json_text
from layertap.data.json_types import kind_of
from layertap.data.writers.base import ID, ROW, Writer, values_of
from layertap.errors import InputError
from layertap.records import Array, FeatureBatch, FeatureSchema, Ragged, Record

if TYPE_CHECKING:
    import pyarrow as pa

METADATA_KEY = b"layertap"
ROW_GROUP_BYTES = 32 << 20
ROW_GROUP_ROWS = 1 << 17


class ParquetWriter(Writer):
    """Columns `row`, `id` (where there are ids), the carried columns, the features.

    A dense feature [H] is a fixed-size list, [L, H] a fixed-size list of such; a ragged feature is a list of
    them, a token each. Carried columns are compressed (zstd); features are not: embeddings are noise to a
    compressor (8 percent smaller, twice the time). Provenance is JSON in the schema's metadata, `layertap`.
    """

    def _start(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        carried = [
            pa.field(name, pa.string() if type_ is None else type_)
            for name, type_ in sorted(self._options.column_types.items(), key=lambda item: item[0] != ID)
        ]
        self._schema = pa.schema(
            [
                pa.field(ROW, pa.int64(), nullable=False),
                *carried,
                *(pa.field(schema.name, feature_type(schema), nullable=False) for schema in self._options.schemas),
            ],
            metadata={METADATA_KEY: self._options.provenance_text.encode()},
        )
        self._held: list[FeatureBatch] = []
        self._held_bytes = 0
        self._held_rows = 0
        self._file = self._parts.create()
        self._parquet = pq.ParquetWriter(
            self._file, self._schema, **_encoding(self._schema, len(self._options.schemas))
        )

    def _write(self, batch: FeatureBatch) -> None:
        self._check_columns(batch.records)
        # Where a row group ends depends on the records alone, not on how they were batched.
        sizes = self._record_bytes(batch)
        begin = 0
        for end, size in enumerate(sizes.tolist(), start=1):
            self._held_bytes += size
            if self._held_bytes >= ROW_GROUP_BYTES or self._held_rows + end - begin >= ROW_GROUP_ROWS:
                self._hold(batch, begin, end)
                self._flush()
                begin = end
        if begin < len(batch):
            self._hold(batch, begin, len(batch))

    def _finish(self) -> None:
        self._flush()
        self._parquet.close()
        self._parts.commit(self._file, provenance=b"")

    def abort(self) -> None:
        """Leaves nothing behind."""
        if hasattr(self, "_parquet"):
            with contextlib.suppress(Exception):
                self._parquet.close()
            # After a failure it would try again when it is collected, into a closed file.
            self._parquet.is_open = False
        super().abort()

    def _check_columns(self, records: Sequence[Record]) -> None:
        known = self._options.column_types.keys()
        for record in records:
            if not record.columns.keys() <= known:
                new = sorted(record.columns.keys() - known)
                raise InputError(
                    f"row {record.row + 1}: column {', '.join(map(repr, new))} is met here for the first time, too "
                    "late for a Parquet file's schema; name the columns to carry, or write jsonl, which holds any"
                )

    def _record_bytes(self, batch: FeatureBatch) -> Array:
        """int64 [N], what each record adds to a row group: its features, and its carried strings."""
        sizes = np.zeros(len(batch), dtype=np.int64)
        for feature in batch.features.values():
            values = values_of(feature)
            each = values.nbytes // len(values) if len(values) else 0
            sizes += each * (np.diff(feature.offsets) if isinstance(feature, Ragged) else 1)
        for i, record in enumerate(batch.records):
            if not isinstance(record.columns, ArrowRow):
                sizes[i] += sum(len(value) for value in record.columns.values() if isinstance(value, str))
            elif record.columns:
                sizes[i] += record.columns.batch.nbytes // len(record.columns.batch)
        return sizes

    def _hold(self, batch: FeatureBatch, begin: int, end: int) -> None:
        self._held.append(batch if (begin, end) == (0, len(batch)) else _part(batch, begin, end))
        self._held_rows += end - begin

    def _flush(self) -> None:
        import pyarrow as pa

        if not self._held:
            return
        records = [record for batch in self._held for record in batch.records]
        columns: list[Any] = [pa.array(np.fromiter((r.row for r in records), np.int64, len(records)))]
        columns += [
            carried_column(records, name, self._options.column_types[name])
            for name in self._schema.names
            if name in self._options.column_types
        ]
        columns += [feature_column(schema, self._held) for schema in self._options.schemas]
        table = pa.Table.from_arrays(columns, schema=self._schema)
        self._parquet.write_table(table, row_group_size=len(records))
        self._held, self._held_bytes, self._held_rows = [], 0, 0


def feature_type(schema: FeatureSchema) -> pa.DataType:
    """The Arrow type of a feature's column."""
    import pyarrow as pa

    kind = pa.from_numpy_dtype(np.dtype(schema.dtype))
    for size in reversed(schema.shape):
        kind = pa.list_(kind, size)
    return pa.list_(kind) if schema.ragged else kind


def feature_column(schema: FeatureSchema, batches: Sequence[FeatureBatch]) -> pa.Array:
    """The Arrow array of a feature over consecutive batches."""
    import pyarrow as pa

    features = [batch.features[schema.name] for batch in batches]
    values = np.concatenate([values_of(feature) for feature in features])
    column = pa.array(values.reshape(-1))
    for size in reversed(schema.shape):
        column = pa.FixedSizeListArray.from_arrays(column, size)
    if not schema.ragged:
        return column
    lengths = np.concatenate([np.diff(feature.offsets) for feature in features if isinstance(feature, Ragged)])
    offsets = np.zeros(len(lengths) + 1, dtype=np.int32)
    np.cumsum(lengths, out=offsets[1:])
    return pa.ListArray.from_arrays(pa.array(offsets), column)


def carried_column(records: Sequence[Record], name: str, type_: pa.DataType | None) -> pa.ChunkedArray:
    """The Arrow array of a carried column (or of the ids), exactly as it was read.

    Args:
        records: the rows.
        name: the column; `id` stands for `Record.id` where no carried column is called so.
        type_: its type, or None for JSON text.

    Raises:
        InputError: a value that the type does not hold, naming its row.
    """
    import pyarrow as pa

    chunks = []
    for batch_id, run in groupby(records, key=lambda record: _arrow_batch(record, name)):
        rows = list(run)
        chunks.append(_python_chunk(rows, name, type_) if batch_id is None else _arrow_chunk(rows, name))
    return pa.chunked_array(chunks, type=pa.string() if type_ is None else type_)


def _arrow_batch(record: Record, name: str) -> int | None:
    columns = record.columns
    return id(columns.batch) if isinstance(columns, ArrowRow) and name in columns.batch.schema.names else None


def _arrow_chunk(records: Sequence[Record], name: str) -> pa.Array:
    rows = [record.columns for record in records if isinstance(record.columns, ArrowRow)]
    column = rows[0].batch.column(rows[0].batch.schema.get_field_index(name))
    first, last = rows[0].index, rows[-1].index
    if last - first + 1 == len(rows):  # rows come in order
        return column.slice(first, len(rows))
    return column.take([row.index for row in rows])


def _python_chunk(records: Sequence[Record], name: str, type_: pa.DataType | None) -> pa.Array:
    import pyarrow as pa

    values = [_carried(record, name) for record in records]
    if type_ is None:
        return pa.array([None if value is None else json_text(value) for value in values], pa.string())
    with contextlib.suppress(pa.ArrowException, OverflowError, ValueError, TypeError):
        column = pa.array(values, type_)
        # pyarrow makes 2 of 2.5 without a word
        if column.to_pylist() == values:
            return column
    for record, value in zip(records, values, strict=True):
        if not _fits(value, type_):
            raise InputError(
                f"row {record.row + 1}: column {name!r}: {shortened(value)} is no {type_}, which the rows before "
                "made it; leave the column out (name the columns to carry), or write jsonl, which holds anything"
            )
    return pa.array(values, type_)


def _carried(record: Record, name: str) -> Any:
    return record.id if name == ID and ID not in record.columns else record.columns.get(name)


def _fits(value: Any, type_: pa.DataType) -> bool:
    """Whether an Arrow type holds a value exactly."""
    import pyarrow as pa

    try:
        back = pa.array([value], type_).to_pylist()[0]
    except (pa.ArrowException, OverflowError, ValueError, TypeError):
        return False
    # NaN differs from itself
    return back == value or (kind_of(value) == kind_of(back) and json_text(back) == json_text(value))


def shortened(value: Any) -> str:
    """A value for a message."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _encoding(schema: pa.Schema, features: int) -> dict[str, Any]:
    """How columns are stored: the last `features` are noise to a compressor, a dictionary and statistics."""
    import pyarrow.parquet as pq

    empty = io.BytesIO()
    pq.write_table(schema.empty_table(), empty)
    stored = pq.read_metadata(empty).schema
    paths = [stored.column(i).path for i in range(len(stored))]
    others = paths[: len(paths) - features]  # every feature is one column of the file
    return {
        "compression": dict.fromkeys(paths, "none") | dict.fromkeys(others, "zstd"),
        "use_dictionary": others,
        "write_statistics": others,
    }


def _part(batch: FeatureBatch, begin: int, end: int) -> FeatureBatch:
    """Records `begin:end` of a batch."""
    features: dict[str, Array | Ragged] = {}
    for name, feature in batch.features.items():
        if isinstance(feature, Ragged):
            offsets = feature.offsets[begin : end + 1]
            features[name] = Ragged(feature.values[offsets[0] : offsets[-1]], offsets - offsets[0])
        else:
            features[name] = feature[begin:end]
    return FeatureBatch(records=batch.records[begin:end], features=features)
