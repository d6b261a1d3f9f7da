"""`layertap.open` of a folder: its shards read as one file."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import layertap
from layertap.data.folder import FolderPlan, Manifest, PlannedColumn, PlannedInput, PlannedShard, ShardRecord
from layertap.data.folder.layout import MANIFEST, PLAN, data_name
from layertap.data.slices import cut, join
from layertap.data.store import folder as folder_module
from layertap.errors import FeatureError, InputError, OptionError
from layertap.records import AttentionMaps, FeatureBatch, FeatureSchema, Ragged

SIZES = (5, 1, 0, 14, 7)
TOTAL = sum(SIZES)


@pytest.fixture
def make_folder(tmp_path: Path, batches, write, stated) -> Callable[..., Path]:
    """A folder of shards with these numbers of records, as an extraction leaves it."""

    def make(sizes: Sequence[int] = SIZES, *, manifest: bool = True, missing: Sequence[int] = ()) -> Path:
        root = tmp_path / "features"
        for name in ("data", "records"):
            (root / name).mkdir(parents=True)
        files = [f"{'a' if i < 2 else 'b'}.jsonl" for i in range(len(sizes))]
        columns = [{"file": files[i], "n": n} for i, size in enumerate(sizes) for n in range(size)]
        (whole,) = batches((sum(sizes),), columns)
        shards, records, begin = [], [], 0
        rows = dict.fromkeys(files, 0)
        for number, size in enumerate(sizes):
            part = FeatureBatch(
                records=whole.records[begin : begin + size],
                features={name: cut(feature, begin, begin + size) for name, feature in whole.features.items()},
            )
            begin += size
            place = write(
                tmp_path / "shard.parquet",
                [part] if size else [],
                column_types={"id": pa.string(), "file": pa.string(), "n": pa.int64()},
            )
            content = place.read_bytes()
            place.unlink()
            sha256 = hashlib.sha256(content).hexdigest()
            first = rows[files[number]]
            rows[files[number]] += size
            shard = PlannedShard(number=number, input=files[number], begin=first, end=first + size)
            record = ShardRecord(
                number=number, input=shard.input, begin=first, end=shard.end, file=data_name(number, sha256), rows=size,
                size=len(content), sha256=sha256, digest="", tokens=0, counts={}, errors=0, errors_sha256=None,
            )  # fmt: skip
            shards.append(shard)
            records.append(record)
            if number not in missing:
                (root / record.place).write_bytes(content)
                (root / f"records/shard-{number:06}.json").write_bytes(record.to_bytes())
        plan = FolderPlan(
            provenance=stated(),
            schemas=tuple(layertap_schemas()),
            details=(),
            columns=(
                PlannedColumn(name="id", type="string", arrow=None, kind="string"),
                PlannedColumn(name="n", type="int64", arrow=None, kind="int"),
            ),
            reading={},
            libraries={},
            bits=1,
            shard_records=16,
            inputs=tuple(
                PlannedInput(name=n, size=1, stamp="", sha256="", rows=rows[n], errors=0) for n in sorted({*files})
            ),
            shards=tuple(shards),
            next_number=len(shards),
        )
        (root / PLAN).write_bytes(plan.to_bytes())
        if manifest and not missing:
            (root / MANIFEST).write_bytes(Manifest(plan=plan.digest, records=tuple(records)).to_bytes())
        return root

    return make


def layertap_schemas() -> list[FeatureSchema]:
    from tests.data.conftest import SCHEMAS

    return list(SCHEMAS)


def assert_same(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(other, Ragged | AttentionMaps):
        assert np.array_equal(one.offsets, other.offsets)
        assert_same(one.values, other.values)
    else:
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert np.array_equal(one, other)


def test_a_relative_path_outlives_a_change_of_the_current_folder(make_folder, monkeypatch, tmp_path):
    root = make_folder()
    monkeypatch.chdir(root.parent)
    with layertap.open(root.name) as file, layertap.open(root) as other:
        monkeypatch.chdir(root)
        assert_same(file["cut_tokens"][-1], other["cut_tokens"][-1])
    with pytest.raises(InputError, match="no such file"):
        layertap.open(tmp_path / "none", partial=True)


@pytest.mark.parametrize("manifest", [True, False], ids=["manifest", "records"])
def test_a_folder_reads_as_one_file(make_folder, batches, schemas, manifest) -> None:
    (whole,) = batches((TOTAL,))
    with layertap.open(make_folder(manifest=manifest)) as file:
        assert len(file) == TOTAL
        assert file.is_complete
        assert dict(file.features) == {schema.name: schema for schema in schemas}
        assert dict(file.provenance) == {"a": "x", "b": 1}
        for name, feature in whole.features.items():
            column = file[name]
            for begin, end in ((0, TOTAL), (3, 9), (5, 6), (6, 6), (19, 22), (26, 27)):
                assert_same(column[begin:end], cut(feature, begin, end))
            for i in (0, 5, 6, 26, -1):
                assert np.array_equal(column[i], feature[i])
            places = [26, 0, 5, 6, 0]
            assert_same(column[places], join(file.features[name], [cut(feature, i, i + 1) for i in places]))
            assert_same(join(file.features[name], list(column.blocks(4))), cut(feature, 0, TOTAL))
            assert all(np.array_equal(a, b) for a, b in zip(column, feature, strict=True))
        assert file.ids is not None
        assert list(file.ids) == [f"id-{i}" for i in range(TOTAL)]
        assert np.array_equal(file.record("id-20")["q"], whole.features["q"][20])
        assert file.columns["file"][:] == ["a.jsonl"] * 6 + ["b.jsonl"] * 21
        assert file.columns["n"][4:8] == [4, 0, 0, 1]
        assert file.rows.tolist() == list(range(TOTAL))
        assert sum(1 for _ in file) == TOTAL
        again = pickle.loads(pickle.dumps(file))
    with again:
        assert_same(again["q"][:], whole.features["q"])
    with pytest.raises(InputError, match="this folder was closed; open it again"):
        file["q"][0]


def test_arrow_takes_files_and_folders(make_folder, batches, write, tmp_path) -> None:
    import polars

    root = make_folder()
    with layertap.open(root) as file:
        table = pa.table(file)
        assert polars.DataFrame(file).shape == table.shape
    assert table.column_names[:4] == ["row", "id", "file", "n"]
    assert table.num_rows == TOTAL
    shards = [pa.parquet.read_table(path) for path in sorted((root / "data").iterdir())]
    assert table.equals(pa.concat_tables(shards))
    (whole,) = batches((TOTAL,))
    expected = table.drop_columns(["file", "n"])
    for ending in ("parquet", "npz", "safetensors"):
        with layertap.open(write(tmp_path / f"o.{ending}", [whole])) as file:
            table = pa.table(file)
            assert {*table.column_names} == {*expected.column_names}
            assert table.select(expected.column_names).equals(expected), ending
    numbers = write(tmp_path / "f.npy", [dense_only(whole)], schemas=[layertap_schemas()[0]], column_types={})
    with layertap.open(numbers) as file:
        assert pa.table(file)["f"].equals(expected["last_hidden_state.mean"])


def dense_only(batch: FeatureBatch) -> FeatureBatch:
    name = layertap_schemas()[0].name
    records = [replace(record, id=None) for record in batch.records]
    return FeatureBatch(records=records, features={name: batch.features[name]})


def test_numpy_takes_columns(make_folder, batches) -> None:
    (whole,) = batches((TOTAL,))
    with layertap.open(make_folder()) as file:
        column = file["hidden_states[:].mean"]
        assert_same(np.asarray(column), whole.features["hidden_states[:].mean"])
        assert np.asarray(column, dtype=np.float64).dtype == np.float64
        with pytest.raises(FeatureError, match="arrays of different lengths"):
            np.asarray(file["tokens"])
        with pytest.raises(ValueError, match="always makes a copy"):
            np.array(column, copy=False)


def test_few_shards_are_open_at_a_time(make_folder, monkeypatch) -> None:
    sizes = (1,) * 30
    with layertap.open(make_folder(sizes)) as file:
        descriptors = Path("/proc/self/fd")
        before = len([*descriptors.iterdir()]) if descriptors.is_dir() else 0
        with ThreadPoolExecutor(8) as pool:
            places = np.random.default_rng(0).permutation(30).tolist() * 4
            values = list(pool.map(lambda i: file["cut_tokens"][i], places))
        assert values == [file["cut_tokens"][i] for i in places]
        assert len(file._storage._shards) == folder_module.OPEN_SHARDS
        if before:
            assert len([*descriptors.iterdir()]) <= before + 2 * folder_module.OPEN_SHARDS


def test_a_list_of_records_opens_each_shard_once(make_folder, batches, monkeypatch) -> None:
    (whole,) = batches((30,))
    with layertap.open(make_folder((3,) * 10)) as file:
        opened = []
        open_shard = file._storage._open_shard
        monkeypatch.setattr(
            file._storage, "_open_shard", lambda record: opened.append(record.number) or open_shard(record)
        )
        places = np.random.default_rng(0).permutation(30)
        assert np.array_equal(file["q"][places], whole.features["q"][places])
        assert sorted(opened) == list(range(10))


def test_an_unfinished_folder_is_opened_on_demand(make_folder, batches) -> None:
    root = make_folder(missing=(1, 4))
    with pytest.raises(InputError, match=r"3 of 5 shards are there; .* partial=True"):
        layertap.open(root)
    (whole,) = batches((TOTAL,))
    with layertap.open(root, partial=True) as file:
        assert not file.is_complete
        assert len(file) == 19
        there = [*range(5), *range(6, 20)]
        assert np.array_equal(file["q"][:], whole.features["q"][there])
        with pickle.loads(pickle.dumps(file)) as again:
            assert len(again) == 19
    nothing = make_empty(root)
    with layertap.open(nothing, partial=True) as file:
        assert len(file) == len(file["q"][:]) == 0
        with pytest.raises(Exception, match="no shard is finished yet"):
            pa.table(file)


def make_empty(root: Path) -> Path:
    for path in (root / "records").iterdir():
        path.unlink()
    return root


def test_shards_that_are_missing_or_damaged_are_named(make_folder) -> None:
    root = make_folder()
    places = sorted((root / "data").iterdir())
    whole = places[3].read_bytes()
    for content, message in {
        None: r"shard-000003-\w+\.parquet: cannot be read: .*; run the extraction again",
        whole[:-1]: r"shard-000003-\w+\.parquet: it has [\d,]+ bytes, and the folder states",
        b"PAR1" + bytes(len(whole) - 8) + b"PAR1": r"shard-000003-\w+\.parquet: it is truncated or damaged",
    }.items():
        places[3].unlink() if content is None else places[3].write_bytes(content)
        with layertap.open(root) as file:
            assert len(file["q"][:6]) == 6
            with pytest.raises(InputError, match=message):
                file["q"][10]
            with pytest.raises(pa.ArrowException, match="shard-000003"):
                pa.table(file)
    swapped = replace_record(root)
    with layertap.open(root) as file, pytest.raises(InputError, match="does not hold the records and features"):
        file["q"][swapped]


def replace_record(root: Path) -> int:
    """Let the records name one shard's file for another's."""
    path = root / MANIFEST
    manifest = Manifest.from_bytes(path.read_bytes(), "m")
    records = list(manifest.records)
    records[0] = replace(records[0], file=records[4].file, size=records[4].size)
    path.write_bytes(Manifest(plan=manifest.plan, records=tuple(records)).to_bytes())
    return 0


def test_other_folders_are_refused(make_folder, tmp_path, write, batches) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match=r"other: this is no folder of features: it has no layertap\.json"):
        layertap.open(tmp_path / "other")
    with pytest.raises(OptionError, match="partial=True is for folders of features"):
        layertap.open(write(tmp_path / "o.parquet", batches()), partial=True)
