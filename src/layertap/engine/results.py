"""Batches of a stream into whole arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np

from layertap.records import Array, FeatureBatch, FeatureSchema, Ragged

Collected: TypeAlias = dict[str, Array | Ragged]


def collect(batches: Iterable[FeatureBatch], schemas: Sequence[FeatureSchema], *, num_records: int) -> Collected:
    """Name -> [N, ...] or `Ragged` of N, from batches that hold N records in all."""
    dense = {s.name: np.empty((num_records, *s.shape), dtype=s.dtype) for s in schemas if not s.ragged}
    values: dict[str, list[Array]] = {s.name: [np.empty((0, *s.shape), dtype=_dtype(s))] for s in schemas if s.ragged}
    lengths: dict[str, list[Array]] = {name: [np.zeros(1, dtype=np.int64)] for name in values}
    done = 0
    for batch in batches:
        for name, result in batch.features.items():
            if isinstance(result, Ragged):
                values[name].append(result.values)
                lengths[name].append(np.diff(result.offsets))
            else:
                dense[name][done : done + len(batch)] = result
        done += len(batch)
    assert done == num_records
    return {
        s.name: Ragged(np.concatenate(values.pop(s.name)), np.cumsum(np.concatenate(lengths[s.name])))
        if s.ragged
        else dense[s.name]
        for s in schemas
    }


def _dtype(schema: FeatureSchema) -> str:
    return "object" if schema.dtype == "str" else schema.dtype
