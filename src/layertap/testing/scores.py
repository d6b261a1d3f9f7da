"""What the suite found, as a table: families x what was checked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from layertap.testing.families import FamilyRow

COLUMNS = ("states", "pooler", "attentions", "bfloat16", "gradients", "round trip")
"""Largest |error| over RMS; the same; largest |error|; smallest cosine; largest |error| over RMS of a gradient; yes or
no."""

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
"""Of the table in the documentation."""


@dataclass(slots=True)
class Cell:
    """What was found in one column for one family.

    Attributes:
        figures: one a check.
        checks: that passed.
        failures: that did not.
        note: what the figures are to be read with, or nothing.
    """

    figures: list[float] = field(default_factory=list)
    checks: int = 0
    failures: int = 0
    note: str = ""


class Scores:
    """Collects what tests find, while they run."""

    def __init__(self) -> None:
        self._cells: dict[tuple[str, str], Cell] = {}

    @contextmanager
    def check(self, family: str, column: str) -> Iterator[list[float]]:
        """While it is entered, figures can be put into the list; leaving with an exception is a failure."""
        cell = self._cell(family, column)
        try:
            yield cell.figures
        except BaseException:
            cell.failures += 1
            raise
        cell.checks += 1

    def note(self, family: str, column: str, note: str) -> None:
        """Says beside a column's figures what they are to be read with."""
        self._cell(family, column).note = note

    def text(self, family: str, column: str) -> str:
        """`1.2e-06`, `0.99994`, `yes`, `FAILED`, or `-` where nothing was to be checked; a note in brackets."""
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
        """In the order of their first check."""
        return list(dict.fromkeys(family for family, _ in self._cells))

    def rows(self) -> list[tuple[str, ...]]:
        """The heading and one row a family."""
        return [
            ("family", *COLUMNS),
            *((family, *(self.text(family, column) for column in COLUMNS)) for family in self.families),
        ]


def family_table(rows: Sequence[FamilyRow]) -> str:
    """What stands in the documentation of each family, in Markdown."""
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
    """A Markdown table; the first row is its heading."""
    heading, *rest = rows
    lines = [heading, ["---"] * len(heading), *rest]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
