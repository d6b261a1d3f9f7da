"""Parquet: a record a row, read batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from layertap.data.arrow_row import ArrowRow
from layertap.data.readers.base import BadRowError, Reader, ReadOptions
from layertap.data.readers.roles import record_of
from layertap.data.readers.selection import ID_COLUMN, select
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
        self._check_types(strings)
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

    def _rows(self) -> Iterator[tuple[int, tuple[dict[str, Any], Mapping[str, Any]]]]:
        import pyarrow as pa

        chosen = self._selection
        roles = replace(chosen, columns=()).wanted
        try:
            for batch in self._file.iter_batches(batch_size=self._batch_rows(), columns=list(chosen.wanted)):
                values = [_python_values(batch.column(name)) for name in roles]
                carried = batch.select(list(chosen.columns))
                for i, row in enumerate(zip(*values, strict=True)):
                    self._rows_read += 1
                    found = dict(zip(roles, row, strict=True))
                    yield self._rows_read, (found, ArrowRow(carried, i) if chosen.columns else {})
        except (pa.ArrowException, OSError) as error:
            raise self._fail(f"cannot be read after row {self._rows_read}: {error}") from None

    def _parse(self, row: int, raw: tuple[dict[str, Any], Mapping[str, Any]]) -> Record:
        values, columns = raw
        for name, value in values.items():
            if isinstance(value, UnicodeDecodeError):
                raise BadRowError(f"column {name!r} is not UTF-8: byte 0x{value.object[value.start]:02x}")
        return record_of(row, self._selection, values, columns)

    def _check_types(self, strings: list[str]) -> None:
        """Refuses columns that cannot play their role, whatever the rows hold."""
        chosen = self._selection
        for name in (chosen.text, chosen.pair):
            if name is not None and name not in strings:
                raise UsageError(
                    f"{self._source.name}: column {name!r} holds {self._schema.field(name).type}, not strings; those "
                    "with strings are " + (", ".join(map(repr, strings)) or "none")
                )
        for name, fits, kind in (
            (chosen.words, _is_list_of_strings, "lists of strings"),
            (chosen.spans, _is_list_of_ranges, "lists of [begin, end] pairs or objects"),
        ):
            if name is not None and not fits(self._schema.field(name).type):
                fitting = [field.name for field in self._schema if fits(field.type)]
                raise UsageError(
                    f"{self._source.name}: column {name!r} holds {self._schema.field(name).type}, not {kind}; those "
                    "with them are " + (", ".join(map(repr, fitting)) or "none")
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


def _is_list_of_strings(type_: pa.DataType) -> bool:
    return _is_list(type_) and _is_string(type_.value_type)


def _is_list_of_ranges(type_: pa.DataType) -> bool:
    """Whether rows may hold ranges; each of them is checked when it is read."""
    import pyarrow as pa

    if not _is_list(type_):
        return False
    range_ = type_.value_type
    if pa.types.is_struct(range_):
        return {"end"} < {range_.field(i).name for i in range(range_.num_fields)}
    # a column of empty lists only has no type for what is in them
    return pa.types.is_null(range_) or (_is_list(range_) and pa.types.is_integer(range_.value_type))


def _is_list(type_: pa.DataType) -> bool:
    import pyarrow as pa

    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(is_kind(type_) for is_kind in kinds)


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
