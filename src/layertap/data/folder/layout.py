"""Layout of a folder of features: the names of its files, and the plan, the records and the manifest as values.

    features/
      layertap.json                                   the plan: what is computed, from which inputs, in which shards
      data/shard-000017-<16 hex of sha256>.parquet    the features of a shard
      records/shard-000017.json                       the record of a shard: which file counts, and what is in it
      errors/shard-000017.jsonl                       rows of a shard that were left out
      log/                                            attempts, times and hosts
      manifest.json                                   all records together, once the folder is complete

Records and the manifest hold only what follows from the plan and the inputs, so that equal runs give equal bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

from layertap.data.folder.fields import Fields, as_json
from layertap.errors import InputError, printable
from layertap.records import FeatureSchema

VERSION = 1
"""Version of this layout; a folder of another version is refused."""

PLAN = "layertap.json"
MANIFEST = "manifest.json"
DATA = "data"
RECORDS = "records"
ERRORS = "errors"
LOG = "log"

FILE_COLUMN = "file"
"""Name of the column of every shard with the name of the input, beside `row`, the row in it."""

DIGITS = 6
HASH_DIGITS = 16


def shard_stem(number: int) -> str:
    """Return the beginning of the names of a shard's files: `shard-000017`."""
    return f"shard-{number:0{DIGITS}}"


def data_name(number: int, sha256: str) -> str:
    """Return the name of a shard's Parquet file in the folder `data`, which follows from its content."""
    return f"{shard_stem(number)}-{sha256[:HASH_DIGITS]}.parquet"


def record_place(number: int) -> str:
    """Return the place of a shard's record in the folder."""
    return f"{RECORDS}/{shard_stem(number)}.json"


def errors_place(number: int) -> str:
    """Return the place of the list of a shard's rows that were left out."""
    return f"{ERRORS}/{shard_stem(number)}.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedInput:
    """One input of a plan.

    Attributes:
        name: path relative to the root of the inputs, which the column `file` holds.
        size: bytes as stored.
        stamp: time of the last change, or the etag of a remote file; it only decides whether the file is hashed again.
        sha256: hexadecimal hash of the file as stored.
        rows: number of rows, those that cannot be read included.
        errors: number of rows that cannot be read.
    """

    name: str
    size: int
    stamp: str
    sha256: str
    rows: int
    errors: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedShard:
    """One shard of a plan: consecutive rows of one input.

    Attributes:
        number: number of the shard, from which the names of its files follow; numbers are never used twice.
        input: name of its input.
        begin, end: rows of the input, from 0; bad rows count.
    """

    number: int
    input: str
    begin: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedColumn:
    """One column that records carry to the shards.

    Attributes:
        name: name of the column; `id` stands for the records' ids.
        type: name of its Arrow type, or `json` for values that are written as JSON text.
        arrow: the Arrow type, serialised and in base64; None for JSON text.
        kind: kind of all JSON values seen so far (`layertap.data.json_types`), or None if no JSON input has the column.
    """

    name: str
    type: str
    arrow: str | None
    kind: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderPlan:
    """Everything that a folder's content follows from.

    Attributes:
        provenance: model, features and options that change results, as JSON values; every shard states it too.
        schemas: schemas of all results in column order, features first, then details.
        details: names of the details.
        columns: columns that records carry, in the order of the shards' columns.
        reading: options for reading that change what is read, as JSON values.
        libraries: versions of the libraries that results or bytes depend on.
        bits: number that is raised when a version of layertap changes results or bytes.
        shard_records: rows of a shard; the last one of an input may have fewer.
        inputs: the inputs, in the order of the rows.
        shards: the shards, in the order of the rows.
        next_number: number of the next new shard.
    """

    provenance: Mapping[str, Any]
    schemas: tuple[FeatureSchema, ...]
    details: tuple[str, ...]
    columns: tuple[PlannedColumn, ...]
    reading: Mapping[str, Any]
    libraries: Mapping[str, str]
    bits: int
    shard_records: int
    inputs: tuple[PlannedInput, ...]
    shards: tuple[PlannedShard, ...]
    next_number: int

    def to_bytes(self) -> bytes:
        """Return the content of `layertap.json`."""
        values = {"layertap_folder": VERSION, **asdict(self)}
        return as_json(values)

    @classmethod
    def from_bytes(cls, content: bytes, file: str) -> FolderPlan:
        """Parse the content of `layertap.json`.

        Raises:
            InputError: the content is damaged, or of another version.
        """
        fields = Fields.parse(content, file)
        _check_version(fields)
        plan = cls(
            provenance=fields.mapping("provenance"),
            schemas=tuple(map(_schema, fields.objects("schemas"))),
            details=fields.texts("details"),
            columns=tuple(map(_column, fields.objects("columns"))),
            reading=fields.mapping("reading"),
            libraries={name: str(version) for name, version in fields.mapping("libraries").items()},
            bits=fields.count("bits"),
            shard_records=fields.count("shard_records"),
            inputs=tuple(map(_input, fields.objects("inputs"))),
            shards=tuple(map(_shard, fields.objects("shards"))),
            next_number=fields.count("next_number"),
        )
        _check_shards(plan, fields)
        return plan

    @property
    def digest(self) -> str:
        """Hexadecimal sha256 of everything that records follow from: times and the version of layertap do not count."""
        provenance = {name: value for name, value in self.provenance.items() if name != "layertap"}
        inputs = tuple(replace(own, stamp="") for own in self.inputs)
        values = asdict(replace(self, provenance=provenance, inputs=inputs))
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode("ascii")).hexdigest()

    @property
    def rows(self) -> int:
        """Number of rows of all inputs, those that cannot be read included."""
        return sum(own.rows for own in self.inputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRecord:
    """Record of a finished shard: which file counts, and what it holds.

    Attributes:
        number: number of the shard.
        input: name of its input.
        begin, end: rows of the input.
        file: name of the Parquet file that counts, in the folder `data`.
        rows: number of records in the file.
        size: bytes of the file.
        sha256: hexadecimal hash of the file.
        digest: hexadecimal hash of what was read: rows, texts, pairs, words, spans, ids and carried columns.
        tokens: tokens of the texts, special tokens included.
        counts: further counts of the texts, such as those that were cut, as JSON values.
        errors: number of rows that were left out.
        errors_sha256: hexadecimal hash of their list in the folder `errors`, or None if there are none.
    """

    number: int
    input: str
    begin: int
    end: int
    file: str
    rows: int
    size: int
    sha256: str
    digest: str
    tokens: int
    counts: Mapping[str, Any]
    errors: int
    errors_sha256: str | None

    @property
    def place(self) -> str:
        """Place of the Parquet file in the folder."""
        return f"{DATA}/{self.file}"

    def is_of(self, shard: PlannedShard) -> bool:
        """Return whether the record is that of a shard of a plan."""
        return (self.number, self.input, self.begin, self.end) == (shard.number, shard.input, shard.begin, shard.end)

    def to_bytes(self) -> bytes:
        """Return the content of the record's file."""
        return as_json(asdict(self))

    @classmethod
    def from_bytes(cls, content: bytes, file: str) -> ShardRecord:
        """Parse the content of a record's file.

        Raises:
            InputError: the content is damaged.
        """
        return _record(Fields.parse(content, file))


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """All records of a complete folder.

    Attributes:
        plan: digest of the plan that the records belong to.
        records: the records, in the order of the rows.
    """

    plan: str
    records: tuple[ShardRecord, ...]

    def to_bytes(self) -> bytes:
        """Return the content of `manifest.json`."""
        totals = {
            "shards": len(self.records),
            "rows": sum(record.rows for record in self.records),
            "size": sum(record.size for record in self.records),
            "tokens": sum(record.tokens for record in self.records),
            "errors": sum(record.errors for record in self.records),
        }
        records = [asdict(record) for record in self.records]
        return as_json({"layertap_folder": VERSION, "plan": self.plan, **totals, "records": records})

    @classmethod
    def from_bytes(cls, content: bytes, file: str) -> Manifest:
        """Parse the content of `manifest.json`.

        Raises:
            InputError: the content is damaged, or of another version.
        """
        fields = Fields.parse(content, file)
        _check_version(fields)
        return cls(plan=fields.text("plan"), records=tuple(map(_record, fields.objects("records"))))


def _check_version(fields: Fields) -> None:
    version = fields.count("layertap_folder")
    if version != VERSION:
        raise InputError(
            f"{printable(fields.file)}: the folder has layout {version}, and this version of layertap knows layout "
            f"{VERSION}; use the version that made it, or make a new folder"
        )


def _check_shards(plan: FolderPlan, fields: Fields) -> None:
    """Refuse a plan in which a row is in no shard or in two, or two shards have one number.

    Raises:
        InputError: the shards are not those of the inputs.
    """
    ends = {own.name: 0 for own in plan.inputs}
    for shard in plan.shards:
        if ends.get(shard.input) != shard.begin or shard.end < shard.begin:
            raise fields.fail(f"shard {shard.number} does not begin where the one before it ends, or is of no input")
        ends[shard.input] = shard.end
    for own in plan.inputs:
        if ends[own.name] != own.rows:
            raise fields.fail(f"the shards of {own.name} end at row {ends[own.name]}, and it has {own.rows} rows")
    numbers = {shard.number for shard in plan.shards}
    if len(numbers) < len(plan.shards) or len(ends) < len(plan.inputs):
        raise fields.fail("two shards have one number, or two inputs one name")
    if numbers and max(numbers) >= plan.next_number:
        raise fields.fail(f"'next_number' is {plan.next_number}, and shard {max(numbers)} is there")


def _schema(fields: Fields) -> FeatureSchema:
    dtype = fields.text("dtype")
    if dtype not in ("float32", "float16", "int8", "uint8", "int32", "bool", "str"):
        raise fields.fail(f"'dtype' is {dtype!r}")
    shape, ragged, maps = fields.counts("shape"), fields.truth("ragged"), fields.truth("maps")
    axes = fields.texts("axes")
    if len(axes) != ragged + len(shape) + 2 * maps:
        raise fields.fail(f"'axes' are {list(axes)}, and 'shape' is {list(shape)}")
    return FeatureSchema(
        name=fields.text("name"),
        dtype=cast(Any, dtype),  # one of those allowed
        shape=shape,
        ragged=ragged,
        maps=maps,
        axes=axes,
    )


def _column(fields: Fields) -> PlannedColumn:
    return PlannedColumn(
        name=fields.text("name"),
        type=fields.text("type"),
        arrow=fields.text_or_none("arrow"),
        kind=fields.text_or_none("kind"),
    )


def _input(fields: Fields) -> PlannedInput:
    return PlannedInput(
        name=fields.text("name"),
        size=fields.count("size"),
        stamp=fields.text("stamp"),
        sha256=fields.text("sha256"),
        rows=fields.count("rows"),
        errors=fields.count("errors"),
    )


def _shard(fields: Fields) -> PlannedShard:
    return PlannedShard(
        number=fields.count("number"),
        input=fields.text("input"),
        begin=fields.count("begin"),
        end=fields.count("end"),
    )


def _record(fields: Fields) -> ShardRecord:
    return ShardRecord(
        number=fields.count("number"),
        input=fields.text("input"),
        begin=fields.count("begin"),
        end=fields.count("end"),
        file=fields.text("file"),
        rows=fields.count("rows"),
        size=fields.count("size"),
        sha256=fields.text("sha256"),
        digest=fields.text("digest"),
        tokens=fields.count("tokens"),
        counts=fields.mapping("counts"),
        errors=fields.count("errors"),
        errors_sha256=fields.text_or_none("errors_sha256"),
    )
