"""State of a folder of features as a value: what is finished, missing, damaged or failed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from layertap.data.folder import FolderFiles, FolderPlan, FolderRoot, ShardRecord, folder_files, shared_folder
from layertap.data.folder.contents import read_manifest, read_plan
from layertap.data.folder.layout import LOG, PLAN
from layertap.errors import InputError, LayertapError, OutputError
from layertap.jobs.folder.drive import DRIVER
from layertap.jobs.folder.state import FinishedShards, complete, finished_shards, mark_damaged

State = Literal["complete", "incomplete", "damaged"]

EXIT_CODES: Mapping[State, int] = {"complete": 0, "damaged": 1, "incomplete": 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderStatus:
    """Content of a folder of features, compared with its plan.

    Attributes:
        name: the folder.
        plan: its plan.
        finished: records of the shards that are there, and damaged ones.
        is_verified: whether all files have been read and compared with their hashes.
        has_manifest: whether the manifest of this plan is there.
        driver: host, process and start of a run that has not ended, or was killed; empty if there is none.
        failures: number of a shard without a record -> why its last attempt failed.
    """

    name: str
    plan: FolderPlan
    finished: FinishedShards
    is_verified: bool
    has_manifest: bool
    driver: Mapping[str, Any]
    failures: Mapping[int, str]

    @property
    def missing(self) -> tuple[int, ...]:
        """Numbers of the shards without a record."""
        there = {*self.finished.records, *self.finished.damaged}
        return tuple(shard.number for shard in self.plan.shards if shard.number not in there)

    @property
    def state(self) -> State:
        """State of the folder: damage counts more than absence."""
        if self.finished.damaged:
            return "damaged"
        return "incomplete" if self.missing else "complete"

    @property
    def exit_code(self) -> int:
        """Exit code of `layertap status`: 0 complete, 3 incomplete, 1 damaged."""
        return EXIT_CODES[self.state]

    def as_dict(self) -> dict[str, Any]:
        """Return the status as JSON values."""
        records = self.finished.records.values()
        return {
            "folder": self.name,
            "state": self.state,
            "verified": self.is_verified,
            "manifest": self.has_manifest,
            "features": dict(self.plan.provenance["features"]),
            "model": self.plan.provenance.get("model"),
            "inputs": len(self.plan.inputs),
            "rows_planned": self.plan.rows,
            "rows": sum(record.rows for record in records),
            "rows_left_out": sum(record.errors for record in records),
            "tokens": sum(record.tokens for record in records),
            "bytes": sum(record.size for record in records),
            "shards": len(self.plan.shards),
            "shards_finished": len(self.finished.records),
            "missing": list(self.missing),
            "damaged": {str(number): fault for number, fault in self.finished.damaged.items()},
            "failed": {str(number): why for number, why in self.failures.items()},
            "running": dict(self.driver),
        }


def folder_status(
    root: FolderRoot, *, name: str, verify: bool = False, watch: Callable[[ShardRecord], None] | None = None
) -> FolderStatus:
    """Look at a folder; the manifest is written if only that is missing, and damage is noted for the next run.

    Args:
        root: path of the folder.
        name: the folder as the user named it.
        verify: whether all files are read and compared with their hashes.
        watch: function that is called with each record whose files have been read.

    Raises:
        InputError: no folder of features, or a plan that is damaged or of another version.
    """
    files = folder_files(root)
    plan = read_plan(files)
    if plan is None:
        is_there = not isinstance(root, Path) or root.is_dir()
        what = "it has no " + PLAN if is_there else "there is no such folder"
        raise InputError(f"{name}: this is no folder of features: {what}")
    finished = finished_shards(files, plan.shards, verify=verify, watch=watch)
    there = {*finished.records, *finished.damaged}
    missing = [shard.number for shard in plan.shards if shard.number not in there]
    _repair(root, plan, finished, verify=verify, is_whole=not missing and not finished.damaged)
    try:
        manifest = read_manifest(files)
    except InputError:
        manifest = None
    return FolderStatus(
        name=name,
        plan=plan,
        finished=finished,
        is_verified=verify,
        has_manifest=manifest is not None and manifest.plan == plan.digest,
        driver=_driver(files),
        failures=_failures(root, frozenset(missing)),
    )


def _repair(root: FolderRoot, plan: FolderPlan, finished: FinishedShards, *, verify: bool, is_whole: bool) -> None:
    """Write what follows from the status; a folder that cannot be written is looked at all the same."""
    try:
        with shared_folder(root) as folder:
            if is_whole:
                complete(folder, plan, finished.records)
            if verify:
                mark_damaged(folder, finished.damaged)
    except OutputError:
        return


def _driver(files: FolderFiles) -> dict[str, Any]:
    try:
        values = json.loads(files.read(DRIVER) or b"{}")
    except (ValueError, InputError):
        return {}
    return values if isinstance(values, dict) else {}


def _failures(root: FolderRoot, missing: frozenset[int]) -> dict[int, str]:
    """Return the reason of the last failure of each shard, as far as the log can be read."""
    failures: dict[int, tuple[str, str]] = {}
    files = folder_files(root)
    try:
        names = [name for name in shared_folder(root).names(LOG) if name.startswith("attempts-")]
        contents = [files.read(f"{LOG}/{name}") or b"" for name in names]
    except LayertapError:
        return {}
    for content in contents:
        for line in content.decode(errors="replace").splitlines():
            try:
                values = json.loads(line)
                number, when, why = int(values["shard"]), str(values["time"]), values.get("failed")
            except (ValueError, KeyError, TypeError):
                continue  # the last line of a process that was killed
            if why is not None and number in missing and when >= failures.get(number, ("", ""))[0]:
                failures[number] = (when, str(why))
    return {number: why for number, (_, why) in sorted(failures.items())}
