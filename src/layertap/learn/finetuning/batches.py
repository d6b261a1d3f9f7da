"""Order of the records in an epoch, and division of a step into parts that run through the model together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from layertap.learn.arrays import Int64Array


def order(num_records: int, *, seed: int, epoch: int) -> Int64Array:
    """Return the order of the records in an epoch, int64 [N].

    It depends on the arguments alone, so that a run can continue in the middle of an epoch.
    """
    return np.random.default_rng([seed, epoch]).permutation(num_records)


def steps_of(num_records: int, batch_size: int) -> int:
    """Return the number of steps per epoch; the last step may have fewer records."""
    return -(-num_records // batch_size)


def parts(rows: Sequence[int] | Int64Array, lengths: Sequence[int], *, batch_tokens: int) -> list[list[int]]:
    """Sort rows by length, and divide them into parts of at most `batch_tokens` tokens; a longer text is alone.

    Args:
        rows: indices of records.
        lengths: number of tokens of every record.
        batch_tokens: maximum number of tokens of a part.
    """
    divided: list[list[int]] = []
    tokens = batch_tokens
    for row in sorted((int(row) for row in rows), key=lambda row: lengths[row]):
        tokens += lengths[row]
        if not divided or tokens > batch_tokens:
            divided.append([])
            tokens = lengths[row]
        divided[-1].append(row)
    return divided
