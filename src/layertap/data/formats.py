"""Formats: how an output is checked and opened (`data.input` opens inputs), by the tables of `file_formats`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layertap.data.writers.base import Writer, WriterOptions
from layertap.data.writers.companions import error_list_place, offsets_place, provenance_place
from layertap.errors import OptionError
from layertap.file_formats import READ_FORMATS, WRITE_FORMATS, ReadFormat, WriteFormat
from layertap.files import StagedOutput, check_place, refuse_descriptor, resolved
from layertap.records import FeatureSchema

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["READ_FORMATS", "WRITE_FORMATS", "ReadFormat", "WriteFormat", "check_output", "open_writer"]

STANDARD_OUTPUT = "-"
ERROR_LIST = "the list of errors"


def check_output(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,  # noqa: A002 - the word of every tool of this kind
    overwrite: bool = False,
    error_list: bool = False,
) -> WriteFormat:
    """Check an output before any work is done for it, and return its format.

    Args:
        path: the file to make, or `-` for standard output.
        format: a name of `WRITE_FORMATS`; None: by the file's ending.
        overwrite: whether existing files may be replaced.
        error_list: whether rows may be left out, which are listed beside the output.

    Raises:
        OptionError: an unknown format; `-` (standard output) with a format that cannot stream there.
        UsageError: the output exists and `overwrite` is off.
        OutputError: its folder is missing or not writable, or the output is no regular file.
    """
    row = output_format(path, format)
    if os.fspath(path) != STANDARD_OUTPUT:
        refuse_descriptor(path)
        places = output_places(path, row, error_list=True)
        errors = places[ERROR_LIST]
        if not error_list and not (overwrite and os.path.lexists(errors)):
            del places[ERROR_LIST]  # it is neither written nor, as that of an earlier run, removed
        for place in places.values():
            check_place(place, overwrite=overwrite)
    return row


def open_writer(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,  # noqa: A002 - the word of every tool of this kind
    schemas: Sequence[FeatureSchema],
    column_types: Mapping[str, pa.DataType | None] | None = None,
    provenance: Mapping[str, Any],
    constants: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> Writer:
    """Open an output, which appears under its name when `close` has made it whole.

    Args:
        path: the file to make, or `-` for standard output (jsonl only, written as it comes, no provenance).
        format: a name of `WRITE_FORMATS`; None: by the file's ending.
        schemas: the features, in column order.
        column_types: `Reader.column_types`: what the records carry; the key `id` stands for their ids.
        provenance: what the features are, as JSON values; it decides nothing here.
        constants: name -> text of further columns with one value for all records; of Parquet only.
        overwrite: whether an existing output may be replaced.

    Raises:
        UsageError: the output exists; a column named like a feature or like `row`; features or columns
            that the format cannot hold.
        OutputError: the file cannot be made there.
    """
    row = check_output(path, format=format, overwrite=overwrite)
    options = WriterOptions(
        format=row.name,
        schemas=tuple(schemas),
        column_types=dict(column_types or {}),
        provenance=dict(provenance),
        constants=dict(constants or {}),
    )
    assert not options.constants or row.name == "parquet", "constants are columns of Parquet"
    kind = load_format("writers", row.writer)
    kind.check(options)
    final = None if os.fspath(path) == STANDARD_OUTPUT else output_file(path)
    places = (*_companions(row).values(), error_list_place)
    writer = kind(StagedOutput(final, companions=places, overwrite=overwrite), options)
    assert isinstance(writer, Writer)
    return writer


def output_format(path: str | os.PathLike[str], asked: str | None) -> WriteFormat:
    """Return the format asked for, or the one that the output's ending says; raises OptionError if there is none."""
    if asked is not None and asked not in WRITE_FORMATS:
        raise OptionError(f"there is no output format {asked!r}; there are {', '.join(WRITE_FORMATS)}")
    if os.fspath(path) == STANDARD_OUTPUT:
        row = WRITE_FORMATS[asked or "jsonl"]
        if not row.streamed:
            raise OptionError(f"{row.name} cannot be written to standard output; jsonl can")
        return row
    ending = Path(path).suffix.lower()
    by_name = next((row for row in WRITE_FORMATS.values() if ending in row.suffixes), None)
    stated = by_name if asked is None else WRITE_FORMATS[asked]
    if stated is None:
        known = ", ".join(suffix for row in WRITE_FORMATS.values() for suffix in row.suffixes)
        raise OptionError(
            f"{path}: the name does not say the format; name it (one of "
            f"{', '.join(WRITE_FORMATS)}; --output-format), or let the output end in {known}"
        )
    return stated


def output_file(path: str | os.PathLike[str]) -> Path:
    """Return the file that an output becomes: a link is followed, and what it points to is replaced."""
    return resolved(path)


def output_places(path: str | os.PathLike[str], row: WriteFormat, *, error_list: bool) -> dict[str, Path]:
    """Return all files that an output consists of, the output itself first, by what a message calls them.

    Args:
        path: the output, or `-` for standard output, which is all that there is then.
        row: its format.
        error_list: whether the list of rows that were left out is among them.
    """
    if os.fspath(path) == STANDARD_OUTPUT:
        return {"the output": Path(STANDARD_OUTPUT)}
    final = output_file(path)
    places = {"the output": final} | {name: place_of(final) for name, place_of in _companions(row).items()}
    return places | ({ERROR_LIST: error_list_place(final)} if error_list else {})


def _companions(row: WriteFormat) -> dict[str, Callable[[Path], Path]]:
    companions: dict[str, Callable[[Path], Path]] = {}
    if row.sidecar:
        companions["its provenance"] = provenance_place
    if row.offsets:
        companions["its offsets"] = offsets_place
    return companions


def load_format(folder: str, target: str) -> Any:
    """Import the class of a format: `module:class` in the folder `readers` or `writers`."""
    module, name = target.split(":")
    return getattr(import_module(f"layertap.data.{folder}.{module}"), name)
