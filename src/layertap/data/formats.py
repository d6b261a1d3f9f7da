"""The table of formats, and the two doors of this room: `open_reader` and `open_writer`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layertap.data.readers.base import OnError, Reader, ReadOptions
from layertap.data.readers.source import Source
from layertap.data.writers.base import Writer, WriterOptions
from layertap.data.writers.companions import error_list_place, offsets_place, provenance_place
from layertap.errors import InputError, OptionError
from layertap.files import StagedOutput, check_place
from layertap.records import FeatureSchema

if TYPE_CHECKING:
    import pyarrow as pa

STANDARD_OUTPUT = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadFormat:
    """A row of the table of readers.

    Attributes:
        name: what a user calls it.
        suffixes: endings of file names; with `.gz` after them where `gzipped`.
        reader: `module:class` in `layertap.data.readers`.
        streamed: whether it can come from standard input.
    """

    name: str
    suffixes: tuple[str, ...]
    reader: str
    streamed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteFormat:
    """A row of the table of writers.

    Attributes:
        name: what a user calls it.
        suffixes: endings of file names.
        writer: `module:class` in `layertap.data.writers`.
        holds_rows: whether the file has the records' row numbers and ids beside the features.
        holds_columns: whether it has the carried columns.
        sidecar: whether provenance goes to `<output>.provenance.json` because the file has no place for it.
        offsets: whether where ragged records end goes to `<stem>.offsets<ending>` for the same reason.
        streamed: whether it can go to standard output.
        spilled: whether its arrays are written to files of their own first.
    """

    name: str
    suffixes: tuple[str, ...]
    writer: str
    holds_rows: bool = True
    holds_columns: bool = False
    sidecar: bool = False
    offsets: bool = False
    streamed: bool = False
    spilled: bool = False


READ_FORMATS: dict[str, ReadFormat] = {
    row.name: row
    for row in (
        ReadFormat(name="txt", suffixes=(".txt", ".text"), reader="txt:TxtReader"),
        ReadFormat(name="jsonl", suffixes=(".jsonl", ".ndjson"), reader="jsonl:JsonlReader"),
        ReadFormat(name="csv", suffixes=(".csv",), reader="delimited:CsvReader"),
        ReadFormat(name="tsv", suffixes=(".tsv", ".tab"), reader="delimited:TsvReader"),
        ReadFormat(name="parquet", suffixes=(".parquet", ".pq"), reader="parquet:ParquetReader", streamed=False),
        ReadFormat(name="conll", suffixes=(".conll", ".conll2003", ".iob", ".bio"), reader="conll:ConllReader"),
        ReadFormat(name="conllu", suffixes=(".conllu",), reader="conllu:ConlluReader"),
    )
}

WRITE_FORMATS: dict[str, WriteFormat] = {
    row.name: row
    for row in (
        WriteFormat(name="parquet", suffixes=(".parquet", ".pq"), writer="parquet:ParquetWriter", holds_columns=True),
        WriteFormat(
            name="safetensors", suffixes=(".safetensors",), writer="safetensors:SafetensorsWriter", spilled=True
        ),
        WriteFormat(
            name="npy", suffixes=(".npy",), writer="npy:NpyWriter", holds_rows=False, sidecar=True, offsets=True
        ),
        WriteFormat(name="npz", suffixes=(".npz",), writer="npz:NpzWriter", spilled=True),
        WriteFormat(
            name="jsonl",
            suffixes=(".jsonl", ".ndjson"),
            writer="jsonl:JsonlWriter",
            holds_columns=True,
            sidecar=True,
            streamed=True,
        ),
    )
}


def open_reader(
    source: str | os.PathLike[str],
    *,
    format: str | None = None,  # noqa: A002 - the word of every tool of this kind
    text_column: str | None = None,
    words_column: str | None = None,
    pair_column: str | None = None,
    spans_column: str | None = None,
    id_column: str | None = None,
    columns: Sequence[str] | None = None,
    on_error: OnError = "raise",
    max_errors: int | None = None,
) -> Reader:
    """Opens an input.

    Args:
        source: a file, or `-` for standard input. Text formats may be gzipped (`.jsonl.gz`).
        format: a name of `READ_FORMATS`; None: by the file's ending, txt for standard input.
        text_column: the column with the texts; None: `text`. (conllu: `text` takes the raw sentences, words as spans.)
        words_column: a column with lists of words (jsonl, parquet); they are the text then, with a space between,
            and there is no text column. conll and conllu have words in any case: column 0, `form`.
        pair_column: a column with second texts.
        spans_column: a column with character ranges of the text (jsonl, parquet): lists of [begin, end], or of
            objects with `begin` (or `start`) and `end`; `begin < end <= len(text)`, in Unicode characters.
        id_column: the column with the ids (strings or whole numbers); None: `id` where there is one.
        columns: other columns to carry to the output; None: all but the texts. Naming the text column
            here carries the texts too. (conll and conllu: see their readers.)
        on_error: `raise` stops at the first row that cannot be read, `skip` lists it in `Reader.errors`.
        max_errors: rows that `skip` bears before it stops too; None: any number.

    Raises:
        InputError: the input cannot be opened, or its first rows cannot be read.
        UsageError: a column that is not there, an unknown format, options that do not go together.
    """
    if isinstance(columns, str):
        raise OptionError(f"columns is the string {columns!r}; give a list of column names")
    options = ReadOptions(
        text_column=text_column,
        words_column=words_column,
        pair_column=pair_column,
        spans_column=spans_column,
        id_column=id_column,
        columns=None if columns is None else tuple(columns),
        on_error=on_error,
        max_errors=max_errors,
    )
    opened = Source(source)  # first: a file that is not there has no format to argue about
    try:
        row = _read_format(opened, format)
        reader = _load("readers", row.reader)(opened, options)
        assert isinstance(reader, Reader)
        return reader
    except BaseException:
        opened.close()
        raise


def check_output(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,  # noqa: A002 - the word of every tool of this kind
    overwrite: bool = False,
    error_list: bool = False,
) -> WriteFormat:
    """Checks an output before any work is done for it, and says which format it will have.

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
        for place in output_places(path, row, error_list=error_list).values():
            check_place(place, overwrite=overwrite)
    return row


def open_writer(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,  # noqa: A002 - the word of every tool of this kind
    schemas: Sequence[FeatureSchema],
    column_types: Mapping[str, pa.DataType | None] | None = None,
    provenance: Mapping[str, Any],
    overwrite: bool = False,
) -> Writer:
    """Opens an output; it appears under its name when `close` has made it whole.

    Args:
        path: the file to make, or `-` for standard output (jsonl only, written as it comes, no provenance).
        format: a name of `WRITE_FORMATS`; None: by the file's ending.
        schemas: the features, in column order.
        column_types: `Reader.column_types`: what the records carry; the key `id` stands for their ids.
        provenance: what the features are, as JSON values; it decides nothing here.
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
    )
    kind = _load("writers", row.writer)
    kind.check(options)
    final = None if os.fspath(path) == STANDARD_OUTPUT else output_file(path)
    places = (*_companions(row).values(), error_list_place)
    writer = kind(StagedOutput(final, companions=places, overwrite=overwrite), options)
    assert isinstance(writer, Writer)
    return writer


def _read_format(source: Source, asked: str | None) -> ReadFormat:
    if asked is not None and asked not in READ_FORMATS:
        raise OptionError(f"there is no input format {asked!r}; there are {', '.join(READ_FORMATS)}")
    if source.path is None:
        row = READ_FORMATS[asked or "txt"]
        if not row.streamed:
            raise OptionError(f"{row.name} cannot be read from standard input; name a file")
        return row
    suffixes = [suffix.lower() for suffix in source.path.suffixes]
    gzipped = suffixes[-1:] == [".gz"]
    ending = (suffixes[:-1] if gzipped else suffixes)[-1:]
    before = suffixes[-2 - gzipped : -1 - gzipped]
    if ending == [".txt"] and before and any(before[0] in READ_FORMATS[name].suffixes for name in ("conll", "conllu")):
        ending = before  # wikigold.conll.txt
    by_name = next((row for row in READ_FORMATS.values() if ending and ending[0] in row.suffixes), None)
    row_or_none = by_name if asked is None else READ_FORMATS[asked]
    if row_or_none is None:
        known = ", ".join(suffix for row in READ_FORMATS.values() for suffix in row.suffixes)
        raise OptionError(
            f"{source.name}: the name does not say the format; name it (one of "
            f"{', '.join(READ_FORMATS)}; --input-format), or let the file end in {known}"
        )
    if gzipped and not row_or_none.streamed:
        raise InputError(f"{source.name}: {row_or_none.name} is not read through gzip; unpack the file")
    return row_or_none


def output_format(path: str | os.PathLike[str], asked: str | None) -> WriteFormat:
    """The format of an output by its name, or the one asked for; raises OptionError where there is none."""
    if asked is not None and asked not in WRITE_FORMATS:
        raise OptionError(f"there is no output format {asked!r}; there are {', '.join(WRITE_FORMATS)}")
    if os.fspath(path) == STANDARD_OUTPUT:
        row = WRITE_FORMATS[asked or "jsonl"]
        if not row.streamed:
            raise OptionError(f"{row.name} cannot be written to standard output; jsonl can")
        return row
    ending = Path(path).suffix.lower()
    by_name = next((row for row in WRITE_FORMATS.values() if ending in row.suffixes), None)
    found = by_name if asked is None else WRITE_FORMATS[asked]
    if found is None:
        known = ", ".join(suffix for row in WRITE_FORMATS.values() for suffix in row.suffixes)
        raise OptionError(
            f"{path}: the name does not say the format; name it (one of "
            f"{', '.join(WRITE_FORMATS)}; --output-format), or let the output end in {known}"
        )
    return found


def output_file(path: str | os.PathLike[str]) -> Path:
    """Returns the file that an output becomes: a link is followed, and what it points to is replaced."""
    return Path(os.path.realpath(path))


def output_places(path: str | os.PathLike[str], row: WriteFormat, *, error_list: bool) -> dict[str, Path]:
    """Returns all files that an output consists of, the output itself first, by what a message calls them.

    Args:
        path: the output.
        row: its format.
        error_list: whether the list of rows that were left out is among them.
    """
    final = output_file(path)
    places = {"the output": final} | {name: place_of(final) for name, place_of in _companions(row).items()}
    return places | ({"the list of errors": error_list_place(final)} if error_list else {})


def _companions(row: WriteFormat) -> dict[str, Callable[[Path], Path]]:
    companions: dict[str, Callable[[Path], Path]] = {}
    if row.sidecar:
        companions["its provenance"] = provenance_place
    if row.offsets:
        companions["its offsets"] = offsets_place
    return companions


def _load(folder: str, target: str) -> Any:
    module, name = target.split(":")
    return getattr(import_module(f"layertap.data.{folder}.{module}"), name)
