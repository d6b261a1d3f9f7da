"""Digest of the records of a shard, by which a shard whose content has not changed is recognised."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from layertap.data.json_text import json_text
from layertap.records import Record


class RecordDigest:
    """Hash of everything that was read for a shard: rows, texts, pairs, words, spans, ids and carried columns."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, record: Record) -> None:
        """Add a record; their order counts."""
        values = [record.row, record.text, record.pair, record.words, record.spans, record.id]
        self._hash.update(json.dumps(values, default=list).encode("ascii"))
        if record.columns:
            self._hash.update(_carried(record).encode("utf-8", "surrogatepass"))
        self._hash.update(b"\n")

    def add_error(self, row: int, reason: str) -> None:
        """Add a row that cannot be read."""
        self._hash.update(json.dumps([row, reason]).encode("ascii") + b"\n")

    def hexdigest(self) -> str:
        """Return the digest of the records so far, in hexadecimal."""
        return self._hash.hexdigest()


def _carried(record: Record) -> str:
    try:
        return json_text(dict(record.columns))
    except (TypeError, ValueError):  # a value of Arrow that Python or JSON has no form for
        return json_text({name: _described(record, name) for name in record.columns})


def _described(record: Record, name: str) -> Any:
    try:
        value = record.columns[name]
        json_text(value)
    except (TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return value
