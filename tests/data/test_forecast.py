"""What a forecast says is what the files turn out to be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest

from layertap.data import WRITE_FORMATS
from layertap.data.forecast import check_space, feature_bytes, space_needed
from layertap.errors import OptionError, OutputError
from layertap.files import StagedOutput
from layertap.records import AttentionMaps, Feature, FeatureBatch, FeatureSchema, Ragged, Record

Write = Callable[..., Path]
Schemas = tuple[FeatureSchema, ...]

COUNT = 500


SCHEMAS = (
    FeatureSchema(name="dense", dtype="float32", shape=(64,), ragged=False),
    FeatureSchema(name="tokens", dtype="float16", shape=(2, 64), ragged=True),
    FeatureSchema(name="q", dtype="int8", shape=(64,), ragged=True),
    FeatureSchema(name="q.scale", dtype="float32", shape=(), ragged=True),
    FeatureSchema(name="heads", dtype="float32", shape=(3,), ragged=False, maps=True),
)


@pytest.fixture
def batch() -> FeatureBatch:
    rng = np.random.default_rng(3)
    lengths = rng.integers(0, 12, COUNT)
    offsets = np.concatenate([[0], np.cumsum(lengths)])

    def numbers(schema: FeatureSchema, *shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) * 50).astype(schema.dtype)

    features: dict[str, Feature] = {}
    for schema in SCHEMAS:
        if schema.maps:
            values = numbers(schema, int(np.square(lengths).sum()) * 3)
            features[schema.name] = AttentionMaps(values, lengths, schema.shape)
        elif schema.ragged:
            features[schema.name] = Ragged(numbers(schema, offsets[-1], *schema.shape), offsets)
        else:
            features[schema.name] = numbers(schema, COUNT, *schema.shape)
    return FeatureBatch(records=[Record(row=i, text="") for i in range(COUNT)], features=features)


def forecast(batch: FeatureBatch, schemas: Schemas) -> int:
    tokens = batch.features["tokens"]
    assert isinstance(tokens, Ragged)
    lengths = np.diff(tokens.offsets)
    counts = {"records": len(batch), "values": int(lengths.sum()), "squares": int(np.square(lengths).sum())}
    return sum(feature_bytes(schema, **counts) for schema in schemas)


@pytest.mark.parametrize("ending", ["safetensors", "npz", "parquet"])
def test_files_are_as_large_as_forecast(tmp_path: Path, batch: FeatureBatch, write: Write, ending: str) -> None:
    path = write(tmp_path / f"o.{ending}", [batch], schemas=SCHEMAS, column_types={})
    expected = forecast(batch, SCHEMAS)
    if ending == "parquet":
        group = pq.read_metadata(path).row_group(0)
        found = sum(group.column(i).total_uncompressed_size for i in range(1, group.num_columns))
        assert found == pytest.approx(expected, rel=0.05)  # where values end takes less there
        return
    rows, names = 8 * COUNT, 400 * 2 * len(SCHEMAS)
    assert expected <= path.stat().st_size <= expected + rows + names


def test_bytes_of_each_kind_of_feature() -> None:
    counts = {"records": 10, "values": 700, "squares": 5000.5}
    one = FeatureSchema(name="w", dtype="int8", shape=(2, 384), ragged=True)
    scale = FeatureSchema(name="w.scale", dtype="float32", shape=(2,), ragged=True)
    texts = FeatureSchema(name="word_texts", dtype="str", shape=(), ragged=True)
    maps = FeatureSchema(name="a", dtype="float32", shape=(12,), ragged=False, maps=True)
    dense = FeatureSchema(name="d", dtype="float16", shape=(384,), ragged=False)
    assert feature_bytes(one, **counts) == 700 * 768 + 80
    assert feature_bytes(scale, **counts) == 700 * 8 + 80
    assert feature_bytes(texts, **counts) == 700 * 10 + 80
    assert feature_bytes(maps, **counts) == 12 * 4 * 5000 + 24 + 10 * 32
    assert feature_bytes(dense, **counts) == 7680


@pytest.mark.parametrize("ending", sorted(WRITE_FORMATS))
def test_no_more_disk_is_taken_than_said(
    tmp_path: Path, batch: FeatureBatch, write: Write, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    schemas = SCHEMAS[:1] if ending == "npy" else SCHEMAS
    peak = 0

    def look() -> None:
        nonlocal peak
        for file in parts[0]._names:
            file.flush()
        peak = max(peak, sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()))

    parts: list[StagedOutput] = []
    remove, commit = StagedOutput.remove, StagedOutput.commit

    def looking_remove(self: StagedOutput, file: object) -> None:
        parts[:] = [self]
        look()
        remove(self, file)  # type: ignore[arg-type]

    def looking_commit(self: StagedOutput, *files: object) -> None:
        parts[:] = [self]
        look()
        commit(self, *files)  # type: ignore[arg-type]

    monkeypatch.setattr(StagedOutput, "remove", looking_remove)
    monkeypatch.setattr(StagedOutput, "commit", looking_commit)
    write(tmp_path / f"o.{ending}", [batch], schemas=schemas, column_types={})
    size = forecast(batch, schemas)
    sizes = [forecast(batch, (schema,)) for schema in schemas]
    said = space_needed(ending, size, largest=max(sizes))
    rows, names = 2 * 8 * COUNT, 400 * 2 * len(schemas)
    if ending == "jsonl":
        assert said <= peak  # a bound from below: text has no fixed size
        return
    assert said * 0.95 <= peak <= said * 1.03 + rows + names  # Parquet's levels are a bit a number
    assert space_needed(ending, size) >= said


def test_a_disk_too_small_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def usage(folder: Path) -> SimpleNamespace:
        asked.append(folder)
        return SimpleNamespace(free=3_000_000_000)

    monkeypatch.setattr("shutil.disk_usage", usage)
    missing = tmp_path / "a" / "b" / "o.parquet"
    check_space(missing, 3_000_000_000)
    assert asked == [tmp_path]
    with pytest.raises(OutputError, match=r"o\.parquet: about 3\.00 GB are needed, and 3\.00 GB are free in .*; write"):
        check_space(missing, 3_000_000_001)
    with pytest.raises(OutputError, match=r"about 4\.00 GB are needed \(its temporary .* the output alone 2\.00 GB\)"):
        check_space(tmp_path / "o.npz", 2_000_000_000)
    check_space(tmp_path / "o.npz", 2_000_000_000, largest_bytes=900_000_000)
    with pytest.raises(OutputError, match=r"about 5\.00 GB are needed"):
        check_space(tmp_path / "o.odd", 2_000_000_000, format="jsonl")
    with pytest.raises(OptionError, match="the name does not say the format"):
        check_space(tmp_path / "o.odd", 1)
    check_space("-", 10**15)
