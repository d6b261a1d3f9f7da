"""Parquet: one record per row, read batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

from layertap.data.arrow_row import ArrowRow
from layertap.data.readers.base import BadRowError, Reader, too_long
from layertap.data.readers.class_names import class_names_of, named_column, named_type
from layertap.data.readers.options import ReadOptions, repeated
from layertap.data.readers.roles import record_of
from layertap.data.readers.selection import ID_COLUMN, listed, select
from layertap.data.readers.source import Source, check_same
from layertap.errors import UsageError, printable
from layertap.records import Record

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 1024
BATCH_BYTES = 8 << 20
MAX_BATCH_BYTES = 256 << 20
"""Most bytes that a batch may unpack to, whatever the rows of a column with a dictionary refer to."""

BUFFER_BYTES = 1 << 20

RawRow: TypeAlias = tuple[dict[str, Any], Mapping[str, Any]]
"""Values of a row's columns that play a role, by name, and its carried columns."""


class ParquetReader(Reader):
    """Reader of texts from a string column; other columns stay Arrow values (`ArrowRow`), so that nothing is lost.

    Whole numbers that stand for classes (`ClassLabel` of the library datasets), alone or in lists, are read as the
    names of the classes, which the file's metadata has.
    """

    opens_anywhere = True
    unit = "row"

    def __init__(self, source: Source, options: ReadOptions) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        super().__init__(source, options)
        if source.path is None or not source.can_be_reread:
            raise self._fail(
                "Parquet ends with its table of contents, so that a pipe cannot be read; write it to a file"
            )
        with self._arrow_errors("this is no readable Parquet file"):
            # Without pre-buffering, pages are read as they are needed: a row group may be larger than memory.
            self._file = pq.ParquetFile(source.for_arrow(), buffer_size=BUFFER_BYTES, pre_buffer=False)
            self._schema = self._file.schema_arrow
            names = self._schema.names
        # Arrow opened the path by itself.
        check_same(source.name, source.state, source.state_now())
        twice = repeated(names)
        if twice:
            raise self._fail(f"column {listed(twice)} stands in it twice")
        strings = [field.name for field in self._schema if _is_string(field.type)]
        self._selection = select(
            options,
            file=source.name,
            available=names,
            texts=strings,
            ids=[*strings, *(field.name for field in self._schema if pa.types.is_integer(field.type))],
        )
        self._check_types(strings)
        named = class_names_of(self._schema)
        self._class_names = {name: named[name] for name in self._selection.columns if name in named}
        self._rows_read = 0

    @property
    def bytes_read(self) -> int:
        """Part of `bytes_total` that has been read, by the share of rows."""
        total: int = self._file.metadata.num_rows
        return round((self.bytes_total or 0) * (self._rows_read / total if total else 1.0))

    @property
    def column_types(self) -> Mapping[str, pa.DataType | None]:
        """Arrow types of the carried columns, as the file states them."""
        chosen = self._selection
        ids = {ID_COLUMN: self._schema.field(chosen.id).type} if chosen.id is not None else {}
        types = {name: self._schema.field(name).type for name in chosen.columns}
        return ids | types | {name: named_type(types[name]) for name in self._class_names}

    def _remarks(self) -> Iterator[str]:
        if self._class_names:
            names = ", ".join(map(repr, self._class_names))
            yield f"the numbers of {names} are read as the names of classes that the file's metadata has"

    def close(self) -> None:
        """Close the file and what Arrow opened."""
        if hasattr(self, "_file"):
            self._file.close()
        super().close()

    def _rows(self) -> Iterator[tuple[int, RawRow | BadRowError]]:
        return self._rows_from(0)[1]

    def _rows_from(self, first: int) -> tuple[int, Iterator[tuple[int, RawRow | BadRowError]]]:
        """Begin with the row group that holds the row: those before it are not read."""
        begin = group = 0
        with self._arrow_errors("its table of contents cannot be read"):
            metadata = self._file.metadata
            while group < metadata.num_row_groups and begin + metadata.row_group(group).num_rows <= first:
                begin += metadata.row_group(group).num_rows
                group += 1
            groups = list(range(group, metadata.num_row_groups))
        return begin, self._rows_of(groups, begin)

    def _rows_of(self, groups: list[int], begin: int) -> Iterator[tuple[int, RawRow | BadRowError]]:
        chosen, limit = self._selection, self._options.max_record_bytes
        roles = replace(chosen, columns=()).wanted
        self._rows_read = begin
        for batch in self._batches(groups):
            with self._arrow_errors(f"cannot be read after row {self._rows_read}"):
                values = [_python_values(batch.column(name)) for name in roles]
                carried, unnamed = self._carried(batch)
                is_large = batch.nbytes > limit
            for i, row in enumerate(zip(*values, strict=True)):
                self._rows_read += 1
                if is_large and _row_bytes(batch, i) > limit:
                    yield self._rows_read, BadRowError(too_long("the row", limit))
                    continue
                if i in unnamed:
                    yield self._rows_read, unnamed[i]
                    continue
                roles_of_row = dict(zip(roles, row, strict=True))
                yield self._rows_read, (roles_of_row, ArrowRow(carried, i) if chosen.columns else {})

    def _carried(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[int, BadRowError]]:
        """Return the carried columns, with the names of classes, and the rows with a class that has none."""
        carried = batch.select(list(self._selection.columns))
        unnamed: dict[int, BadRowError] = {}
        for name, names in self._class_names.items():
            place = carried.schema.get_field_index(name)
            column, unknown = named_column(carried.column(place), names)
            carried = carried.set_column(place, name, column)
            for row, number in unknown.items():
                unnamed[row] = BadRowError(
                    f"column {name!r} is {number}, and the file's metadata names the classes 0 to {len(names) - 1}"
                )
        return carried, unnamed

    def _batches(self, groups: list[int]) -> Iterator[pa.RecordBatch]:
        batches: Iterator[pa.RecordBatch] | None = None
        while True:
            with self._arrow_errors(f"cannot be read after row {self._rows_read}"):
                if batches is None:
                    batches = self._file.iter_batches(
                        batch_size=self._batch_rows(), row_groups=groups, columns=list(self._selection.wanted)
                    )
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    @contextmanager
    def _arrow_errors(self, what: str) -> Iterator[None]:
        """Turn the errors of Arrow into the project's own; a damaged file raises more kinds than it documents."""
        try:
            yield
        except Exception as error:
            reason = " ".join(printable(line.strip()) for line in str(error).splitlines()[:3])
            raise self._fail(f"{what}: {reason or type(error).__name__}") from None

    def _parse(self, row: int, raw: RawRow) -> Record:
        values, columns = raw
        for name, value in values.items():
            if isinstance(value, UnicodeDecodeError):
                raise BadRowError(f"column {name!r} is not UTF-8: byte 0x{value.object[value.start]:02x}")
        return record_of(row, self._selection, values, columns)

    def _check_types(self, strings: list[str]) -> None:
        """Refuse columns that cannot play their role, whatever the rows hold."""
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
        """Return the rows of a batch: few enough for its memory, as far as the table of contents tells."""
        metadata = self._file.metadata
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        rows: int = BATCH_BYTES * metadata.num_rows // max(1, sum(group.total_byte_size for group in groups))
        # A value that is stored once, in a dictionary, may stand in every row, and is as large as its group at most.
        # What a group says of its columns would tell more, but pyarrow aborts the process where that is damaged.
        largest = max((group.total_byte_size for group in groups), default=0)
        return max(1, min(BATCH_ROWS, rows, MAX_BATCH_BYTES // max(1, largest)))


def _is_string(type_: pa.DataType) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    # string views came to pyarrow after its oldest version that layertap runs with
    return pa.types.is_string(type_) or pa.types.is_large_string(type_) or str(type_) == "string_view"


def _is_list_of_strings(type_: pa.DataType) -> bool:
    return _is_list(type_) and _is_string(type_.value_type)


def _is_list_of_ranges(type_: pa.DataType) -> bool:
    """Return whether a column of this type may hold character ranges; each is checked when it is read."""
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


def _row_bytes(batch: pa.RecordBatch, row: int) -> int:
    """Return the bytes of a row; what a dictionary column holds for other rows does not count."""
    import pyarrow as pa

    size = 0
    for column in batch.slice(row, 1).columns:
        values = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
        size += values.nbytes
    return size


def _python_values(column: pa.Array) -> list[Any]:
    """Return the values of a column; a string that is not UTF-8 is replaced by its error."""
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
