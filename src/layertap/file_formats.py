"""The tables of formats that are read and written; loading them loads no reader and no writer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadFormat:
    """Input format: a row of the table of readers.

    Attributes:
        name: what a user calls it.
        suffixes: endings of file names.
        reader: `module:class` in `layertap.data.readers`.
        streamed: whether it can come from standard input, or be compressed.
    """

    name: str
    suffixes: tuple[str, ...]
    reader: str
    streamed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteFormat:
    """Output format: a row of the table of writers.

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
        ReadFormat(name="jsonl", suffixes=(".jsonl", ".ndjson", ".json"), reader="jsonl:JsonlReader"),
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
