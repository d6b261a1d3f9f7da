"""Log of attempts in the folder `log`: times, hosts and failures, outside everything that equal runs have in common."""

from __future__ import annotations

import contextlib
import json
import os
import platform
from datetime import UTC, datetime
from typing import Any

from layertap.data.folder import FolderWriter
from layertap.data.folder.layout import LOG
from layertap.errors import OutputError
from layertap.files import system
from layertap.files.shared import SharedFolder
from layertap.jobs.folder.runner import ShardFailed, ShardFinished


class AttemptLog:
    """Lines of JSON in a file of this process; a log that cannot be written stops no run.

    On an object store, whose objects do not grow, the file is written at the end.

    Args:
        folder: the folder of features.
    """

    def __init__(self, folder: FolderWriter) -> None:
        self._folder = folder
        self._place = f"{LOG}/attempts-{platform.node()}-{os.getpid()}-{os.urandom(4).hex()}.jsonl"
        self._file: system.RawFile | None = None
        self._lines: list[bytes] = []

    def finished(self, event: ShardFinished) -> None:
        """Note a shard that is finished."""
        record = event.record
        self._add(
            {"shard": record.number, "worker": event.worker, "seconds": round(event.seconds, 3), "rows": record.rows}
        )

    def failed(self, event: ShardFailed) -> None:
        """Note an attempt that failed."""
        self._add({"shard": event.shard, "worker": event.worker, "attempt": event.attempt, "failed": event.reason})

    def close(self) -> None:
        """Close the file of the log."""
        if self._file is not None:
            self._file.close()
        if self._lines:
            with contextlib.suppress(OutputError):
                self._folder.replace(self._place, b"".join(self._lines))

    def _add(self, values: dict[str, Any]) -> None:
        line = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "host": platform.node(), **values}
        content = json.dumps(line).encode() + b"\n"
        if not isinstance(self._folder, SharedFolder):
            self._lines.append(content)
            return
        with contextlib.suppress(OSError):
            if self._file is None:
                self._file = system.create(self._folder.root / self._place)
            self._file.write(content)
