"""Batches of a stream put together to whole arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np

from layertap.data.slices import join
from layertap.records import Feature, FeatureBatch, FeatureSchema

Collected: TypeAlias = dict[str, Feature]


def collect(batches: Iterable[FeatureBatch], schemas: Sequence[FeatureSchema], *, num_records: int) -> Collected:
    """Put batches that hold N records in all together: name -> [N, ...], `Ragged` or `AttentionMaps` of N."""
    pieces: dict[str, list[Feature]] = {schema.name: [] for schema in schemas if schema.ragged or schema.maps}
    # Written in place, so that dense results are never there twice.
    dense = {
        schema.name: np.empty((num_records, *schema.shape), dtype=schema.dtype)
        for schema in schemas
        if schema.name not in pieces
    }
    done = 0
    for batch in batches:
        for name, result in batch.features.items():
            if name in pieces:
                pieces[name].append(result)
            else:
                dense[name][done : done + len(batch)] = result
        done += len(batch)
    assert done == num_records
    return {
        schema.name: join(schema, pieces.pop(schema.name)) if schema.name in pieces else dense[schema.name]
        for schema in schemas
    }
