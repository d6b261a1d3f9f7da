"""Batches of every kind of feature, and a way to write them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from layertap.data import open_writer
from layertap.records import AttentionMaps, Feature, FeatureBatch, FeatureSchema, Ragged, Record

LENGTHS = (3, 0, 1, 5, 2)

SCHEMAS = (
    FeatureSchema(name="last_hidden_state.mean", dtype="float32", shape=(4,), ragged=False),
    FeatureSchema(name="hidden_states[:].mean", dtype="float16", shape=(3, 4), ragged=False),
    FeatureSchema(name="q", dtype="int8", shape=(4,), ragged=False),
    FeatureSchema(name="q.scale", dtype="float32", shape=(), ragged=False),
    FeatureSchema(name="bits", dtype="uint8", shape=(2,), ragged=False),
    FeatureSchema(name="tokens", dtype="float32", shape=(4,), ragged=True),
    FeatureSchema(name="layers", dtype="float16", shape=(3, 4), ragged=True),
    FeatureSchema(name="layers.scale", dtype="float32", shape=(), ragged=True),
    FeatureSchema(name="token_ids", dtype="int32", shape=(), ragged=True),
    FeatureSchema(name="token_offsets", dtype="int32", shape=(2,), ragged=True),
    FeatureSchema(name="token_special", dtype="bool", shape=(), ragged=True),
    FeatureSchema(name="cut_tokens", dtype="int32", shape=(), ragged=False),
    FeatureSchema(name="heads", dtype="float32", shape=(2, 3), ragged=False, maps=True),
    FeatureSchema(name="heads_mean", dtype="float16", shape=(), ragged=False, maps=True),
)


PROVENANCE = {"b": 1, "a": "x"}


def make_batches(sizes: Sequence[int] = (5,), columns: Sequence[Mapping[str, Any]] = ()) -> list[FeatureBatch]:
    """Batches over the same records, whatever the sizes."""
    rng = np.random.default_rng(7)
    lengths = [LENGTHS[i % len(LENGTHS)] for i in range(sum(sizes))]
    features = {schema.name: make_feature(schema, rng, np.array(lengths, dtype=np.int64)) for schema in SCHEMAS}
    made = []
    begin = 0
    for size in sizes:
        end = begin + size
        made.append(
            FeatureBatch(
                records=[
                    Record(row=i, text=f"text {i}", id=f"id-{i}", columns=columns[i] if columns else {})
                    for i in range(begin, end)
                ],
                features={name: cut(feature, begin, end) for name, feature in features.items()},
            )
        )
        begin = end
    return made


def make_feature(schema: FeatureSchema, rng: np.random.Generator, lengths: np.ndarray) -> Feature:
    """A feature of records with so many tokens each."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    if schema.maps:
        size = int(np.square(lengths).sum()) * math.prod(schema.shape)
        return AttentionMaps((rng.standard_normal(size) * 50).astype(schema.dtype), lengths, schema.shape)
    rows = int(offsets[-1]) if schema.ragged else len(lengths)
    values = (rng.standard_normal((rows, *schema.shape)) * 50).astype(schema.dtype)
    return Ragged(values, offsets) if schema.ragged else values


def cut(feature: Feature, begin: int, end: int) -> Feature:
    """Records `begin:end` of a feature."""
    if isinstance(feature, np.ndarray):
        return feature[begin:end]
    first, last = feature.offsets[[begin, end]]
    values = feature.values[first:last]
    if isinstance(feature, AttentionMaps):
        return AttentionMaps(values, feature.lengths[begin:end], feature.leading)
    return Ragged(values, feature.offsets[begin : end + 1] - first)


def write_batches(path: Path, made: Sequence[FeatureBatch], **options: Any) -> Path:
    options = {"schemas": SCHEMAS, "column_types": {"id": pa.string()}, "provenance": PROVENANCE} | options
    with open_writer(path, **options) as writer:
        for batch in made:
            writer.write(batch)
    return path


@pytest.fixture
def schemas() -> tuple[FeatureSchema, ...]:
    return SCHEMAS


@pytest.fixture
def batches() -> Callable[..., list[FeatureBatch]]:
    return make_batches


@pytest.fixture
def write() -> Callable[..., Path]:
    return write_batches


@pytest.fixture
def stated() -> Callable[..., dict[str, Any]]:
    """What a file that `write` made states of itself: provenance, and the names of all axes."""

    def stated(schemas: Sequence[FeatureSchema] = SCHEMAS) -> dict[str, Any]:
        return PROVENANCE | {"axes": {schema.name: ["record", *schema.axes] for schema in schemas}}

    return stated
