"""Numbers for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from layertap.records import FeatureSchema

BYTE_UNITS = ("bytes", "kB", "MB", "GB", "TB")


def in_bytes(count: float) -> str:
    """`999 bytes`, `17.2 MB`; thousands, not 1,024s."""
    power = 0
    while count >= 999.5 and power < len(BYTE_UNITS) - 1:
        count, power = count / 1000, power + 1
    return f"{count:,.{1 if power and count < 99.95 else 0}f} {BYTE_UNITS[power]}"


def a_second(count: float, seconds: float) -> str:
    """`3.2`, `1,250`: how many a second."""
    rate = count / seconds
    return f"{rate:,.1f}" if rate < 10 else f"{rate:,.0f}"


def counted(count: int, noun: str) -> str:
    """`1 text`, `2,000 texts`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def in_shape(schema: FeatureSchema) -> str:
    """`float32 [384] a text`."""
    shape = f" [{', '.join(map(str, schema.shape))}]" if schema.shape else ""
    return f"{schema.dtype}{shape} a {'token' if schema.ragged else 'text'}"


def aligned(rows: Sequence[tuple[str, ...]], *, indent: str = "  ") -> list[str]:
    """Rows as lines, each column as wide as its widest cell."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        (indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip()
        for row in rows
    ]
