"""State of a folder between runs: which shards are finished, which are damaged, and its completion by the manifest."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from layertap.data.folder import (
    FolderFiles,
    FolderPlan,
    FolderWriter,
    Manifest,
    PlannedShard,
    ShardRecord,
    folder_files,
)
from layertap.data.folder.contents import read_manifest, read_plan, read_record
from layertap.data.folder.layout import DATA, ERRORS, LOG, MANIFEST, RECORDS, errors_place, record_place, shard_stem
from layertap.errors import InputError

DAMAGED = f"{LOG}/damaged.json"
"""Place of the list of shards that `layertap status --verify` has found damaged; the next run looks at them again."""

OURS = {
    DATA: re.compile(r"shard-[0-9]{6,}-[0-9a-f]{16}\.parquet"),
    RECORDS: re.compile(r"shard-[0-9]{6,}\.json"),
    ERRORS: re.compile(r"shard-[0-9]{6,}\.jsonl"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedShards:
    """Records of a folder, and what is wrong with some of them.

    Attributes:
        records: records whose files are there, by the number of the shard.
        damaged: number of a shard -> what is wrong with its record or its files.
    """

    records: Mapping[int, ShardRecord]
    damaged: Mapping[int, str]


def finished_shards(
    files: FolderFiles,
    shards: Iterable[PlannedShard],
    *,
    verify: bool | Iterable[int] = False,
    watch: Callable[[ShardRecord], None] | None = None,
) -> FinishedShards:
    """Read the records of shards, and look at the files that they name.

    Args:
        files: the folder.
        shards: shards of its plan.
        verify: whether files are read and compared with the hashes of their records, for all shards or for those with
            the numbers given; of the others, existence and size are compared.
        watch: function that is called with each record whose files have been read.

    Raises:
        InputError: the folder cannot be read.
    """
    numbers = None if isinstance(verify, bool) else frozenset(verify)
    records: dict[int, ShardRecord] = {}
    damaged: dict[int, str] = {}
    for shard in shards:
        try:
            record = read_record(files, shard)
        except InputError as error:
            damaged[shard.number] = str(error)
            continue
        if record is None:
            continue
        is_verified = verify is True or (numbers is not None and shard.number in numbers)
        fault = _fault(files, record, is_verified)
        if is_verified and watch is not None:
            watch(record)
        if fault is None:
            records[shard.number] = record
        else:
            damaged[shard.number] = fault
    return FinishedShards(records=records, damaged=damaged)


def read_marked(files: FolderFiles) -> frozenset[int]:
    """Return the numbers of the shards that were found damaged; none if the list is missing or cannot be read."""
    try:
        values = json.loads(files.read(DAMAGED) or b"[]")
        return frozenset(int(number) for number in values)
    except (InputError, ValueError, TypeError):
        return frozenset()


def mark_damaged(folder: FolderWriter, numbers: Iterable[int]) -> None:
    """Write the list of damaged shards, or remove it if there are none.

    Raises:
        OutputError: the list cannot be written.
    """
    listed = sorted(numbers)
    if listed:
        folder.make(LOG)
        folder.replace(DAMAGED, json.dumps(listed).encode() + b"\n")
    else:
        folder.remove(DAMAGED)


def drop_damaged(folder: FolderWriter, damaged: Iterable[int]) -> None:
    """Remove the records of damaged shards, so that these are computed again.

    Raises:
        OutputError: a record cannot be removed.
    """
    for number in damaged:
        folder.remove(record_place(number))


def is_current(files: FolderFiles, plan: FolderPlan) -> bool:
    """Return whether the folder still has this plan: it may have grown since the plan was read."""
    now = read_plan(files)
    return now is not None and now.digest == plan.digest


def complete(folder: FolderWriter, plan: FolderPlan, records: Mapping[int, ShardRecord]) -> bool:
    """Write the manifest of a folder whose records are all there, and remove files that it does not name.

    Files of the manifest before, which readers may have open, are removed after the new one is written.

    Args:
        folder: the folder.
        plan: its plan.
        records: records of all shards, by number.

    Returns:
        Whether the folder still has this plan; otherwise nothing is written or removed.

    Raises:
        OutputError: the manifest cannot be written; the one before is as it was.
    """
    files = folder_files(folder.root)
    # Listed before the plan is compared, so that no file of a plan that comes later is among those removed.
    listed = {place: folder.names(place) for place in OURS}
    if not is_current(files, plan):
        return False
    manifest = Manifest(plan=plan.digest, records=tuple(records[shard.number] for shard in plan.shards))
    before = _manifest_before(files)
    if before != manifest:
        _clean(folder, listed, [manifest] if before is None else [manifest, before])
        content = manifest.to_bytes()
        if files.size(MANIFEST) is not None or not folder.write_new(MANIFEST, content):
            folder.replace(MANIFEST, content)
    _clean(folder, listed, [manifest])
    return True


def _manifest_before(files: FolderFiles) -> Manifest | None:
    try:
        return read_manifest(files)
    except InputError:  # damaged: it is written again
        return None


def _clean(folder: FolderWriter, listed: Mapping[str, Iterable[str]], manifests: Iterable[Manifest]) -> None:
    """Remove those of the listed files of shards that no record of the manifests names; other names are left alone."""
    kept: dict[str, set[str]] = {DATA: set(), RECORDS: set(), ERRORS: set()}
    for manifest in manifests:
        for record in manifest.records:
            kept[DATA].add(record.file)
            kept[RECORDS].add(f"{shard_stem(record.number)}.json")
            if record.errors:
                kept[ERRORS].add(f"{shard_stem(record.number)}.jsonl")
    for place, pattern in OURS.items():
        for name in listed[place]:
            if name not in kept[place] and pattern.fullmatch(name):
                folder.remove(f"{place}/{name}")


def _fault(files: FolderFiles, record: ShardRecord, is_verified: bool) -> str | None:
    """Return what is wrong with the files of a shard, or None."""
    listed = errors_place(record.number)
    try:
        size = files.size(record.place)
        if size is None:
            return f"{record.place} is missing"
        if size != record.size:
            return f"{record.place} has {size:,} bytes, and {record.size:,} were written"
        if record.errors_sha256 is not None and files.size(listed) is None:
            return f"{listed} is missing"
    except InputError as error:  # something else than a file is in its place
        return str(error)
    if not is_verified:
        return None
    try:
        if files.sha256(record.place) != record.sha256:
            return f"{record.place} has been changed: its content does not have the hash of its record"
    except OSError as error:
        return f"{record.place} cannot be read: {error.strerror or error}"
    if record.errors_sha256 is not None:
        content = files.read(listed) or b""
        if hashlib.sha256(content).hexdigest() != record.errors_sha256:
            return f"{listed} has been changed: its content does not have the hash of its record"
    return None
