"""Collect the figures of the conformance suite in a table of families by checks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from layertap.testing.families import FamilyRow

COLUMNS = ("states", "pooler", "attentions", "bfloat16", "gradients", "round trip")
"""Checks that the table shows.

States, pooler and gradients: largest |error| over RMS. Attentions: largest |error|. bfloat16: smallest cosine. Round
trip: yes or no.
"""

COSINES = ("bfloat16",)

HEADING = (
    "family",
    "`model_type`",
    "class in transformers",
    "hidden states",
    "normed",
    "`hidden_states[0]`",
    "pooler",
    "limit",
)
"""Column headings of the table of families in the documentation."""


@dataclass(slots=True)
class Cell:
    """Results of one family in one column.

    Attributes:
        figures: measured values, in the order of the checks.
        checks: number of checks that passed.
        failures: number of checks that failed.
        note: a remark that the table shows beside the figure, or an empty string.
    """

    figures: list[float] = field(default_factory=list)
    checks: int = 0
    failures: int = 0
    note: str = ""


class Scores:
    """Collects the figures of tests while they run."""

    def __init__(self) -> None:
        self._cells: dict[tuple[str, str], Cell] = {}

    @contextmanager
    def check(self, family: str, column: str) -> Iterator[list[float]]:
        """Yields the list of figures to append to, and counts an exception on leaving as a failure."""
        cell = self._cell(family, column)
        try:
            yield cell.figures
        except BaseException:
            cell.failures += 1
            raise
        cell.checks += 1

    def note(self, family: str, column: str, note: str) -> None:
        """Sets the remark that the table shows beside a column's figure."""
        self._cell(family, column).note = note

    def text(self, family: str, column: str) -> str:
        """Formats a cell: `1.2e-06`, `0.99994`, `yes`, `FAILED`, or `-` if nothing was checked; a note in brackets."""
        cell = self._cells.get((family, column))
        if cell is None:
            return "-"
        if cell.failures:
            return "FAILED"
        if not cell.figures:
            return "yes"
        figure = f"{min(cell.figures):.5f}" if column in COSINES else f"{max(cell.figures):.1e}"
        return f"{figure} ({cell.note})" if cell.note else figure

    def _cell(self, family: str, column: str) -> Cell:
        assert column in COLUMNS, column
        return self._cells.setdefault((family, column), Cell())

    @property
    def families(self) -> list[str]:
        """Names of the families, in the order of their first check."""
        return list(dict.fromkeys(family for family, _ in self._cells))

    def rows(self) -> list[tuple[str, ...]]:
        """Builds the table: its heading, then one row per family."""
        return [
            ("family", *COLUMNS),
            *((family, *(self.text(family, column) for column in COLUMNS)) for family in self.families),
        ]


def family_table(rows: Sequence[FamilyRow]) -> str:
    """Builds the table of families for the documentation, in Markdown."""
    return markdown([HEADING, *map(_described, rows)])


def _described(row: FamilyRow) -> tuple[str, ...]:
    blocks = row.blocks or row.spec(row.real_size).num_hidden_layers
    return (
        row.name,
        f"`{row.model_type}`",
        f"`{row.model_class}`",
        f"L + 1 ({blocks + 1})",
        row.normed,
        row.first_state,
        "yes" if row.pooler else "no",
        f"{row.limit:,}",
    )


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Formats rows as a Markdown table, the first row as its heading."""
    heading, *rest = rows
    lines = [heading, ["---"] * len(heading), *rest]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
