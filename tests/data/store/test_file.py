"""`layertap.open`: what was written comes back, a record at a time."""

from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

import layertap
from layertap.data.slices import cut, join
from layertap.errors import FeatureError, InputError, UsageError
from layertap.features.vectors import to_int8
from layertap.records import AttentionMaps, Feature, FeatureBatch, FeatureSchema, Ragged, Record
from tests.selection import slow_except

Batches = Callable[..., list[FeatureBatch]]
Write = Callable[..., Path]
Schemas = tuple[FeatureSchema, ...]

FORMATS = ("parquet", "safetensors", "npz")
DENSE = FeatureSchema(name="f", dtype="float32", shape=(2, 3), ragged=False)


def assert_same(found: Any, expected: Any) -> None:
    assert type(found) is type(expected)
    if isinstance(expected, np.ndarray):
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert np.array_equal(found, expected)
        assert found.flags.writeable
        assert found.flags.aligned
        return
    if isinstance(expected, AttentionMaps):
        assert found.leading == expected.leading
    assert np.array_equal(found.offsets, expected.offsets)
    assert found.offsets.dtype == np.int64
    assert_same(found.values, expected.values)


@pytest.fixture(params=FORMATS)
def ending(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


def test_everything_comes_back(
    tmp_path: Path, batches: Batches, write: Write, schemas: Schemas, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("layertap.data.writers.parquet.ROW_GROUP_BYTES", 3_000)  # several row groups
    path = write(tmp_path / f"o.{ending}", batches((5, 1, 14)))
    (whole,) = batches((20,))
    with layertap.open(path) as file:
        assert len(file) == 20
        assert dict(file.features) == {schema.name: schema for schema in schemas}
        assert dict(file.provenance) == {"a": "x", "b": 1}
        assert file.rows.tolist() == list(range(20))
        assert file.ids is not None
        assert list(file.ids) == file.ids[:] == [record.id for record in whole.records]
        assert file.ids[3:9:2] == ["id-3", "id-5", "id-7"]
        for name, feature in whole.features.items():
            column = file[name]
            assert len(column) == 20
            for i in (0, 7, 19, -1, -20):
                assert_same(column[i], np.array(feature[i]))
            for begin, end in ((0, 20), (3, 4), (2, 17), (5, 5), (9, 2)):
                assert_same(column[begin:end], cut(feature, begin, max(begin, end)))
            assert_same(column[-3:], cut(feature, 17, 20))
            places = [7, 7, 0, -1]
            expected = join(file.features[name], [cut(feature, i % 20, i % 20 + 1) for i in places])
            assert_same(column[places], expected)
            assert_same(column[np.array(places)], expected)
            assert_same(column[15:2:-4], join(file.features[name], [cut(feature, i, i + 1) for i in (15, 11, 7, 3)]))
            assert all(np.array_equal(a, b) for a, b in zip(column, feature, strict=True))
            assert_same(join(file.features[name], list(column.blocks(6))), cut(feature, 0, 20))
            assert [len(block) for block in column.blocks(6)] == [6, 6, 6, 2]
        record = file[11]
        assert list(record) == list(file.features)
        assert all(np.array_equal(record[name], whole.features[name][11]) for name in record)
        by_id = file.record("id-11")
        assert all(np.array_equal(by_id[name], record[name]) for name in record)
        assert {name: len(feature) for name, feature in file[4:9].items()} == dict.fromkeys(record, 5)
        assert sum(1 for _ in file) == 20


def test_what_was_taken_stays_when_the_file_is_closed(
    tmp_path: Path, batches: Batches, write: Write, ending: str
) -> None:
    file = layertap.open(write(tmp_path / f"o.{ending}", batches()))
    column = file["tokens"]
    whole = column[:]
    kept = np.array(whole.values)
    again = pickle.loads(pickle.dumps(file))
    file.close()
    file.close()
    assert np.array_equal(whole.values, kept)
    with pytest.raises(InputError, match=r"this file was closed; open it again"):
        column[0]
    assert np.array_equal(again["tokens"][:].values, kept)


def test_places_that_are_not_there(tmp_path: Path, batches: Batches, write: Write, ending: str) -> None:
    with layertap.open(write(tmp_path / f"o.{ending}", batches())) as file:
        for take in (lambda: file[5], lambda: file["q"][-6], lambda: file["q"][[0, 5]], lambda: file.ids[5]):
            with pytest.raises(IndexError, match=r"record -?\d of 5"):
                take()
        with pytest.raises(KeyError, match=r"no feature 'Q'; there are '"):
            file["Q"]
        with pytest.raises(KeyError, match=r"no record with the id 'id-5'"):
            file.record("id-5")
        assert "q" in file
        assert "row" not in file
        assert repr(file["tokens"]) == "FeatureColumn('tokens', 5 records of float32 [tokens, 4])"


@pytest.mark.parametrize("type_", [pa.int64(), pa.uint64(), pa.string(), pa.dictionary(pa.int8(), pa.string())])
def test_ids_of_every_kind(tmp_path: Path, write: Write, ending: str, type_: pa.DataType) -> None:
    is_text = "string" in str(type_)
    ids: list[Any] = ["\u4e2d", "", "x" * 500] if is_text else [2**40, 0, 5]
    batch = dense(3, [*ids])
    path = write(tmp_path / f"o.{ending}", [batch], schemas=[DENSE], column_types={"id": type_})
    with layertap.open(path) as file:
        assert file.ids is not None
        assert list(file.ids) == ids
        for i, found_id in enumerate(ids):
            assert np.array_equal(file.record(found_id)["f"], batch.features["f"][i])
        with pytest.raises(KeyError):
            file.record(5 if is_text else "5")


def dense(count: int, ids: list[Any] | None = None, rows: list[int] | None = None) -> FeatureBatch:
    values = np.arange(count * 6, dtype=np.float32).reshape(count, 2, 3)
    return FeatureBatch(
        records=[Record(row=rows[i] if rows else i, text="", id=ids[i] if ids else None) for i in range(count)],
        features={"f": values},
    )


def test_ids_twice_and_no_ids(tmp_path: Path, write: Write, ending: str) -> None:
    options = {"schemas": [DENSE], "column_types": {"id": pa.string()}}
    with layertap.open(write(tmp_path / f"a.{ending}", [dense(3, ["x", "y", "x"], [4, 7, 9])], **options)) as file:
        assert file.rows.tolist() == [4, 7, 9]
        assert file.record("y")["f"][0, 0] == 6
        with pytest.raises(UsageError, match=r"2 records have the id 'x': file\[i\] of 0, 2"):
            file.record("x")
    with layertap.open(write(tmp_path / f"b.{ending}", [dense(3)], schemas=[DENSE], column_types={})) as file:
        assert file.ids is None
        with pytest.raises(UsageError, match=r"has no ids; take records by their number"):
            file.record(0)


def test_npy_is_one_feature(tmp_path: Path, write: Write) -> None:
    provenance = {"features": {"v": "hidden_states[-1].mean"}}
    path = write(tmp_path / "o.npy", [dense(4)], schemas=[DENSE], column_types={}, provenance=provenance)
    with layertap.open(path) as file:
        assert dict(file.features) == {"v": FeatureSchema(name="v", dtype="float32", shape=(2, 3), ragged=False)}
        assert file.provenance == provenance
        assert (len(file), file.ids, file.rows.tolist()) == (4, None, [0, 1, 2, 3])
        assert np.array_equal(file["v"][2], dense(4).features["f"][2])


@pytest.mark.parametrize("count", [0, 20])
def test_ragged_npy_is_one_feature(
    tmp_path: Path, batches: Batches, write: Write, schemas: Schemas, count: int
) -> None:
    (schema,) = (schema for schema in schemas if schema.name == "layers")
    provenance = {"features": {"layers": "hidden_states[1:4]"}}
    made = batches((count,)) if count else []
    (tmp_path / "real").mkdir()
    path = write(tmp_path / "real" / "o.npy", made, schemas=[schema], provenance=provenance)
    (tmp_path / "link").symlink_to(path)
    for name in (path, tmp_path / "link"):
        with layertap.open(name) as file:
            assert dict(file.features) == {"layers": schema}
            assert (len(file), file.ids, len(file.rows)) == (count, None, count)
            if count:
                assert_same(file["layers"][3:17], cut(made[0].features["layers"], 3, 17))
    ends = tmp_path / "real" / "o.offsets.npy"
    ends.write_bytes(ends.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"o\.offsets\.npy: it is truncated"):
        layertap.open(path)


def test_strings_from_parquet(tmp_path: Path, write: Write) -> None:
    schema = FeatureSchema(name="token_strings", dtype="str", shape=(), ragged=True)
    feature = Ragged(np.array(["[CLS]", "\u4e2d", ""], dtype=object), np.array([0, 1, 1, 3]))
    batch = FeatureBatch(records=[Record(row=i, text="") for i in range(3)], features={schema.name: feature})
    path = write(tmp_path / "o.parquet", [batch], schemas=[schema], column_types={})
    with layertap.open(path) as file:
        assert file.features[schema.name] == schema
        assert [list(strings) for strings in file[schema.name]] == [["[CLS]"], [], ["\u4e2d", ""]]
        assert_same(file[schema.name][1:], Ragged(feature.values[1:], np.array([0, 0, 2])))


def test_carried_columns_of_parquet_are_no_features(tmp_path: Path, write: Write) -> None:
    batch = dense(2)
    columns = [{"score": 0.5, "s": {"a": {"b": 1}, "c": [1]}, "f.more": 1.0}, {"score": None, "s": None}]
    records = [Record(row=i, text="", columns=columns[i]) for i in range(2)]
    types = {
        "score": pa.float32(),
        "s": pa.struct({"a": pa.struct({"b": pa.int32()}), "c": pa.list_(pa.int8())}),
        "f.more": pa.float32(),
    }
    made = FeatureBatch(records=records, features=batch.features)
    path = write(tmp_path / "o.parquet", [made], schemas=[DENSE], column_types=types)
    with layertap.open(path) as file:
        assert list(file.features) == ["f"]
        assert np.array_equal(file["f"][:], batch.features["f"])


@pytest.mark.parametrize("count", [0, 1])
def test_files_of_no_records_or_one(tmp_path: Path, batches: Batches, write: Write, ending: str, count: int) -> None:
    with layertap.open(write(tmp_path / f"o.{ending}", batches((1,)) if count else [])) as file:
        assert len(file) == count
        assert len(list(file)) == count
        for name, schema in file.features.items():
            found = file[name][:]
            assert len(found) == count
            assert isinstance(found, Ragged) == schema.ragged
        assert file.ids is not None
        assert list(file.ids) == ["id-0"][:count]
        with pytest.raises(KeyError):
            file.record("none")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=4, max_size=4), min_size=1, max_size=5),
    st.sampled_from(FORMATS),
    st.booleans(),
)
def test_int8_is_half_a_scale_step_off_at_most(
    tmp_path_factory: pytest.TempPathFactory, vectors: list[list[float]], ending: str, ragged: bool
) -> None:
    exact = np.array(vectors, np.float32)
    steps, scales = to_int8(exact)
    schemas = [
        FeatureSchema(name="q", dtype="int8", shape=(4,), ragged=ragged),
        FeatureSchema(name="q.scale", dtype="float32", shape=(), ragged=ragged),
    ]
    offsets = np.array([0, len(exact)])
    features: dict[str, Feature] = {
        "q": Ragged(steps, offsets) if ragged else steps,
        "q.scale": Ragged(scales, offsets) if ragged else scales,
    }
    records = [Record(row=i, text="") for i in range(1 if ragged else len(exact))]
    path = tmp_path_factory.mktemp("q") / f"o.{ending}"
    with layertap.data.open_writer(path, schemas=schemas, provenance={}) as writer:
        writer.write(FeatureBatch(records=records, features=features))
    with layertap.open(path) as file:
        column = file["q"].dequantized
        assert column.schema.dtype == "float32"
        found = column[:].values if ragged else column[:]
        assert found.dtype == np.float32
        assert np.array_equal(column[0], found if ragged else found[0])
        assert (np.abs(found - exact) <= scales[:, None] * (0.5 + 1e-4) + 1e-37).all()
        with pytest.raises(FeatureError, match=r"'q\.scale' holds float32; only int8 features have scales"):
            _ = file["q.scale"].dequantized


def test_int8_of_several_layers(tmp_path: Path, write: Write, ending: str) -> None:
    exact = np.random.default_rng(0).standard_normal((3, 2, 4)).astype(np.float32)
    steps, scales = to_int8(exact)
    schemas = [
        FeatureSchema(name="q", dtype="int8", shape=(2, 4), ragged=True),
        FeatureSchema(name="q.scale", dtype="float32", shape=(2,), ragged=True),
    ]
    offsets = np.array([0, 3])
    features = {"q": Ragged(steps, offsets), "q.scale": Ragged(scales, offsets)}
    batch = FeatureBatch(records=[Record(row=0, text="")], features=features)
    with layertap.open(write(tmp_path / f"o.{ending}", [batch], schemas=schemas, column_types={})) as file:
        found = file["q"].dequantized[0]
        assert found.shape == file["q"][0].shape == (3, 2, 4)  # tokens first, as everywhere
        assert np.allclose(found, exact, atol=scales.max() / 2 + 1e-6)


def test_npz_that_was_compressed_since(tmp_path: Path, batches: Batches, write: Write) -> None:
    path = write(tmp_path / "o.npz", batches())
    with np.load(path) as file:
        np.savez_compressed(tmp_path / "c.npz", **dict(file))
    with layertap.open(path) as plain, layertap.open(tmp_path / "c.npz") as packed:
        assert packed.features.keys() == plain.features.keys()
        for name in plain.features:
            assert_same(packed[name][1:4], plain[name][1:4])


# What cannot be opened


def test_files_of_others(tmp_path: Path) -> None:
    array = np.zeros((3, 2), np.float32)
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "a.npz", f=array)
    save_file({"f": array}, tmp_path / "a.safetensors")
    pq.write_table(pa.table({"f": [1.0]}), tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text('{"row": 0}\n')
    (tmp_path / "a.txt").write_text("some text")
    (tmp_path / "empty").write_text("")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x.txt", "text")
    for name, reason in (
        ("a.npy", r"there is no a\.npy\.provenance\.json beside it"),
        ("a.npz", "an npz file of someone else: it has no 'provenance' and 'row'"),
        ("a.safetensors", "a safetensors file of someone else: its metadata has no 'layertap'"),
        ("a.parquet", "a Parquet file of someone else: its metadata has no 'layertap'"),
        ("a.jsonl", "JSONL has its records at no known places; read it line by line"),
        ("a.txt", "it begins with b'some', as none of them does"),
        ("empty", "the file is empty"),
        ("a.zip", "it is truncated or damaged"),
    ):
        with pytest.raises(InputError, match=rf"{name}: {reason}.*; expected a whole Parquet, safetensors, npz or npy"):
            layertap.open(tmp_path / name)
    with pytest.raises(InputError, match=r"none: cannot be read: no such file"):
        layertap.open(tmp_path / "none")
    with pytest.raises(InputError, match=r"this is no folder of features"):
        layertap.open(tmp_path)
    with pytest.raises(InputError, match=r"its name holds a NUL character"):
        layertap.open(tmp_path / "a\0b")
    with pytest.raises(InputError, match=r"its name is too long"):
        layertap.open(tmp_path / ("a" * 300))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match=r"this is a named pipe"):
        layertap.open(tmp_path / "pipe")


@pytest.mark.parametrize("ending", [*FORMATS, "npy"])
def test_a_truncated_file_is_one_error_wherever_it_ends(
    tmp_path: Path, batches: Batches, write: Write, ending: str
) -> None:
    if ending == "npy":
        path = write(tmp_path / "o.npy", [dense(40)], schemas=[DENSE], column_types={})
    else:
        path = write(tmp_path / f"o.{ending}", batches())
    data = path.read_bytes()
    for size in (*range(1, 12), *range(12, len(data) - 1, max(1, len(data) // 97)), len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(InputError, match=rf"o\.{ending}: .*; expected a whole Parquet"):
            layertap.open(path)


def test_damage_is_refused_in_words_or_does_not_matter(
    tmp_path: Path, batches: Batches, write: Write, ending: str
) -> None:
    path = write(tmp_path / f"o.{ending}", batches())
    data, rng = path.read_bytes(), random.Random(4)
    refused = []
    for _ in range(150):
        damaged = bytearray(data)
        for _ in range(rng.randint(1, 3)):
            damaged[rng.randrange(len(data))] = rng.choice([0, 255, 0x30, rng.randrange(256)])
        path.write_bytes(damaged)
        try:
            with layertap.open(path) as file:
                for i in range(len(file)):
                    file[i]
                list(file.ids or [])
                assert len(file.rows) == len(file)
        except InputError as error:
            refused.append(str(error))
    assert len(refused) > 10
    assert all(f"o.{ending}: " in message for message in refused)


# Laziness

MEGABYTE = 1 << 20

READ_TEN = """
import mmap, sys, layertap
def read_bytes():
    fields = dict(line.split(": ") for line in open("/proc/self/io").read().splitlines())
    return int(fields["rchar"])
def resident():
    # pages of mapped files included
    return int(open("/proc/self/statm").read().split()[1]) * mmap.PAGESIZE
with layertap.open(sys.argv[1]) as warm:  # imports
    warm[0]
before, read, most = resident(), read_bytes(), 0
with layertap.open(sys.argv[2]) as file:
    assert len(file) == 100_000
    for i in range(5_000, 100_000, 10_000):
        assert file[i]["f"][0] == i and file["f"].schema.shape == (512,)
        assert file[i]["t"].shape[0] == i % 3
        most = max(most, resident())
    if "parquet" not in sys.argv[1]:
        assert file.record("id-77777")["f"][0] == 77_777
    most = max(most, resident())
print(most - before, read_bytes() - read)
"""


@pytest.mark.slow  # it writes 200 MB of each format
def test_ten_records_of_a_hundred_thousand_cost_ten_records(tmp_path: Path, write: Write, ending: str) -> None:
    """200 MB of vectors; the memory that reading takes is told by the system, of a process of its own."""
    if not Path("/proc/self/io").exists():
        pytest.skip("this system does not tell what a process has read")
    schemas = [
        FeatureSchema(name="f", dtype="float32", shape=(512,), ragged=False),
        FeatureSchema(name="t", dtype="int32", shape=(), ragged=True),
    ]

    def made(begin: int, end: int) -> FeatureBatch:
        rows = np.arange(begin, end)
        values = np.broadcast_to(rows[:, None].astype(np.float32), (len(rows), 512))
        offsets = np.concatenate([[0], np.cumsum(rows % 3)])
        features = {"f": values, "t": Ragged(np.zeros(offsets[-1], np.int32), offsets)}
        return FeatureBatch(records=[Record(row=i, text="", id=f"id-{i}") for i in rows.tolist()], features=features)

    options = {"schemas": schemas, "column_types": {"id": pa.string()}}
    small = write(tmp_path / f"small.{ending}", [made(0, 10)], **options)
    large = write(tmp_path / f"large.{ending}", [made(i, i + 5_000) for i in range(0, 100_000, 5_000)], **options)
    assert large.stat().st_size > 195 * MEGABYTE
    done = subprocess.run([sys.executable, "-c", READ_TEN, small, large], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    memory, read = map(int, done.stdout.split())
    # Parquet: ten row groups of 8 MiB pass, few stay (Arrow gives memory back late).
    # The others read all ids, which take 32 bytes each in npz.
    assert memory < (128 if ending == "parquet" else 24) * MEGABYTE
    assert read < (100 if ending == "parquet" else 4) * MEGABYTE


# A file that changes while it is open

READ_ON = """
import os, shutil, sys, time, layertap
from layertap.errors import InputError
path, other, change = sys.argv[1:]
file = layertap.open(path)
before = file[3]
time.sleep(0.02)
if change == "truncate":
    os.truncate(path, os.path.getsize(path) // 2)
elif change == "empty":
    os.truncate(path, 0)
elif change == "copy":
    shutil.copyfile(other, path)
elif change == "rename":
    os.replace(other, path)
elif change == "remove":
    os.unlink(path)
try:
    for i in range(len(file)):
        file[i]
    assert all((file[3][name] == value).all() for name, value in before.items())
    assert file.record("id-7") is not None
except InputError as error:
    print(error)
    sys.exit(7)
"""


@pytest.mark.parametrize("change", slow_except(["truncate", "empty", "copy", "rename", "remove"], "truncate", "rename"))
def test_a_file_that_changes_is_an_error_and_one_that_is_replaced_is_read_on(
    tmp_path: Path, batches: Batches, write: Write, ending: str, change: str
) -> None:
    """In a process of its own: a mapping of a truncated file ends it with SIGBUS."""
    path = write(tmp_path / f"o.{ending}", batches((20,)))
    other = write(tmp_path / f"other.{ending}", batches((7, 13)))
    done = subprocess.run(
        [sys.executable, "-c", READ_ON, path, other, change], capture_output=True, text=True, check=False
    )
    if change in ("rename", "remove"):
        assert done.returncode == 0, done.stderr
    else:
        assert done.returncode == 7, done.stderr
        assert f"o.{ending}: it changed after it was opened: it" in done.stdout


def test_many_threads_read_one_file(tmp_path: Path, batches: Batches, write: Write, ending: str) -> None:
    path = write(tmp_path / f"o.{ending}", batches((20,)))
    with layertap.open(path) as file:
        expected = [file[i] for i in range(20)]

        def read(i: int) -> None:
            assert file.record(f"id-{i % 20}").keys() == expected[0].keys()
            for name, values in file[i % 20].items():
                assert np.array_equal(values, expected[i % 20][name])

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(read, range(400)))


def test_a_mask_is_no_list_of_records(tmp_path: Path, batches: Batches, write: Write, ending: str) -> None:
    with layertap.open(write(tmp_path / f"o.{ending}", batches())) as file:
        for mask in ([True, False], np.array([True, False])):
            with pytest.raises(TypeError, match="not by a mask"):
                file["q"][mask]
        with pytest.raises(TypeError):
            file["q"][[0.5]]
        with pytest.raises(UsageError, match="an id is a str or an int, not list"):
            file.record([1])


def test_an_npy_file_whose_offsets_are_lost_is_refused(tmp_path, make_checkpoint):
    model, texts = make_checkpoint(tmp_path / "model"), tmp_path / "texts.txt"
    texts.write_text("one\ntwo three\n")
    for feature, is_ragged in (("last_hidden_state", True), ("last_hidden_state.mean", False)):
        path = tmp_path / f"{is_ragged}.npy"
        layertap.extract(texts, path, feature, model=model)
        assert len(layertap.open(path)) == 2
        ends = path.with_name(f"{path.stem}.offsets.npy")
        assert ends.exists() == is_ragged
        if is_ragged:
            ends.unlink()
            with pytest.raises(InputError, match=r"no True\.offsets\.npy beside it, which says where each record ends"):
                layertap.open(path)
