"""What has been measured, kept as JSON after every figure, so that a run that ends early has lost nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KEY = ("part", "task", "side", "method", "seed", "precision", "round")


@dataclass(slots=True, kw_only=True)
class Store:
    """Records under their keys.

    Attributes:
        path: of the JSON file; None: nothing is written.
        runs: what was run: command, versions.
        records: figures, one an item; those of `KEY` that it has say what it is of.
    """

    path: Path | None
    runs: list[dict[str, Any]] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def at(cls, path: Path | None) -> Store:
        """What a file holds; nothing where there is none."""
        if path is None or not path.is_file():
            return cls(path=path)
        held = json.loads(path.read_text("utf-8"))
        return cls(path=path, runs=held["runs"], records=held["records"])

    def has(self, asked: Mapping[str, Any]) -> bool:
        """Whether there is a record of this key."""
        return any(_key(record) == _key(asked) for record in self.records)

    def add(self, record: dict[str, Any]) -> None:
        """Keeps a record, in the place of one with the same key, and writes the file."""
        self.records = [held for held in self.records if _key(held) != _key(record)]
        self.records.append({**record, "run": len(self.runs) - 1})
        if self.path is not None:
            beside = self.path.with_suffix(".part")
            beside.write_text(_as_json(self.runs, self.records), "utf-8")
            beside.replace(self.path)

    def of(self, **wanted: Any) -> Iterator[dict[str, Any]]:
        """The records that hold these values, by seed."""
        found = [record for record in self.records if all(record.get(name) == value for name, value in wanted.items())]
        yield from sorted(found, key=lambda record: (record.get("seed", 0), record.get("round", 0)))


def _key(record: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(record.get(name) for name in KEY)


def _as_json(runs: list[dict[str, Any]], records: list[dict[str, Any]]) -> str:
    """One record a line, so that a change of one is a change of one line."""
    lines = {name: ",\n  ".join(map(json.dumps, listed)) for name, listed in (("runs", runs), ("records", records))}
    return "{\n" + ",\n".join(f'"{name}": [\n  {listed}\n]' for name, listed in lines.items()) + "\n}\n"
