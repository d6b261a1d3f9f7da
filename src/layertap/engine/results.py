"""Batches of a stream into whole arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np

from layertap.records import Array, AttentionMaps, Feature, FeatureBatch, FeatureSchema, Ragged

Collected: TypeAlias = dict[str, Feature]


def collect(batches: Iterable[FeatureBatch], schemas: Sequence[FeatureSchema], *, num_records: int) -> Collected:
    """Name -> [N, ...], `Ragged` or `AttentionMaps` of N, from batches that hold N records in all."""
    flat = [schema for schema in schemas if schema.ragged or schema.maps]
    dense = {s.name: np.empty((num_records, *s.shape), dtype=s.dtype) for s in schemas if s not in flat}
    values: dict[str, list[Array]] = {s.name: [_nothing(s)] for s in flat}
    lengths: dict[str, list[Array]] = {s.name: [np.zeros(0, dtype=np.int64)] for s in flat}
    done = 0
    for batch in batches:
        for name, result in batch.features.items():
            if isinstance(result, Ragged | AttentionMaps):
                values[name].append(result.values)
                lengths[name].append(np.diff(result.offsets) if isinstance(result, Ragged) else result.lengths)
            else:
                dense[name][done : done + len(batch)] = result
        done += len(batch)
    assert done == num_records
    found: Collected = {}
    for schema in schemas:
        name = schema.name
        if name in dense:
            found[name] = dense[name]
            continue
        every, each = np.concatenate(values.pop(name)), np.concatenate(lengths[name])
        if schema.maps:
            found[name] = AttentionMaps(every, each, schema.shape)
        else:
            found[name] = Ragged(every, np.concatenate([[0], np.cumsum(each)]))
    return found


def _nothing(schema: FeatureSchema) -> Array:
    """The values of no record."""
    return np.empty(
        (0,) if schema.maps else (0, *schema.shape), dtype="object" if schema.dtype == "str" else schema.dtype
    )
