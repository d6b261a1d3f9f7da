"""Compute ratios of alternating measurements round by round, so that a machine's drift cancels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """Median, smallest and largest ratio over the rounds."""

    median: float
    smallest: float
    largest: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.smallest:.2f} to {self.largest:.2f})"


def ratio_by_round(numerators: Sequence[float], denominators: Sequence[float]) -> Ratio:
    """Compute the ratio of two measurements of the same rounds."""
    ratios = [above / below for above, below in zip(numerators, denominators, strict=True)]
    return Ratio(median=median(ratios), smallest=min(ratios), largest=max(ratios))
