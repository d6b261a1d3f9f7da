"""Numbers and tables as text for people: sizes, counts, rates, aligned columns."""

from __future__ import annotations

from collections.abc import Collection, Sequence

BYTE_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")


def in_bytes(count: float) -> str:
    """Write a number of bytes with three significant digits: `999 bytes`, `17.2 MB`; thousands, not 1,024s."""
    return scaled(count, BYTE_UNITS)


def scaled(value: float, units: Sequence[str]) -> str:
    """Write a number with three significant digits, in the unit that leaves it below a thousand.

    Args:
        value: the number, in the first unit.
        units: names of units, each a thousand times the one before.
    """
    power = 0
    while value >= 999.5 and power < len(units) - 1:
        value, power = value / 1000, power + 1
    digits = 0 if power == 0 or value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:,.{digits}f} {units[power]}"


def rate(count: float, seconds: float, noun: str) -> str:
    """Write a rate in the unit that leaves a number of at least one: `1,250 texts/s`, `7.5 texts/min`, `20 texts/h`."""
    value, unit = count / seconds, "s"
    for longer in ("min", "h"):
        if value < 1:
            value, unit = value * 60, longer
    return f"{value:,.1f} {noun}s/{unit}" if value < 9.95 else f"{value:,.0f} {noun}s/{unit}"


def counted(count: int, noun: str) -> str:
    """Write a count with its noun: `1 text`, `2,000 texts`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def aligned(rows: Sequence[Sequence[str]], *, indent: str = "  ", right: Collection[int] = ()) -> list[str]:
    """Lay rows out as lines, each column as wide as its widest cell.

    Args:
        rows: cells; every row has the same number of them.
        indent: text before every line.
        right: indices of columns whose cells are aligned on the right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        (
            indent
            + "  ".join(
                cell.rjust(width) if i in right else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
        ).rstrip()
        for row in rows
    ]
