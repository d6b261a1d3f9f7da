"""Layers of a page: named vectors of its points."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from layertap.engine.extractor import Extractor
from layertap.engine.progress import progress_on
from layertap.features.expr import Expr
from layertap.learn.arrays import Float32Array
from layertap.learn.exploring.planes import Plane
from layertap.learn.exploring.units import Units
from layertap.records import Ragged, Record


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layer:
    """Vectors of the N points of a page at one layer.

    Attributes:
        name: name on the page.
        feature: feature that gives the vectors, or their name where no expression does.
        code: Python lines that read the vectors as `v`.
        vectors: float32 [N, H].
    """

    name: str
    feature: Expr | str
    code: str
    vectors: Float32Array

    def as_facts(self, plane: Plane) -> dict[str, Any]:
        """Return what a page states of the layer, as JSON values."""
        return {
            "name": self.name,
            "feature": str(self.feature),
            "code": self.code,
            "variance": list(plane.variance),
            "dimensions": self.vectors.shape[1],
        }


def sweep_units(
    extractor: Extractor,
    records: Sequence[Record],
    units: Units,
    features: Sequence[Expr],
    *,
    progress: bool,
    notes: list[str],
) -> dict[Expr, Float32Array]:
    """Extract the vectors of N chosen words or spans for several features, float32 [N, H] each, in one pass.

    The vectors of others are dropped batch by batch. Remarks on unknown tokens are added to `notes`.
    """
    names = {f"v{i}": feature for i, feature in enumerate(features)}
    schemas = {schema.name: schema for schema in extractor.schema(names)}
    vectors: Mapping[str, Float32Array] = {
        name: np.empty((len(units), *schemas[name].shape), dtype=np.float32) for name in names
    }
    bounds = np.searchsorted(units.owners, np.arange(len(records) + 1))
    with progress_on(sys.stderr, shown=progress, total=len(records)) as on_progress:
        stream = extractor.stream(records, names, on_progress=on_progress)
        for batch in stream:
            first = batch.records[0].row
            begin, end = int(bounds[first]), int(bounds[first + len(batch)])
            for name in names:
                values = batch.features[name]
                assert isinstance(values, Ragged)
                places = values.offsets[units.owners[begin:end] - first] + units.numbers[begin:end]
                vectors[name][begin:end] = values.values[places]
    notes += stream.summary.remarks_on_unknown()
    return {feature: vectors[name] for name, feature in names.items()}
