"""Reading of a folder of features: its plan, and the records of the shards that are there."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from layertap.data.folder.layout import (
    MANIFEST,
    PLAN,
    FolderPlan,
    Manifest,
    PlannedShard,
    ShardRecord,
    record_place,
)
from layertap.errors import InputError, printable
from layertap.files.shared import sha256_of
from layertap.stored_file import KINDS


class FolderFiles(Protocol):
    """Read access to the files of a folder, on a disk or elsewhere."""

    @property
    def name(self) -> str:
        """Name of the folder for messages."""

    def read(self, place: str) -> bytes | None:
        """Return the content of a small file, or None if there is no such file.

        Raises:
            InputError: the file cannot be read.
        """

    def size(self, place: str) -> int | None:
        """Return the size of a file in bytes, or None if there is no such file.

        Raises:
            InputError: the file cannot be looked at.
        """

    def sha256(self, place: str) -> str:
        """Return the hexadecimal sha256 of a file.

        Raises:
            OSError: the file cannot be read.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalFiles:
    """Files of a folder on a disk, each opened by its name.

    Attributes:
        root: path of the folder.
    """

    root: Path

    @property
    def name(self) -> str:
        """Name of the folder for messages."""
        return printable(self.root)

    def path(self, place: str) -> Path:
        """Return the path of a file of the folder."""
        return self.root / place

    def read(self, place: str) -> bytes | None:
        """Return the content of a small file, or None if there is no such file.

        Raises:
            InputError: the file cannot be read.
        """
        try:
            return self.path(place).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise InputError(f"{printable(self.path(place))}: cannot be read: {error.strerror or error}") from None

    def size(self, place: str) -> int | None:
        """Return the size of a file in bytes, or None if there is no such file.

        Raises:
            InputError: the file cannot be looked at.
        """
        try:
            status = self.path(place).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise InputError(f"{printable(self.path(place))}: cannot be read: {error.strerror or error}") from None
        kind = KINDS.get(stat.S_IFMT(status.st_mode))
        if kind is not None:
            raise InputError(f"{printable(self.path(place))}: this is {kind}; expected a file")
        return status.st_size

    def sha256(self, place: str) -> str:
        """Return the hexadecimal sha256 of a file.

        Raises:
            OSError: the file cannot be read.
        """
        return sha256_of(self.path(place))


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderContents:
    """Plan of a folder, and the records that count for a reader.

    Attributes:
        plan: the plan.
        records: records of the shards that are there, in the order of the rows.
        is_complete: whether `records` are those of all shards of `plan`; otherwise they are those of an unfinished
            run, or the complete set from before the folder grew.
        has_manifest: whether the records come from the manifest.
    """

    plan: FolderPlan
    records: tuple[ShardRecord, ...]
    is_complete: bool
    has_manifest: bool


def read_plan(files: FolderFiles) -> FolderPlan | None:
    """Read the plan of a folder; None if there is none.

    Raises:
        InputError: the plan is damaged, of another version, or cannot be read.
    """
    content = files.read(PLAN)
    return None if content is None else FolderPlan.from_bytes(content, f"{files.name}/{PLAN}")


def read_manifest(files: FolderFiles) -> Manifest | None:
    """Read the manifest of a folder; None if there is none.

    Raises:
        InputError: the manifest is damaged, of another version, or cannot be read.
    """
    content = files.read(MANIFEST)
    return None if content is None else Manifest.from_bytes(content, f"{files.name}/{MANIFEST}")


def read_record(files: FolderFiles, shard: PlannedShard) -> ShardRecord | None:
    """Read the record of a shard; None if there is none.

    Raises:
        InputError: the record is damaged, cannot be read, or is that of other rows.
    """
    place = record_place(shard.number)
    content = files.read(place)
    if content is None:
        return None
    record = ShardRecord.from_bytes(content, f"{files.name}/{place}")
    if not record.is_of(shard):
        raise InputError(
            f"{files.name}/{place}: it is the record of rows {record.begin} to {record.end} of {record.input}, and the "
            f"plan states rows {shard.begin} to {shard.end} of {shard.input}; remove it, and run the extraction again"
        )
    return record


def read_records(files: FolderFiles, shards: Iterable[PlannedShard]) -> tuple[ShardRecord, ...]:
    """Read the records that are there, in the order of the shards, each by its name."""
    return tuple(record for shard in shards if (record := read_record(files, shard)) is not None)


def read_contents(files: FolderFiles, *, partial: bool = False) -> FolderContents:
    """Read what a reader of the features needs: the plan, and the records of the shards that count.

    A folder is complete with its manifest, or with all of its records. While a folder grows, its manifest still names
    the shards from before, and these count.

    Args:
        files: the folder.
        partial: whether an unfinished folder is read as far as it is there.

    Raises:
        InputError: no folder of features, an unfinished one, or one whose files are damaged.
    """
    plan = read_plan(files)
    if plan is None:
        raise InputError(f"{files.name}: this is no folder of features: it has no {PLAN}")
    manifest = read_manifest(files)
    if manifest is not None and manifest.plan == plan.digest:
        return FolderContents(plan=plan, records=manifest.records, is_complete=True, has_manifest=True)
    records = read_records(files, plan.shards)
    is_complete = len(records) == len(plan.shards)
    if is_complete or partial:
        return FolderContents(plan=plan, records=records, is_complete=is_complete, has_manifest=False)
    if manifest is not None:
        return FolderContents(plan=plan, records=manifest.records, is_complete=False, has_manifest=True)
    raise InputError(
        f"{files.name}: the folder is unfinished: {len(records)} of {len(plan.shards)} shards are there; run the "
        "extraction again to go on, or open what is there with partial=True"
    )
