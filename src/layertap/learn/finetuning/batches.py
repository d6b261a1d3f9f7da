"""Which records make a step, and which of them go through the model together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]


def order(num_records: int, *, seed: int, epoch: int) -> Rows:
    """int64 [N], the order of an epoch: a function of the arguments alone, so that a run can go on in its middle."""
    return np.random.default_rng([seed, epoch]).permutation(num_records)


def steps_of(num_records: int, batch_size: int) -> int:
    """Steps an epoch; the last may have fewer records."""
    return -(-num_records // batch_size)


def parts(rows: Sequence[int] | Rows, lengths: Sequence[int], *, batch_tokens: int) -> list[list[int]]:
    """The rows by length, in parts of at most `batch_tokens` tokens; a longer text is alone.

    Args:
        rows: places in `lengths`.
        lengths: tokens of every record.
        batch_tokens: of one part.
    """
    found: list[list[int]] = []
    tokens = batch_tokens
    for row in sorted((int(row) for row in rows), key=lambda row: lengths[row]):
        tokens += lengths[row]
        if not found or tokens > batch_tokens:
            found.append([])
            tokens = lengths[row]
        found[-1].append(row)
    return found
