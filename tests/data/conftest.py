"""Batches of every kind of feature, and a way to write them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from layertap.data import open_writer
from layertap.records import FeatureBatch, FeatureSchema, Ragged, Record

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
)


def make_batches(sizes: Sequence[int] = (5,), columns: Sequence[Mapping[str, Any]] = ()) -> list[FeatureBatch]:
    """Batches over the same records, whatever the sizes."""
    rng = np.random.default_rng(7)
    lengths = [LENGTHS[i % len(LENGTHS)] for i in range(sum(sizes))]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    values = {
        s.name: (rng.standard_normal((offsets[-1] if s.ragged else sum(sizes), *s.shape)) * 50).astype(s.dtype)
        for s in SCHEMAS
    }
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
                features={
                    s.name: Ragged(
                        values[s.name][offsets[begin] : offsets[end]], offsets[begin : end + 1] - offsets[begin]
                    )
                    if s.ragged
                    else values[s.name][begin:end]
                    for s in SCHEMAS
                },
            )
        )
        begin = end
    return made


def write_batches(path: Path, made: Sequence[FeatureBatch], **options: Any) -> Path:
    options = {"schemas": SCHEMAS, "column_types": {"id": pa.string()}, "provenance": {"b": 1, "a": "x"}} | options
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
