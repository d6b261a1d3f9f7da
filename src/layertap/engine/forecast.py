"""Forecast of the size of results, and the limit above which a run is refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from layertap.data.forecast import feature_bytes
from layertap.errors import OptionError
from layertap.records import FeatureSchema
from layertap.words import in_bytes

MAX_OUTPUT_BYTES = 8 << 30
"""Default limit: larger results are requested by accident more often than not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Size of results in memory, or in a file of numbers, estimated before anything runs.

    Words and spans count as one for each token, which is usually the most that there can be.

    Attributes:
        by_name: bytes of each result.
        num_records: number of texts.
    """

    by_name: Mapping[str, int]
    num_records: int

    @classmethod
    def of(
        cls, schemas: Sequence[FeatureSchema], lengths: Iterable[int], *, num_records: int | None = None
    ) -> Forecast:
        """Return the forecast for texts of these lengths.

        Args:
            schemas: schemas of the results.
            lengths: tokens of each text as features see it; at least one where `num_records` is above 0.
            num_records: number of all texts, of which `lengths` are a sample; None: `lengths` are those of all texts.
        """
        counts = np.fromiter(lengths, dtype=np.int64)
        number = len(counts) if num_records is None else num_records
        share = number / len(counts) if len(counts) else 0.0
        tokens, squares = share * int(counts.sum()), share * int(np.square(counts).sum())
        return cls(
            by_name={
                schema.name: feature_bytes(schema, records=number, values=tokens, squares=squares) for schema in schemas
            },
            num_records=number,
        )

    @property
    def total(self) -> int:
        """Bytes of all results together."""
        return sum(self.by_name.values())

    def refuse_past(self, limit: int) -> None:
        """Refuse results that would take more bytes than the limit.

        Raises:
            OptionError: the results exceed the limit; the message lists the largest ones and what to do.
        """
        if self.total <= limit:
            return
        largest = sorted(self.by_name, key=lambda name: -self.by_name[name])[:3]
        parts = ", ".join(f"{name} {in_bytes(self.by_name[name])}" for name in largest)
        raise OptionError(
            f"the results would take about {in_bytes(self.total)} for {self.num_records:,} texts ({parts}), past the "
            f"limit of {in_bytes(limit)}; ask for less (fewer layers, a pooling, astype(float16), heads_mean of "
            "attentions), or raise the limit: max_output_bytes=... (--max-output-size 20GB)"
        )


def result_bytes(schemas: Sequence[FeatureSchema], length: int) -> int:
    """Estimate the bytes of the results of one text; `length` is its number of tokens."""
    return sum(feature_bytes(schema, records=1, values=length, squares=length**2) for schema in schemas)


def checked_limit(max_output_bytes: int) -> int:
    """Check a limit that a user gave, and return it.

    Raises:
        OptionError: the limit is not a whole number of at least 1.
    """
    if isinstance(max_output_bytes, bool) or not isinstance(max_output_bytes, int) or max_output_bytes < 1:
        raise OptionError(f"max_output_bytes {max_output_bytes!r}: expected a whole number of at least 1")
    return max_output_bytes
