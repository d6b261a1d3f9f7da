"""An input as a value: where it is, which format it has, and what to take from it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields

from layertap.data.formats import READ_FORMATS, ReadFormat, load_format
from layertap.data.readers.base import READING_ERRORS, Reader, in_words
from layertap.data.readers.compression import compression_named
from layertap.data.readers.options import OnError, Quoting, ReadOptions, Records
from layertap.data.readers.source import FileState, Source, can_be_reread, name_of
from layertap.errors import InputError, OptionError
from layertap.files import identity
from layertap.records import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """An input that can be opened: a file or standard input, its format, and what to take from it.

    Attributes:
        source: a file, or `-` for standard input. Text formats may be compressed (gzip, bzip2, xz, zstd).
        format: a name of `READ_FORMATS`; None stands for the format that the file's ending says, and for txt on
            standard input.
        options: what to take from the input, and what to do with rows that cannot be read.
    """

    source: str | os.PathLike[str]
    format: str | None = None
    options: ReadOptions = field(default_factory=ReadOptions)

    @property
    def name(self) -> str:
        """Name of the input for messages."""
        return name_of(self.source)

    @property
    def can_be_reread(self) -> bool:
        """Whether the input can be opened more than once: a regular file can, a pipe and standard input cannot."""
        return can_be_reread(self.source)

    def open(self, rows: range | None = None) -> Reader:
        """Open the input for reading.

        Args:
            rows: 0-based numbers of the rows to read, bad rows counted too; None stands for all. Parquet begins with
                the row group that holds the first of them; other formats read what comes before, and drop it.

        Raises:
            InputError: the input cannot be opened, or its first rows cannot be read.
            UsageError: a column that is not there, an unknown format, options that do not go together.
        """
        source = Source(
            self.source, encoding=self.options.encoding
        )  # first: a file that is not there has no format to argue about
        try:
            row = _read_format(source, self.format)
            _check_options(source.name, row, self.options)
            reader = load_format("readers", row.reader)(source, self.options)
            assert isinstance(reader, Reader)
            reader.restrict(rows)
            return reader
        except READING_ERRORS as error:
            source.close()
            raise InputError(f"{source.name}: its first rows cannot be read: {in_words(error)}") from None
        except BaseException:
            source.close()
            raise


class RepeatedInput(Iterable[Record]):
    """Records of a file, from the first each time they are iterated over.

    Every reading is compared with the first one: the same file, of the same size and time of change.

    Args:
        source: the input to read.

    Raises:
        OptionError: the input is a pipe, a device or standard input, which can be read once only.
    """

    def __init__(self, source: Input) -> None:
        if not source.can_be_reread:
            raise OptionError(
                f"{source.name} can be read once only, and these records are read more than once; write them to a file "
                "first, and name that"
            )
        self.source = source
        self._state: FileState | None = None

    def __iter__(self) -> Iterator[Record]:
        return (record for _, record in self.located())

    def located(self) -> Iterator[tuple[str, Record]]:
        """Yield each record with its place in the file, for example `line 7`."""
        with self.open() as reader:
            yield from reader.located()

    def open(self) -> Reader:
        """Open the file for one reading.

        Raises:
            InputError: the file cannot be opened, or is not as the first reading saw it.
        """
        reader = self.source.open()
        try:
            if self._state is not None:
                reader.check_same(self._state)
        except BaseException:
            reader.close()
            raise
        self._state = reader.state
        return reader


def check_read_once(sources: Iterable[str | os.PathLike[str]]) -> None:
    """Refuse a pipe, a device or standard input that is named more than once, as it can be read once only.

    Raises:
        OptionError: two names stand for the same one.
    """
    seen: dict[tuple[int, int], str] = {}
    for source in sources:
        if can_be_reread(source):
            continue
        place = identity(source)
        if place is None:
            continue
        if place in seen:
            raise OptionError(
                f"{seen[place]} and {name_of(source)} are the same input, which can be read once only; write it to a "
                "file first, and name that"
            )
        seen[place] = name_of(source)


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
    delimiter: str | None = None,
    quoting: Quoting | None = None,
    header: bool = True,
    records: Records | None = None,
    encoding: str | None = None,
    on_error: OnError = "raise",
    max_errors: int | None = None,
    max_record_bytes: int | None = None,
) -> Reader:
    """Open a file or standard input for reading.

    Args:
        source: a file, or `-` for standard input. Text formats may be compressed (gzip, bzip2, xz, zstd).
        format: a name of `READ_FORMATS`; None stands for the format that the file's ending says, and for txt on
            standard input.
        text_column: the column with the texts; None stands for `text`. (conllu: `text` takes the raw sentences, with
            words as spans.)
        words_column: a column with lists of words (jsonl, parquet); they are the text then, with a space between,
            and there is no text column. conll and conllu have words in any case: column 0, `form`.
        pair_column: a column with second texts.
        spans_column: a column with character ranges of the text (jsonl, parquet): lists of [begin, end], or of
            objects with `begin` (or `start`) and `end`; `begin < end <= len(text)`, in Unicode characters.
        id_column: the column with the ids (strings or whole numbers); None stands for `id` if there is one.
        columns: other columns to carry to the output; None stands for all but the texts. Naming the text column
            here carries the texts too. (conll and conllu: see their readers.)
        delimiter: character between two fields of a table (csv, tsv), or its name: `tab`, `comma`, `semicolon`, `pipe`
            or `space`; None: as the first part of the file shows it.
        quoting: `minimal` if fields of a table may stand in quotation marks (RFC 4180), `none` if these are ordinary
            characters; None: as the first part of the file shows it.
        header: whether the first row of a table names its columns; without, they are `col0`, `col1`, ...
        records: a record of a txt file: a `line`, a `paragraph` (lines between empty lines) or the whole `file`, whose
            name is the id then; None stands for `line`.
        encoding: encoding of a text file, as Python names it (`latin-1`, `gb18030`, `utf-16`, ...); None stands for
            UTF-8. A byte order mark overrides it.
        on_error: `raise` stops at the first row that cannot be read, `skip` lists it in `Reader.errors`.
        max_errors: number of rows that `skip` tolerates before it stops too; None tolerates any number.
        max_record_bytes: size of the longest record that is read, in bytes of the uncompressed input; None stands for
            64 MiB. A longer one is a row that cannot be read.

    Raises:
        InputError: the input cannot be opened, or its first rows cannot be read.
        UsageError: a column that is not there, an unknown format, options that do not go together.
    """
    options = read_options(
        text_column=text_column,
        words_column=words_column,
        pair_column=pair_column,
        spans_column=spans_column,
        id_column=id_column,
        columns=columns,
        delimiter=delimiter,
        quoting=quoting,
        header=header,
        records=records,
        encoding=encoding,
        on_error=on_error,
        max_errors=max_errors,
        max_record_bytes=max_record_bytes,
    )
    return Input(source=source, format=format, options=options).open()


def read_options(
    *,
    text_column: str | None = None,
    words_column: str | None = None,
    pair_column: str | None = None,
    spans_column: str | None = None,
    id_column: str | None = None,
    columns: Sequence[str] | None = None,
    delimiter: str | None = None,
    quoting: Quoting | None = None,
    header: bool = True,
    records: Records | None = None,
    encoding: str | None = None,
    on_error: OnError = "raise",
    max_errors: int | None = None,
    max_record_bytes: int | None = None,
) -> ReadOptions:
    """Build `ReadOptions` from the arguments of `open_reader`.

    Raises:
        UsageError: options that do not go together.
    """
    if isinstance(columns, str):
        raise OptionError(f"columns is the string {columns!r}; give a list of column names")
    more = {} if max_record_bytes is None else {"max_record_bytes": max_record_bytes}
    return ReadOptions(
        text_column=text_column,
        words_column=words_column,
        pair_column=pair_column,
        spans_column=spans_column,
        id_column=id_column,
        columns=None if columns is None else tuple(columns),
        delimiter=delimiter,
        quoting=quoting,
        header=header,
        records=records,
        encoding=encoding,
        on_error=on_error,
        max_errors=max_errors,
        **more,
    )


def _read_format(source: Source, asked: str | None) -> ReadFormat:
    """Return the format asked for, or the one that a file's name says."""
    if asked is not None and asked not in READ_FORMATS:
        raise OptionError(f"there is no input format {asked!r}; there are {', '.join(READ_FORMATS)}")
    if source.path is None:
        row = READ_FORMATS[asked or "txt"]
        if not row.streamed:
            raise OptionError(f"{row.name} cannot be read from standard input; name a file")
        return row
    suffixes = [suffix.lower() for suffix in source.path.suffixes]
    compressed = bool(suffixes) and compression_named(suffixes[-1]) is not None
    ending = (suffixes[:-1] if compressed else suffixes)[-1:]
    before = suffixes[-2 - compressed : -1 - compressed]
    if ending == [".txt"] and before and any(before[0] in READ_FORMATS[name].suffixes for name in ("conll", "conllu")):
        ending = before  # wikigold.conll.txt
    by_name = next((row for row in READ_FORMATS.values() if ending and ending[0] in row.suffixes), None)
    row_or_none = by_name if asked is None else READ_FORMATS[asked]
    if row_or_none is None:
        source.stream  # noqa: B018 - an archive or a document has no format to name: this says what it is
        known = ", ".join(suffix for row in READ_FORMATS.values() for suffix in row.suffixes)
        raise OptionError(
            f"{source.name}: the name does not say the format; name it (one of "
            f"{', '.join(READ_FORMATS)}; --input-format), or let the file end in {known}"
        )
    if compressed and not row_or_none.streamed:
        raise InputError(f"{source.name}: {row_or_none.name} is not read compressed ({suffixes[-1]}); unpack the file")
    return row_or_none


def _check_options(name: str, row: ReadFormat, options: ReadOptions) -> None:
    """Refuse options that the format does not have."""
    for own in fields(ReadOptions):
        formats = own.metadata.get("formats")
        if formats is None or row.name in formats or getattr(options, own.name) == own.default:
            continue
        flag = "--no-header" if own.name == "header" else f"--{own.name}"
        raise OptionError(
            f"{name} is read as {row.name}, and {flag} is an option of {', '.join(formats)}; leave it out, or name the "
            f"format (--input-format {formats[0]})"
        )
