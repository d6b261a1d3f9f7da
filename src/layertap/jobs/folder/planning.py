"""Making a plan: every input is read once, its rows are counted, and the columns of all of them get one schema."""

from __future__ import annotations

import base64
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, islice
from typing import TYPE_CHECKING

from layertap.data.folder import FolderPlan, PlannedColumn, PlannedInput, PlannedShard
from layertap.data.inputs import InputFile, InputSet
from layertap.data.json_types import arrow_type, merge
from layertap.data.survey import SAMPLE_TEXTS
from layertap.engine.forecast import Forecast
from layertap.engine.streaming import Streams
from layertap.engine.variants import lengths_of
from layertap.errors import InputError, OptionError, UsageError
from layertap.features.naming import Features
from layertap.jobs.folder.digest import RecordDigest
from layertap.jobs.folder.request import FolderRequest
from layertap.records import FeatureSchema, Record

if TYPE_CHECKING:
    import pyarrow as pa

ID = "id"
JSON = "json"

MOST_SHARD_RECORDS = 1 << 14
"""Default number of records of a shard; fewer where results are large."""

SHARD_BYTES = 256_000_000
"""Forecast size that a shard of the default number of records stays under."""

SAMPLE_CHARACTERS = 1 << 21
"""Characters of the first texts that a forecast tokenizes, which takes about a second."""

Watch = Callable[[str, int], None]
"""Callback of a planning run: called with the name of an input and the number of rows that have been read."""

ROWS_BETWEEN_REPORTS = 1 << 16

SHOWN_NOTES = 5
"""Remarks on inputs that are shown."""


@dataclass(slots=True, kw_only=True)
class SurveyedInput:
    """Facts about an input that one reading of it gives.

    Attributes:
        planned: the input as the plan has it.
        types: Arrow types of the carried columns in order, where the format states them; None for JSON text.
        kinds: kinds of the carried JSON values in order, where the rows decide the types.
        digests: digests of the rows of each shard, if they were asked for.
        notes: remarks of the reader.
    """

    planned: PlannedInput
    types: Mapping[str, pa.DataType | None] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)
    digests: Sequence[str] = ()
    notes: Sequence[str] = ()


def survey_input(
    file: InputFile, *, shard_records: int, with_digests: bool = False, watch: Watch | None = None
) -> SurveyedInput:
    """Read an input through, and return what a plan states of it.

    Raises:
        InputError: a row that cannot be read, or a file that changes meanwhile.
        UsageError: a column that is not there.
    """
    digests = [RecordDigest()]
    count = 0
    with file.input.open() as reader:
        kinds = reader.initial_kinds()
        types = {} if kinds is not None else dict(reader.column_types)
        last = -1
        for records, record in enumerate(reader, start=1):
            last = record.row
            if kinds is not None:
                reader.add_kinds(kinds, record)
            if with_digests:
                while record.row >= len(digests) * shard_records:
                    digests.append(RecordDigest())
                digests[-1].add(record)
            if watch is not None and records % ROWS_BETWEEN_REPORTS == 0:
                watch(file.name, records)
        errors, notes = reader.errors, reader.notes
        count = max(last, errors[-1].row if errors else -1) + 1
    if with_digests:
        while count > len(digests) * shard_records:
            digests.append(RecordDigest())
        for error in errors:
            digests[error.row // shard_records].add_error(error.row, error.reason)
    planned = PlannedInput(
        name=file.name, size=file.size, stamp=file.stamp, sha256=file.sha256(), rows=count, errors=len(errors)
    )
    file.check_unchanged()
    return SurveyedInput(
        planned=planned,
        types=types,
        kinds=kinds or {},
        notes=notes,
        digests=[digest.hexdigest() for digest in digests] if with_digests and count else (),
    )


def _show_notes(notes: Sequence[str]) -> None:
    """Show the first remarks on the inputs, and how many more there are."""
    for note in notes[:SHOWN_NOTES]:
        warnings.warn(note, UserWarning, stacklevel=3)
    if len(notes) > SHOWN_NOTES:
        warnings.warn(f"{len(notes) - SHOWN_NOTES:,} more notes of this kind", UserWarning, stacklevel=3)


def make_plan(
    request: FolderRequest, inputs: InputSet, streams: Streams, features: Features | None, *, watch: Watch | None = None
) -> FolderPlan:
    """Read all inputs once, and return the plan of a new folder.

    Args:
        request: what the run asks for.
        inputs: the inputs.
        streams: what will compute the results.
        features: the features, as for `streams`.
        watch: function that is called while inputs are read.

    Raises:
        InputError: a row that cannot be read, or no inputs.
        UsageError: columns of two inputs, or a column and a result, that do not go together.
    """
    shard_records = request.shard_records
    if shard_records is None:
        sample = Sample.of(inputs, streams, features)
        shard_records = sample.shard_records(request.schemas)
    surveys = [survey_input(file, shard_records=shard_records, watch=watch) for file in inputs]
    _show_notes([note for survey in surveys for note in survey.notes])
    columns = columns_of(surveys)
    check_columns(columns, request.schemas)
    shards: list[PlannedShard] = []
    for survey in surveys:
        shards += cut_input(survey.planned, shard_records, first_number=len(shards))
    return FolderPlan(
        provenance=request.provenance,
        schemas=request.schemas,
        details=request.details,
        columns=columns,
        reading=request.reading,
        libraries=request.libraries,
        bits=request.bits,
        shard_records=shard_records,
        inputs=tuple(survey.planned for survey in surveys),
        shards=tuple(shards),
        next_number=len(shards),
    )


def cut_input(planned: PlannedInput, shard_records: int, *, first_number: int) -> Iterator[PlannedShard]:
    """Yield the shards of an input."""
    begins = range(0, planned.rows, shard_records)
    for number, begin in enumerate(begins, start=first_number):
        yield PlannedShard(number=number, input=planned.name, begin=begin, end=min(begin + shard_records, planned.rows))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Lengths of the first texts of the inputs, from which sizes are forecast.

    Attributes:
        lengths: tokens of each text, as the features see it.
    """

    lengths: tuple[int, ...]

    @classmethod
    def of(cls, inputs: InputSet, streams: Streams, features: Features | None) -> Sample:
        """Tokenize the first texts of the inputs.

        Raises:
            InputError: an input cannot be read.
        """
        windows = streams.semantics.long == "window"
        longest = max(seen.max_length for seen in streams.plan(features).inputs)
        records = list(islice(first_records(inputs), SAMPLE_TEXTS))
        characters = accumulate(len(record.text) + len(record.pair or "") for record in records)
        within = sum(total <= SAMPLE_CHARACTERS for total in characters)
        lengths = lengths_of(streams.tokenizer, records[: max(1, within)]) if records else []
        return cls(lengths=tuple(lengths if windows else (min(length, longest) for length in lengths)))

    def forecast(self, schemas: Sequence[FeatureSchema], *, num_records: int) -> Forecast:
        """Return the forecast size of the results of some records."""
        if not self.lengths:
            return Forecast.of(schemas, [], num_records=0)
        return Forecast.of(schemas, self.lengths, num_records=num_records)

    def tokens(self, num_records: int) -> int:
        """Estimate the number of tokens of some records."""
        return round(num_records * sum(self.lengths) / len(self.lengths)) if self.lengths else 0

    def shard_records(self, schemas: Sequence[FeatureSchema]) -> int:
        """Return the default number of records of a shard: the largest power of two whose forecast is small enough."""
        records = MOST_SHARD_RECORDS
        while records > 1 and self.forecast(schemas, num_records=records).total > SHARD_BYTES:
            records //= 2
        return records


def first_records(inputs: InputSet) -> Iterator[Record]:
    """Yield the records of all inputs, in order, for those who look at the first ones only."""
    for file in inputs:
        with file.input.open() as reader:
            yield from reader


def check_shard_records(number: int) -> int:
    """Check a number of records that a user gave, and return it.

    Raises:
        OptionError: the number is not a whole number of at least 1.
    """
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise OptionError(f"shard_records {number!r} (--shard-records): expected a whole number of at least 1")
    return number


def columns_of(surveys: Iterable[SurveyedInput], before: Sequence[PlannedColumn] = ()) -> tuple[PlannedColumn, ...]:
    """Give the carried columns of all inputs one schema; ids come first, the others in the order of the inputs.

    Args:
        surveys: what was read of the inputs.
        before: columns of a plan whose other inputs are not read again.

    Raises:
        UsageError: a column that has different types in two inputs.
    """
    surveys = list(surveys)
    kinds = {column.name: column.kind for column in before if column.kind is not None}
    for survey in surveys:
        for name, kind in survey.kinds.items():
            kinds[name] = merge(kinds.get(name, "null"), kind)
    types: dict[str, pa.DataType | None] = {}
    sources: dict[str, str] = {}

    def add(name: str, own: pa.DataType | None, source: str) -> None:
        if name in types and types[name] != own:
            raise UsageError(
                f"column {name!r} holds {_type_name(own)} in {source} and {_type_name(types[name])} in "
                f"{sources[name]}, and a folder has one type for it; leave the column out (name those to carry: "
                "--columns), or write the inputs alike"
            )
        types[name] = own
        sources.setdefault(name, source)

    for column in before:
        add(column.name, type_of(column), "the folder")
    for survey in surveys:
        for name, own in survey.types.items():
            add(name, own, survey.planned.name)
    for survey in surveys:
        for name in survey.kinds:
            # Values that are all null fit any type.
            if kinds[name] != "null" or name not in types:
                add(name, arrow_type(kinds[name]), survey.planned.name)
    names = sorted(types, key=lambda name: name != ID)
    return tuple(
        PlannedColumn(name=name, type=_type_name(types[name]), arrow=_encoded(types[name]), kind=kinds.get(name))
        for name in names
    )


def check_columns(columns: Sequence[PlannedColumn], schemas: Sequence[FeatureSchema]) -> None:
    """Refuse columns that cannot stand beside the results in one file.

    Raises:
        UsageError: a column with the name of a result, or of a column that the shards have anyway.
    """
    from layertap.data.folder.layout import FILE_COLUMN
    from layertap.data.writers.base import WriterOptions
    from layertap.data.writers.parquet import ParquetWriter

    ParquetWriter.check(
        WriterOptions(
            format="parquet",
            schemas=tuple(schemas),
            column_types=column_types_of(columns),
            provenance={},
            constants={FILE_COLUMN: ""},
        )
    )


def column_types_of(columns: Iterable[PlannedColumn]) -> dict[str, pa.DataType | None]:
    """Return the Arrow types of planned columns by name, as writers take them; None for JSON text."""
    return {column.name: type_of(column) for column in columns}


def type_of(column: PlannedColumn) -> pa.DataType | None:
    """Return the Arrow type of a planned column; None for JSON text.

    Raises:
        InputError: the plan states no type that can be read.
    """
    import pyarrow as pa

    if column.arrow is None:
        return None
    try:
        return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(column.arrow))).field(0).type
    except (ValueError, pa.ArrowException, OSError) as error:
        raise InputError(f"the plan's column {column.name!r} has a type that cannot be read ({error})") from None


def with_stamps(plan: FolderPlan, inputs: InputSet) -> FolderPlan:
    """Return a plan with the times of its inputs as they are now."""
    stamps = {file.name: file.stamp for file in inputs}
    return replace(plan, inputs=tuple(replace(own, stamp=stamps.get(own.name, own.stamp)) for own in plan.inputs))


def _encoded(kind: pa.DataType | None) -> str | None:
    import pyarrow as pa

    if kind is None:
        return None
    return base64.b64encode(pa.schema([pa.field("c", kind)]).serialize().to_pybytes()).decode("ascii")


def _type_name(kind: pa.DataType | None) -> str:
    return JSON if kind is None else str(kind)
