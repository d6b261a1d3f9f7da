"""Keep records as JSON, written after every figure, so that a run that ends early loses nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from layertap.files import write_file

KEY = ("part", "task", "side", "method", "seed", "precision", "round")


@dataclass(slots=True, kw_only=True)
class Store:
    """Records of figures, identified by their keys.

    Attributes:
        path: path of the JSON file; None if nothing is written.
        runs: commands that were run, with the versions of libraries.
        records: one record per figure; its fields that are in `KEY` identify it.
    """

    path: Path | None
    runs: list[dict[str, Any]] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def at(cls, path: Path | None) -> Store:
        """Read a file; a missing one is an empty store."""
        if path is None or not path.is_file():
            return cls(path=path)
        held = json.loads(path.read_text("utf-8"))
        return cls(path=path, runs=held["runs"], records=held["records"])

    def has(self, asked: Mapping[str, Any]) -> bool:
        """Tell whether there is a record with this key."""
        return any(_key(record) == _key(asked) for record in self.records)

    def add(self, record: dict[str, Any]) -> None:
        """Add a record, or replace the one with the same key, and write the file."""
        self.records = [held for held in self.records if _key(held) != _key(record)]
        self.records.append({**record, "run": len(self.runs) - 1})
        if self.path is not None:
            write_file(self.path, _as_json(self.runs, self.records).encode(), overwrite=True)

    def of(self, **wanted: Any) -> Iterator[dict[str, Any]]:
        """Yield the records with these values, ordered by seed and round."""
        records = [
            record for record in self.records if all(record.get(name) == value for name, value in wanted.items())
        ]
        yield from sorted(records, key=lambda record: (record.get("seed", 0), record.get("round", 0)))


def _key(record: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(record.get(name) for name in KEY)


def _as_json(runs: list[dict[str, Any]], records: list[dict[str, Any]]) -> str:
    """Format records as JSON, one per line, so that a changed record changes one line."""
    lines = {name: ",\n  ".join(map(json.dumps, listed)) for name, listed in (("runs", runs), ("records", records))}
    return "{\n" + ",\n".join(f'"{name}": [\n  {listed}\n]' for name, listed in lines.items()) + "\n}\n"
