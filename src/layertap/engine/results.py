"""Results of batches put together to those of a chunk, and results of chunks to whole arrays."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from layertap.data.slices import join
from layertap.records import Array, AttentionMaps, Feature, FeatureBatch, FeatureSchema, Ragged

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


class ChunkResults:
    """Results of one chunk, collected as batches finish and returned in the order of records."""

    def __init__(self, num_records: int, schemas: Sequence[FeatureSchema]) -> None:
        self._num_records = num_records
        self._schemas = {schema.name: schema for schema in schemas}
        self._dense: dict[str, Array] = {}
        self._rows: dict[str, list[Array]] = {}

    def put(
        self,
        arrays: dict[str, Array],
        record_index: npt.NDArray[np.int64],
        counts: npt.NDArray[np.int64] | None,
        repeats: Sequence[tuple[int, int]] = (),
    ) -> None:
        """Add the arrays of one batch.

        Args:
            arrays: arrays by feature: dense [N, ...], ragged token-major [M, ...], attention maps [M].
            record_index: int64 [N], positions of the records in the chunk.
            counts: int64 [N], number of the M values that belong to each record; None for dense arrays.
            repeats: further records of the chunk with the results of one of the N: pairs of its number and theirs.
        """
        sources, copies = [source for source, _ in repeats], [copy for _, copy in repeats]
        for name, array in arrays.items():
            if counts is None:
                if name not in self._dense:
                    self._dense[name] = np.empty((self._num_records, *array.shape[1:]), dtype=array.dtype)
                self._dense[name][record_index] = array
                if copies:
                    self._dense[name][copies] = array[sources]
                continue
            if name not in self._rows:
                self._rows[name] = [array[:0]] * self._num_records
            ends = np.cumsum(counts)
            for index, (begin, end) in zip(record_index, pairwise([0, *ends.tolist()]), strict=True):
                self._rows[name][index] = array[begin:end]
            for source, copy in repeats:
                self._rows[name][copy] = self._rows[name][record_index[source]]

    def features(self) -> dict[str, Feature]:
        """Return the features by name (array, `Ragged` or `AttentionMaps`), in the order of the schemas."""
        return {name: self._feature(schema) for name, schema in self._schemas.items()}

    def _feature(self, schema: FeatureSchema) -> Feature:
        if schema.ragged:
            return Ragged.from_rows(self._rows[schema.name])
        if not schema.maps:
            return self._dense[schema.name]
        maps = self._rows[schema.name]
        lengths = np.array([math.isqrt(len(own) // math.prod(schema.shape)) for own in maps], dtype=np.int64)
        return AttentionMaps(np.concatenate(maps), lengths, schema.shape)
