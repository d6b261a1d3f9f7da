"""Parquet: a record a row, read batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from layertap.data.arrow_row import ArrowRow
from layertap.data.readers.base import BadRowError, Reader, ReadOptions
from layertap.data.readers.selection import ID_COLUMN, checked_id, checked_text, select
from layertap.data.readers.source import Source
from layertap.errors import UsageError
from layertap.records import Record

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 1024
BATCH_BYTES = 8 << 20
BUFFER_BYTES = 1 << 20


class ParquetReader(Reader):
    """Texts from a string column; other columns travel as Arrow values (`ArrowRow`), so nothing is lost."""

    unit: ClassVar[str] = "row"

    def __init__(self, source: Source, options: ReadOptions) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        super().__init__(source, options)
        try:
            # Without pre-buffering, pages are read as they are needed: a row group may be larger than memory.
            self._file = pq.ParquetFile(source.path, buffer_size=BUFFER_BYTES, pre_buffer=False)
        except (pa.ArrowException, OSError) as error:
            raise self._fail(f"this is no readable Parquet file: {error}") from None
        self._schema = self._file.schema_arrow
        names = self._schema.names
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise self._fail(f"column {', '.join(map(repr, twice))} stands in it twice")
        strings = [field.name for field in self._schema if _is_string(field.type)]
        self._selection = select(
            options,
            file=source.name,
            found=names,
            texts=strings,
            ids=[*strings, *(field.name for field in self._schema if pa.types.is_integer(field.type))],
        )
        if self._selection.text not in strings:
            kind = self._schema.field(self._selection.text).type
            raise UsageError(
                f"{source.name}: column {self._selection.text!r} holds {kind}, not strings; those with strings are "
                + (", ".join(map(repr, strings)) or "none")
            )
        self._rows_read = 0

    @property
    def bytes_read(self) -> int:
        """How much of `bytes_total` has been read, by the share of rows."""
        total: int = self._file.metadata.num_rows
        return round((self.bytes_total or 0) * (self._rows_read / total if total else 1.0))

    @property
    def column_types(self) -> Mapping[str, pa.DataType | None]:
        """The types of the file."""
        chosen = self._selection
        ids = {ID_COLUMN: self._schema.field(chosen.id).type} if chosen.id is not None else {}
        return ids | {name: self._schema.field(name).type for name in chosen.columns}

    def close(self) -> None:
        """Closes the input."""
        if hasattr(self, "_file"):
            self._file.close()
        super().close()

    def _rows(self) -> Iterator[tuple[int, tuple[Any, Any, Mapping[str, Any]]]]:
        import pyarrow as pa

        chosen = self._selection
        wanted = dict.fromkeys([chosen.text, *([chosen.id] if chosen.id is not None else []), *chosen.columns])
        try:
            for batch in self._file.iter_batches(batch_size=self._batch_rows(), columns=list(wanted)):
                texts = _python_values(batch.column(chosen.text))
                ids = [None] * len(texts) if chosen.id is None else _python_values(batch.column(chosen.id))
                carried = batch.select(list(chosen.columns))
                for i, (text, found_id) in enumerate(zip(texts, ids, strict=True)):
                    self._rows_read += 1
                    yield self._rows_read, (text, found_id, ArrowRow(carried, i) if chosen.columns else {})
        except (pa.ArrowException, OSError) as error:
            raise self._fail(f"cannot be read after row {self._rows_read}: {error}") from None

    def _parse(self, row: int, raw: tuple[Any, Any, Mapping[str, Any]]) -> Record:
        text, found_id, columns = raw
        chosen = self._selection
        return Record(
            row=row,
            text=checked_text(_readable(text, chosen.text), chosen.text),
            id=None if chosen.id is None else checked_id(_readable(found_id, chosen.id), chosen.id),
            columns=columns,
        )

    def _batch_rows(self) -> int:
        metadata = self._file.metadata
        size = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
        rows: int = BATCH_BYTES * metadata.num_rows // max(1, size)
        return max(1, min(BATCH_ROWS, rows))


def _is_string(type_: pa.DataType) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    # string views came to pyarrow after its oldest version that layertap runs with
    return pa.types.is_string(type_) or pa.types.is_large_string(type_) or str(type_) == "string_view"


def _python_values(column: pa.Array) -> list[Any]:
    """The values of a column; in the place of a string that is not UTF-8 stands its error."""
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        return [_python_value(scalar) for scalar in column]
    return values


def _python_value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:
        return error


def _readable(value: Any, column: str) -> Any:
    if isinstance(value, UnicodeDecodeError):
        raise BadRowError(f"column {column!r} is not UTF-8: byte 0x{value.object[value.start]:02x}")
    return value
