"""Names of the axes of stored features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from layertap.data.writers.base import AXES
from layertap.errors import UsageError
from layertap.features.parse import parse
from layertap.features.schema import AXES as FIRST
from layertap.records import FeatureSchema

SCALE = ".scale"


def with_axes(schema: FeatureSchema, provenance: Mapping[str, Any]) -> FeatureSchema:
    """Return a schema with the names that its file states for the axes.

    Files of releases that stated none have the same order. There the names follow from the feature in the
    provenance, or else from the shape.

    Args:
        schema: as the stored arrays are.
        provenance: JSON object of the file.
    """
    stated = provenance.get(AXES)
    names = stated.get(schema.name) if isinstance(stated, dict) else None
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        if names[:1] == ["record"] and len(names) == len(schema.axes) + 1:
            return replace(schema, axes=tuple(names[1:]))
        return schema  # damaged, or of arrays that were changed since
    if not schema.ragged:
        return schema
    return replace(schema, axes=(_unit(schema.name, provenance.get("features")), *schema.axes[1:]))


def _unit(name: str, features: object) -> str:
    """Return the name of a ragged feature's first axis where the file does not state it."""
    if name.startswith("word_"):  # a detail
        return "word"
    text = features.get(name, features.get(name.removesuffix(SCALE))) if isinstance(features, dict) else None
    try:
        return FIRST.get(parse(text).form.unit, "token") if isinstance(text, str) else "token"
    except UsageError:  # damaged, or no feature of the grammar
        return "token"
