"""Stored features as datasets: every record once, whatever the ranks and workers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import layertap
from layertap.data import open_writer
from layertap.errors import OptionError
from layertap.records import FeatureBatch, FeatureSchema, Ragged, Record

torch = pytest.importorskip("torch")
from torch.utils.data import DataLoader  # noqa: E402 - only where torch is installed

from layertap.torch_datasets import FeatureDataset, FeatureIterableDataset, collate  # noqa: E402

N = 23
SCHEMAS = [
    FeatureSchema(name="v", dtype="float32", shape=(3,), ragged=False),
    FeatureSchema(name="t", dtype="float16", shape=(2,), ragged=True),
    FeatureSchema(name="tokens", dtype="str", shape=(), ragged=True),
]
LENGTHS = np.arange(N) % 4


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("stored") / "o.parquet"
    offsets = np.concatenate([[0], np.cumsum(LENGTHS)])
    rows = int(offsets[-1])
    features = {
        "v": np.arange(3 * N, dtype=np.float32).reshape(N, 3),
        "t": Ragged(np.arange(2 * rows, dtype=np.float16).reshape(rows, 2), offsets),
        "tokens": Ragged(np.array([f"w{i}" for i in range(rows)], dtype=object), offsets),
    }
    records = [Record(row=i, text="", id=f"id-{i}", columns={"label": i % 2}) for i in range(N)]
    types = {"id": pa.string(), "label": pa.int64()}
    with open_writer(place, schemas=SCHEMAS, column_types=types, provenance={}) as writer:
        writer.write(FeatureBatch(records=records, features=features))
    return place


def firsts(items) -> list[int]:
    return [int(item["v"][0]) // 3 for item in items]


def test_items(path):
    dataset = FeatureDataset(path, columns=["id", "label"])
    assert len(dataset) == N
    item = dataset[6]
    assert item["v"].tolist() == [18, 19, 20]
    assert (item["t"].dtype, tuple(item["t"].shape)) == (torch.float16, (2, 2))
    assert item["tokens"] == ["w7", "w8"]
    assert (item["id"], item["label"]) == ("id-6", 0)
    assert firsts(dataset.__getitems__([20, 3, 3, 22])) == [20, 3, 3, 22]
    assert firsts([dataset[-1]]) == [22]
    with pytest.raises(IndexError, match="record 23 of 23"):
        dataset[23]
    assert list(FeatureDataset(path, ["v"])[0]) == ["v"]
    item["v"][0] = 5  # tensors have their own memory
    assert dataset[6]["v"][0] == 18


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_returns_each_record_once(path, workers):
    dense = DataLoader(FeatureDataset(path, ["v"], columns=["label"]), batch_size=5, shuffle=True, num_workers=workers)
    batches = list(dense)
    assert [len(batch["v"]) for batch in batches] == [5, 5, 5, 5, 3]
    assert sorted(int(x) // 3 for batch in batches for x in batch["v"][:, 0]) == list(range(N))
    assert batches[0]["label"].dtype == torch.int64
    tokens = DataLoader(FeatureIterableDataset(path), batch_size=4, num_workers=workers, collate_fn=collate)
    items = [(int(v[0]) // 3, len(t)) for batch in tokens for v, t in zip(batch["v"], batch["t"], strict=True)]
    assert sorted(items) == [(i, LENGTHS[i]) for i in range(N)]


@pytest.mark.parametrize("world_size", [1, 2, 5, 30])
def test_ranks_share_the_records(path, world_size):
    ranks = [FeatureIterableDataset(path, ["v"], rank=i, world_size=world_size) for i in range(world_size)]
    assert [i for rank in ranks for i in firsts(rank)] == list(range(N))
    sizes = [len(rank.records) for rank in ranks]
    assert max(sizes) - min(sizes) <= 1
    even = [FeatureIterableDataset(path, ["v"], rank=i, world_size=world_size, even=True) for i in range(world_size)]
    assert [i for rank in even for i in firsts(rank)] == list(range(N - N % world_size))
    assert len({len(rank.records) for rank in even}) == 1


def test_blocks_end_nowhere_between_records(path, monkeypatch):
    monkeypatch.setattr(layertap.FeatureFile, "block_records", lambda *_: 4)
    assert firsts(FeatureIterableDataset(path)) == list(range(N))


def test_wrong_arguments(path, tmp_path):
    for arguments, message in (
        ({"features": ["w"]}, "there is no feature 'w'; there are v, t, tokens"),
        ({"columns": ["w"]}, "there is no column 'w'; there are label, id"),
        ({"features": "v"}, "lists of names"),
        ({"rank": 1}, "rank and world_size belong together"),
        ({"rank": 2, "world_size": 2}, "rank 2 of world_size 2"),
    ):
        with pytest.raises(OptionError, match=message):
            FeatureIterableDataset(path, **arguments)
    with pytest.raises(layertap.InputError, match="no such file"):
        FeatureDataset(tmp_path / "none.parquet")
