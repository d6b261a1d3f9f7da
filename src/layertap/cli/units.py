"""Numbers for people."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from layertap.errors import OptionError

if TYPE_CHECKING:
    from layertap.records import FeatureSchema

BYTE_UNITS = ("bytes", "kB", "MB", "GB", "TB")


def in_bytes(count: float) -> str:
    """`999 bytes`, `17.2 MB`; thousands, not 1,024s."""
    power = 0
    while count >= 999.5 and power < len(BYTE_UNITS) - 1:
        count, power = count / 1000, power + 1
    return f"{count:,.{1 if power and count < 99.95 else 0}f} {BYTE_UNITS[power]}"


def bytes_of(text: str, option: str) -> int:
    """How many bytes `20GB`, `1.5 TB`, `8GiB` or `1000000` are.

    Raises:
        OptionError: it is no size; naming the option.
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) *(?:([kmgt])(i?))?b?", text.strip().lower())
    if found is None:
        raise OptionError(f"{option} {text!r}: expected a size, as 20GB, 500MB or 8GiB")
    number, unit, binary = found.groups()
    size = int(float(number) * (1024 if binary else 1000) ** (" kmgt".index(unit) if unit else 0))
    if size < 1:
        raise OptionError(f"{option} {text!r}: expected a size of at least one byte")
    return size


def a_second(count: float, seconds: float) -> str:
    """`3.2`, `1,250`: how many a second."""
    rate = count / seconds
    return f"{rate:,.1f}" if rate < 10 else f"{rate:,.0f}"


def counted(count: int, noun: str) -> str:
    """`1 text`, `2,000 texts`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def in_shape(schema: FeatureSchema, unit: str) -> str:
    """`float32 [384] a text`; `unit` is what there is a value for."""
    axes = (*map(str, schema.shape), *(("T", "T") if schema.maps else ()))
    shape = f" [{', '.join(axes)}]" if axes else ""
    return f"{schema.dtype}{shape} a {unit}"


def aligned(rows: Sequence[tuple[str, ...]], *, indent: str = "  ") -> list[str]:
    """Rows as lines, each column as wide as its widest cell."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        (indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip()
        for row in rows
    ]
