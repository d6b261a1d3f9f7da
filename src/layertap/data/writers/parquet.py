"""The Parquet format: one column of fixed-size lists per feature."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Sequence, Set
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from layertap.data.arrow_row import ArrowRow
from layertap.data.json_text import json_text, plain_text
from layertap.data.json_types import kind_of
from layertap.data.slices import cut
from layertap.data.writers.base import AXES, ID, ROW, Writer, WriterOptions, map_shapes, refuse_clashes, values_of
from layertap.errors import InputError, UsageError
from layertap.records import Array, AttentionMaps, Feature, FeatureBatch, FeatureSchema, Ragged, Record

if TYPE_CHECKING:
    import pyarrow as pa

METADATA_KEY = b"layertap"
SHAPE = ".shape"
NOISE = ("float32", "float16")
BYTES = ("int8", "uint8")
MOST_VALUES = 2**31 - 1
"""Largest number of values in one list; Arrow counts them in 32 bits."""

ROW_GROUP_BYTES = 8 << 20  # what a row group holds stays in memory until it is written
ROW_GROUP_ROWS = 1 << 17


class ParquetWriter(Writer):
    """Writer of a Parquet file with the columns `row`, `id` (if there are ids), the carried columns, and the features.

    Columns of `WriterOptions.constants`, with one value for all records, follow `row`.

    A dense feature [H] is a fixed-size list, [L, H] a fixed-size list of such lists; a ragged feature is a list with
    one of them per token. Attentions are a flat list of numbers and `<name>.shape`, [*leading, T, T]. Only `row` and
    the features are declared as columns without nulls; the metadata of a feature's field names its axes. Carried
    columns and details are compressed with zstd; features are not, since embeddings hardly compress (8 percent
    smaller, at twice the time). Parquet has no type of one byte: int8 and uint8 are stored as indices into a
    dictionary, one byte each, and not as int32. Provenance is JSON in the schema's metadata, under the key `layertap`.
    """

    @classmethod
    def check(cls, options: WriterOptions) -> None:
        """Refuse names that clash, and names of columns that are not valid UTF-8, which Parquet requires."""
        for name in options.column_types:
            if any("\ud800" <= character <= "\udfff" for character in name):
                raise UsageError(
                    f"column {name!r}: Parquet does not hold a name with a lone surrogate; rename the column, or "
                    "name the columns to carry (--columns) without it"
                )
        shapes = [schema.name + SHAPE for schema in options.schemas if schema.maps]
        refuse_clashes(options, [ROW, *options.constants, *options.column_types, *shapes])

    def _start(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._json_columns: list[str] = []
        carried = [
            pa.field(name, pa.string() if type_ is None else type_)
            for name, type_ in sorted(self._options.column_types.items(), key=lambda item: item[0] != ID)
        ]
        self._schema = pa.schema(
            [
                pa.field(ROW, pa.int64(), nullable=False),
                *(pa.field(name, pa.string()) for name in self._options.constants),
                *carried,
                *(field for schema in self._options.schemas for field in feature_fields(schema)),
            ],
            metadata={METADATA_KEY: self._options.provenance_text.encode()},
        )
        self._held: list[pa.Table] = []
        self._held_bytes = 0
        self._held_rows = 0
        self._file = self._output.create()
        self._parquet = pq.ParquetWriter(self._file, self._schema, **_encoding(self._schema, self._options.schemas))

    def _write(self, batch: FeatureBatch) -> None:
        # Equal inputs give equal files: the end of a row group depends on the records alone, not on the batches.
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
        self._commit(self._file)

    def abort(self) -> None:
        """Remove all temporary files of the output."""
        if hasattr(self, "_parquet"):
            with contextlib.suppress(Exception):
                self._parquet.close()
            # Otherwise pyarrow would try again when the writer is garbage collected, and write to a closed file.
            self._parquet.is_open = False
        super().abort()

    def _record_bytes(self, batch: FeatureBatch) -> Array:
        """Return how many bytes each record adds to a row group, as int64 [N]: its features and its carried columns."""
        sizes = np.zeros(len(batch), dtype=np.int64)
        for feature in batch.features.values():
            values = values_of(feature)
            each = values.nbytes // len(values) if len(values) else 0
            sizes += each * (np.diff(feature.offsets) if isinstance(feature, Ragged | AttentionMaps) else 1)
        return sizes + self._carried_bytes(batch.records)

    def _carried_bytes(self, records: Sequence[Record]) -> Array:
        """Return the approximate size of each record's carried columns, as int64 [N], and refuse unknown columns."""
        sizes = np.zeros(len(records), dtype=np.int64)
        arrow_batch, arrow_bytes = None, 0
        for i, record in enumerate(records):
            columns = record.columns
            if not isinstance(columns, ArrowRow):
                self._check_names(record, columns.keys())
                sizes[i] = sum(len(value) for value in columns.values() if isinstance(value, str))
                continue
            if columns.batch is not arrow_batch:
                arrow_batch = columns.batch
                arrow_bytes = arrow_batch.nbytes // max(1, len(arrow_batch))
                self._check_names(record, set(arrow_batch.schema.names))
            sizes[i] = arrow_bytes
        return sizes

    def _check_names(self, record: Record, names: Set[str]) -> None:
        new = names - self._options.column_types.keys()
        if new:
            raise InputError(
                f"row {record.row + 1}: column {', '.join(map(repr, sorted(new)))} appears here for the first "
                "time, when the schema of the Parquet file is already written; name the columns to carry "
                "(--columns), or write jsonl, which holds any column"
            )

    def _hold(self, batch: FeatureBatch, begin: int, end: int) -> None:
        """Buffer records for the next row group as Arrow columns, so that their texts can be freed."""
        import pyarrow as pa

        part = batch if (begin, end) == (0, len(batch)) else _part(batch, begin, end)
        self._note_json(part.records)
        rows = np.fromiter((record.row for record in part.records), np.int64, len(part))
        carried = [
            carried_column(part.records, name, self._options.column_types[name])
            for name in self._schema.names
            if name in self._options.column_types
        ]
        features = [
            column
            for schema in self._options.schemas
            for column in feature_columns(schema, part.features[schema.name], part.records)
        ]
        constants = [pa.repeat(pa.scalar(text, pa.string()), len(part)) for text in self._options.constants.values()]
        self._held.append(pa.Table.from_arrays([pa.array(rows), *constants, *carried, *features], schema=self._schema))
        self._held_rows += len(part)

    def _note_json(self, records: Sequence[Record]) -> None:
        """Remember the columns that are written as JSON text."""
        import pyarrow as pa

        for name, type_ in self._options.column_types.items():
            if name not in self._json_columns and (type_ is None or pa.types.is_string(type_)):
                values = (record.columns.get(name) for record in records if not isinstance(record.columns, ArrowRow))
                if any(isinstance(value, dict | list) for value in values):
                    self._json_columns.append(name)

    @property
    def notes(self) -> tuple[str, ...]:
        """Remark on the columns that Parquet has no type for."""
        if not self._json_columns:
            return ()
        names = ", ".join(map(repr, self._json_columns))
        columns = f"column {names} is" if len(self._json_columns) == 1 else f"columns {names} are"
        return (f"{columns} written as JSON text: no single Arrow type holds objects, or lists of different kinds",)

    def _flush(self) -> None:
        import pyarrow as pa

        if not self._held:
            return
        # One chunk per column: the ends of pages follow the chunks.
        table = pa.concat_tables(self._held).combine_chunks()
        self._held, self._held_bytes, self._held_rows = [], 0, 0
        self._parquet.write_table(table, row_group_size=len(table))


def feature_fields(schema: FeatureSchema) -> list[pa.Field]:
    """Return the Arrow field of a feature, or the two fields of attentions."""
    import pyarrow as pa

    kind = pa.string() if schema.dtype == "str" else pa.from_numpy_dtype(np.dtype(schema.dtype))
    axes = {AXES: json.dumps(["record", *schema.axes])}
    if schema.maps:
        shape = pa.field(schema.name + SHAPE, pa.list_(pa.int32()), nullable=False)
        return [pa.field(schema.name, pa.list_(kind), nullable=False, metadata=axes), shape]
    for size in reversed(schema.shape):
        kind = pa.list_(kind, size)
    return [pa.field(schema.name, pa.list_(kind) if schema.ragged else kind, nullable=False, metadata=axes)]


def feature_columns(schema: FeatureSchema, feature: Feature, records: Sequence[Record]) -> list[pa.Array]:
    """Copy a feature into Arrow arrays, one for each of its fields.

    Raises:
        InputError: a record has more numbers than one list of a Parquet file can hold.
    """
    import pyarrow as pa

    if isinstance(feature, AttentionMaps):
        _check_sizes(schema, feature, records)
    # A copy, since the batch may be a view of a much larger array.
    column = _strings(values_of(feature)) if schema.dtype == "str" else pa.array(values_of(feature).flatten())
    if isinstance(feature, AttentionMaps):
        shapes = map_shapes(feature).astype(np.int32)
        ends = np.arange(len(shapes) + 1, dtype=np.int32) * np.int32(shapes.shape[1])
        return [
            pa.ListArray.from_arrays(pa.array(feature.offsets.astype(np.int32)), column),
            pa.ListArray.from_arrays(pa.array(ends), pa.array(shapes.reshape(-1))),
        ]
    for size in reversed(schema.shape):
        column = pa.FixedSizeListArray.from_arrays(column, size)
    if not isinstance(feature, Ragged):
        return [column]
    return [pa.ListArray.from_arrays(pa.array(feature.offsets.astype(np.int32)), column)]


def _strings(values: Array) -> pa.Array:
    """Build an array of strings; lone surrogates, which UTF-8 cannot encode, become U+FFFD as for the model."""
    import pyarrow as pa

    texts = values.tolist()
    try:
        return pa.array(texts, pa.string())
    except UnicodeEncodeError:
        whole = [text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace") for text in texts]
        return pa.array(whole, pa.string())


def _check_sizes(schema: FeatureSchema, feature: AttentionMaps, records: Sequence[Record]) -> None:
    # A row group ends as soon as it is full, so only its last record can be too large.
    if feature.offsets[-1] <= MOST_VALUES:
        return
    worst = int(np.argmax(feature.lengths))
    raise InputError(
        f"row {records[worst].row + 1}: {schema.name!r} of {feature.lengths[worst]:,} tokens is more than a Parquet "
        f"file holds ({MOST_VALUES:,} numbers in a row group); write safetensors or npz, name fewer layers or heads, "
        "or take .heads_mean"
    )


def carried_column(records: Sequence[Record], name: str, type_: pa.DataType | None) -> pa.ChunkedArray:
    """Return a carried column, or the ids, as an Arrow array with the values that were read.

    Args:
        records: the records.
        name: name of the column; `id` stands for `Record.id` unless a carried column has this name.
        type_: Arrow type of the column, or None for JSON text. A column of strings takes any value as plain text.

    Raises:
        InputError: a value does not fit the type; the message names its row.
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
    if type_ is None or pa.types.is_string(type_):
        return pa.array([None if value is None else plain_text(value) for value in values], pa.string())
    with contextlib.suppress(pa.ArrowException, OverflowError, ValueError, TypeError):
        column = pa.array(values, type_)
        # pyarrow turns 2.5 into 2 without an error
        if column.to_pylist() == values:
            return column
    for record, value in zip(records, values, strict=True):
        if not _fits(value, type_):
            raise InputError(
                f"row {record.row + 1}: column {name!r}: {shortened(value)} does not fit {type_}, the type of the rows "
                "before; leave the column out (name the columns to carry), or write jsonl, which holds anything"
            )
    return pa.array(values, type_)


def _carried(record: Record, name: str) -> Any:
    return record.id if name == ID and ID not in record.columns else record.columns.get(name)


def _fits(value: Any, type_: pa.DataType) -> bool:
    """Return whether an Arrow type can hold a value exactly."""
    import pyarrow as pa

    try:
        back = pa.array([value], type_).to_pylist()[0]
    except (pa.ArrowException, OverflowError, ValueError, TypeError):
        return False
    # NaN differs from itself
    return back == value or (kind_of(value) == kind_of(back) and json_text(back) == json_text(value))


def shortened(value: Any) -> str:
    """Shorten the text of a value for a message."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _encoding(schema: pa.Schema, features: Sequence[FeatureSchema]) -> dict[str, Any]:
    """Choose the encoding of each column; vectors gain nothing from compression, dictionaries or statistics."""
    import pyarrow.parquet as pq

    empty = io.BytesIO()
    pq.write_table(schema.empty_table(), empty)
    stored = pq.read_metadata(empty).schema
    paths = [stored.column(i).path for i in range(len(stored))]
    # Each field of a feature is one column of the file, and these columns are the last ones.
    dtypes = [dtype for schema in features for dtype in _stored_dtypes(schema)]
    stored_as = dict(zip(paths[len(paths) - len(dtypes) :], dtypes, strict=True))
    others = [path for path in paths if stored_as.get(path) not in (*NOISE, *BYTES)]
    return {
        "compression": dict.fromkeys(paths, "none") | dict.fromkeys(others, "zstd"),
        "use_dictionary": [path for path in paths if stored_as.get(path) not in NOISE],
        "write_statistics": others,
    }


def _stored_dtypes(schema: FeatureSchema) -> list[str]:
    """Return the dtype of each Arrow field of a feature."""
    return [schema.dtype, "int32"] if schema.maps else [schema.dtype]


def _part(batch: FeatureBatch, begin: int, end: int) -> FeatureBatch:
    """Return the records `begin:end` of a batch."""
    features = {name: cut(feature, begin, end) for name, feature in batch.features.items()}
    return FeatureBatch(records=batch.records[begin:end], features=features)
