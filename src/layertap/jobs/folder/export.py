"""Export of a folder of features to one file of any format, shard by shard."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layertap.data.arrow_row import ArrowRow
from layertap.data.folder import (
    FolderContents,
    FolderPlan,
    FolderRoot,
    LocalFiles,
    ShardRecord,
    folder_files,
    folder_root,
    read_contents,
)
from layertap.data.folder.layout import FILE_COLUMN
from layertap.data.folder.remote import RemoteFiles
from layertap.data.forecast import check_space, feature_bytes
from layertap.data.formats import check_output, open_writer, output_format, output_places
from layertap.data.remote import is_remote
from layertap.data.store.folder import open_shard
from layertap.errors import InputError, UsageError, printable
from layertap.files import refuse_overlap, resolved
from layertap.jobs.folder.planning import ID, column_types_of
from layertap.records import FeatureBatch, Record

if TYPE_CHECKING:
    import pyarrow as pa

Watch = Callable[[int], None]
"""Callback of an export: called with the number of records of each block that has been written."""


def export_folder(
    root: FolderRoot,
    output: str | os.PathLike[str],
    *,
    output_format_name: str | None = None,
    overwrite: bool = False,
    partial: bool = False,
    watch: Watch | None = None,
) -> int:
    """Write the features of a folder to one file, in the order of the folder's rows.

    Formats that hold columns get the column `file` with the name of each record's input; the others hold `row`, the row
    in its input, alone.

    Args:
        root: path of the folder.
        output: the file to make, or `-` for standard output.
        output_format_name: a name of `WRITE_FORMATS`; None stands for the format that the output's ending says.
        overwrite: whether files that exist may be replaced.
        partial: whether an unfinished folder is exported as far as it is there.
        watch: function that is called with the number of records of each block.

    Returns:
        Number of records written.

    Raises:
        InputError: no folder of features, an unfinished one, or a shard that is missing or damaged.
        UsageError: an output that exists, stands in the folder or cannot hold the features.
        OutputError: the output cannot be written.
    """
    row = output_format(output, output_format_name)
    if isinstance(root, Path):
        refuse_overlap([root], output_places(output, row, error_list=True))
        if root in resolved(output).parents:
            raise UsageError(f"{printable(output)} would stand in the folder of features; name a file elsewhere")
    check_output(output, format=output_format_name, overwrite=overwrite)
    files = folder_files(root)
    contents = read_contents(files, partial=partial)
    _check_room(contents, output, output_format_name)
    as_values = row.name == "jsonl"
    types: dict[str, pa.DataType | None] = {}
    if row.holds_columns:
        import pyarrow as pa

        types = {FILE_COLUMN: pa.string(), **column_types_of(contents.plan.columns)}
        if not as_values:
            types = {name: pa.string() if kind is None else kind for name, kind in types.items()}
    elif any(column.name == ID for column in contents.plan.columns):
        types = {ID: column_types_of(contents.plan.columns)[ID]}
    with open_writer(
        output,
        format=output_format_name,
        schemas=contents.plan.schemas,
        column_types=types,
        provenance=contents.plan.provenance,
        overwrite=overwrite,
    ) as writer:
        for record in contents.records:
            for batch in _batches(files, contents.plan, record, tuple(types), as_values=as_values):
                writer.write(batch)
                if watch is not None:
                    watch(len(batch))
    return writer.records_written


def _batches(
    files: LocalFiles | RemoteFiles, plan: FolderPlan, record: ShardRecord, carried: tuple[str, ...], *, as_values: bool
) -> Iterator[FeatureBatch]:
    """Yield the records of a shard, a row group at a time."""
    storage = open_shard(files, record)
    has_ids = ID in carried
    columns = [name for name in carried if name != ID]
    json_columns = frozenset(column.name for column in plan.columns if column.arrow is None)
    try:
        begin = 0
        for table in storage.carried_batches(columns):
            end = begin + len(table)
            rows = storage.rows(begin, end).tolist()
            ids = storage.ids(begin, end) if has_ids else [None] * len(rows)
            yield FeatureBatch(
                records=[
                    Record(row=number, text="", id=id_, columns=_columns(table, i, json_columns, as_values=as_values))
                    for i, (number, id_) in enumerate(zip(rows, ids, strict=True))
                ],
                features={schema.name: storage.read(schema.name, begin, end) for schema in plan.schemas},
            )
            begin = end
    finally:
        storage.close()


def _columns(table: pa.RecordBatch, index: int, json_columns: frozenset[str], *, as_values: bool) -> Any:
    if table.schema.names == [""]:
        return {}
    row = ArrowRow(table, index)
    if not as_values:
        return row
    values = dict(row)
    for name in json_columns & values.keys():
        values[name] = None if values[name] is None else json.loads(values[name])
    return values


def _check_room(contents: FolderContents, output: str | os.PathLike[str], format: str | None) -> None:  # noqa: A002
    """Refuse an export that the disk cannot hold; sizes of dense features are known, others are near the shards'."""
    if not contents.records:
        return
    rows = sum(record.rows for record in contents.records)
    stored = sum(record.size for record in contents.records)
    dense = [schema for schema in contents.plan.schemas if not schema.ragged and not schema.maps]
    sizes = [feature_bytes(schema, records=rows, values=0, squares=0) for schema in dense]
    is_known = len(dense) == len(contents.plan.schemas)
    check_space(
        output,
        sum(sizes) if is_known else stored,
        format=format,
        largest_bytes=max(sizes) if is_known and sizes else None,
    )


def check_is_folder(path: str | os.PathLike[str]) -> FolderRoot:
    """Refuse a path at which no folder stands, and return the folder's root.

    Raises:
        UsageError: a file stands there, which needs no export.
        InputError: nothing stands there.
    """
    if is_remote(path):
        return folder_root(path)
    place = Path(path)
    if place.is_file():
        raise UsageError(f"{printable(path)}: this is a file, and `layertap export` takes a folder of features")
    if not place.is_dir():
        raise InputError(f"{printable(path)}: there is no such folder")
    return folder_root(path)
