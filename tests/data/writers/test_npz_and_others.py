from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors import safe_open
from safetensors.numpy import load_file

from layertap.data import open_writer
from layertap.data.writers.jsonl import json_numbers
from layertap.errors import InputError, OptionError, UsageError
from layertap.records import AttentionMaps, FeatureBatch, FeatureSchema, Ragged, Record

Batches = Callable[..., list[FeatureBatch]]
Write = Callable[..., Path]
Schemas = tuple[FeatureSchema, ...]
Stated = Callable[..., dict[str, Any]]

DENSE = FeatureSchema(name="f", dtype="float32", shape=(2, 3), ragged=False)


def parts_of(batch: FeatureBatch) -> dict[str, np.ndarray]:
    """Every array that a file of arrays holds, but rows and ids."""
    arrays: dict[str, np.ndarray] = {}
    for name, feature in batch.features.items():
        arrays[name] = feature if isinstance(feature, np.ndarray) else feature.values
        if isinstance(feature, Ragged | AttentionMaps):
            arrays[f"{name}.offsets"] = feature.offsets
        if isinstance(feature, AttentionMaps):
            arrays[f"{name}.shapes"] = np.array([map_.shape for map_ in feature])
    return arrays


def assert_equal(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        assert np.array_equal(found[name], array), name


def dense(count: int, ids: list[Any] | None = None, begin: int = 0) -> FeatureBatch:
    values = np.arange(begin * 6, (begin + count) * 6, dtype=np.float32).reshape(count, 2, 3)
    records = [Record(row=begin + i, text="", id=ids[i] if ids else None) for i in range(count)]
    return FeatureBatch(records=records, features={"f": values})


def test_safetensors_come_back(tmp_path: Path, batches: Batches, write: Write, stated: Stated) -> None:
    path = write(tmp_path / "o.safetensors", batches((5, 1, 14)))
    (whole,) = batches((20,))
    ids = [record.id for record in whole.records]
    found = load_file(path)
    data, offsets = found.pop("id").tobytes(), found.pop("id.offsets")
    assert [data[b:e].decode() for b, e in itertools.pairwise(offsets)] == ids
    assert_equal(found, parts_of(whole) | {"row": np.arange(20)})
    with safe_open(path, framework="numpy") as file:
        assert json.loads(file.metadata()["layertap"]) == stated()
    head = json.loads(path.read_bytes()[8 : 8 + int.from_bytes(path.read_bytes()[:8], "little")])
    for name, entry in head.items():
        if name != "__metadata__":
            assert (
                entry["data_offsets"][0]
                % {"I64": 8, "I32": 4, "F32": 4, "F16": 2, "I8": 1, "U8": 1, "BOOL": 1}[entry["dtype"]]
                == 0
            )


def test_npz_comes_back(tmp_path: Path, batches: Batches, write: Write, stated: Stated) -> None:
    path = write(tmp_path / "o.npz", batches((5, 1, 14)))
    (whole,) = batches((20,))
    with np.load(path, allow_pickle=False) as file:
        found = dict(file)
        assert {name: file[name].shape for name in file}["provenance"] == ()
    assert json.loads(str(found.pop("provenance"))) == stated()
    ids = np.array([record.id for record in whole.records])
    assert_equal(found, parts_of(whole) | {"row": np.arange(20), "id": ids})


def test_npy_comes_back(tmp_path: Path, write: Write, stated: Stated) -> None:
    path = write(tmp_path / "o.npy", [dense(3), dense(2, begin=3)], schemas=[DENSE], column_types={})
    assert np.array_equal(np.load(path, mmap_mode="r"), dense(5).features["f"])
    assert json.loads((tmp_path / "o.npy.provenance.json").read_text()) == stated([DENSE])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["o.npy", "o.npy.provenance.json"]


@pytest.mark.parametrize("name", ["tokens", "layers", "token_offsets", "token_special"])
def test_ragged_npy_comes_back(tmp_path: Path, batches: Batches, write: Write, schemas: Schemas, name: str) -> None:
    chosen = [schema for schema in schemas if schema.name == name]
    path = write(tmp_path / "o.npy", batches((5, 1, 14)), schemas=chosen)
    feature = batches((20,))[0].features[name]
    assert isinstance(feature, Ragged)
    assert np.array_equal(np.load(path), feature.values)
    assert np.load(path).dtype == feature.values.dtype
    assert np.array_equal(np.load(tmp_path / "o.offsets.npy"), feature.offsets)
    beside = ["o.npy", "o.npy.provenance.json", "o.offsets.npy"]
    assert sorted(file.name for file in tmp_path.iterdir()) == beside
    with pytest.raises(UsageError, match=r"o\.npy exists"):
        open_writer(path, schemas=chosen, provenance={})
    # A dense output in its place leaves no ends of another behind.
    write(path, [dense(3)], schemas=[DENSE], overwrite=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == beside[:2]
    (tmp_path / "p.offsets.npy").write_text("mine")
    with pytest.raises(UsageError, match=r"p\.offsets\.npy exists"):
        open_writer(tmp_path / "p.npy", schemas=chosen, provenance={})


def test_no_records_make_whole_arrays(tmp_path: Path, write: Write, schemas: Schemas) -> None:
    empty = load_file(write(tmp_path / "o.safetensors", []))
    with np.load(write(tmp_path / "o.npz", [])) as file:
        zipped = dict(file)
    assert np.load(write(tmp_path / "o.npy", [], schemas=[DENSE])).shape == (0, 2, 3)
    for schema in schemas:
        rest = () if schema.maps else schema.shape
        assert empty[schema.name].shape == zipped[schema.name].shape == (0, *rest)
        if schema.maps:
            assert empty[f"{schema.name}.shapes"].shape == (0, len(schema.shape) + 2)
        if schema.ragged or schema.maps:
            assert empty[f"{schema.name}.offsets"].tolist() == zipped[f"{schema.name}.offsets"].tolist() == [0]
    assert zipped["id"].shape == (0,)
    assert (tmp_path / "o.npy.provenance.json").exists()


@pytest.mark.parametrize(
    ("type_", "ids", "expected"),
    [
        (pa.int16(), [3, -4], [3, -4]),
        (pa.uint64(), [2**64 - 1, 0], [2**64 - 1, 0]),
        (pa.large_string(), ["\u4e2d\u6587 \U0001f600", ""], ["\u4e2d\u6587 \U0001f600", ""]),
        (pa.dictionary(pa.int8(), pa.string()), ["a", "b"], ["a", "b"]),
        (None, ["a", 5], ["a", "5"]),
        (pa.string(), ["a", 5], ["a", "5"]),
    ],
)
def test_ids_of_every_kind(
    tmp_path: Path, write: Write, type_: pa.DataType, ids: list[Any], expected: list[Any]
) -> None:
    options = {"schemas": [DENSE], "column_types": {"id": type_}}
    with np.load(write(tmp_path / "o.npz", [dense(2, ids)], **options)) as file:
        assert file["id"].tolist() == expected
    found = load_file(write(tmp_path / "o.safetensors", [dense(2, ids)], **options))
    if "id.offsets" in found:
        data, bounds = found["id"].tobytes(), found["id.offsets"]
        assert [data[b:e].decode() for b, e in itertools.pairwise(bounds)] == expected
    else:
        assert found["id"].tolist() == expected


def test_string_ids_are_read_back_in_pieces(tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layertap.data.writers.npz.IDS_AT_ONCE", 3)
    ids = [f"\u00e9{'x' * i}" for i in range(10)]
    with np.load(
        write(tmp_path / "o.npz", [dense(10, ids)], schemas=[DENSE], column_types={"id": pa.string()})
    ) as file:
        assert file["id"].tolist() == ids


@pytest.mark.parametrize(
    ("type_", "bad", "message"),
    [
        (pa.string(), None, r"row 2 has no id, and (npz|safetensors) has no null"),
        (pa.int64(), "7", r"row 2: the id '7' has another type"),
        (pa.int64(), 2**63, r"row 2: the id 9223372036854775808 has another type"),
    ],
)
@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_ids_that_do_not_fit_are_refused(
    tmp_path: Path, write: Write, type_: pa.DataType, bad: Any, message: str, ending: str
) -> None:
    good = "a" if type_ == pa.string() else 1
    with pytest.raises(InputError, match=message):
        write(tmp_path / f"o.{ending}", [dense(2, [good, bad])], schemas=[DENSE], column_types={"id": type_})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("bad", "message"), [("x" * 1025, "longer than 1024"), ("a\0", "ends in NUL")])
def test_ids_that_a_numpy_array_does_not_hold_well(tmp_path: Path, write: Write, bad: str, message: str) -> None:
    with pytest.raises(InputError, match=f"row 2: the id .*{message}"):
        write(tmp_path / "o.npz", [dense(2, ["a", bad])], schemas=[DENSE], column_types={"id": pa.string()})


@pytest.mark.parametrize("ending", ["npz", "safetensors", "npy"])
def test_columns_are_refused_by_files_of_arrays(tmp_path: Path, ending: str) -> None:
    types = {"id": pa.string(), "label": pa.int64()}
    with pytest.raises(OptionError, match=rf"{ending} holds no other columns, and 'label' would be carried"):
        open_writer(tmp_path / f"o.{ending}", schemas=[DENSE], column_types=types, provenance={})
    with pytest.raises(OptionError, match=r"'id' would be carried"):
        open_writer(tmp_path / f"o.{ending}", schemas=[DENSE], column_types={"id": pa.float64()}, provenance={})
    assert list(tmp_path.iterdir()) == []


def test_npy_refuses_what_is_not_one_array(tmp_path: Path, schemas: Schemas) -> None:
    for chosen, message in (
        (schemas[2:4], r"npy holds one array, and there are 2 \('q', 'q.scale'\); write npz, safetensors"),
        ((), r"npy holds one array, and there are 0"),
        (schemas[12:13], r"npy holds one array, and 'heads' has a map of its own size for every record; write"),
    ):
        with pytest.raises(OptionError, match=message):
            open_writer(tmp_path / "o.npy", schemas=chosen, provenance={})


@pytest.mark.parametrize(
    ("ending", "name"),
    [("npz", "provenance"), ("safetensors", "__metadata__"), ("npz", "row"), ("safetensors", "id.offsets")],
)
def test_names_that_an_array_file_needs_itself(tmp_path: Path, ending: str, name: str) -> None:
    schema = FeatureSchema(name=name, dtype="float32", shape=(3,), ragged=False)
    with pytest.raises(UsageError, match=r"have the same name"):
        open_writer(tmp_path / f"o.{ending}", schemas=[schema], provenance={})


def test_jsonl_comes_back(tmp_path: Path, batches: Batches, write: Write, schemas: Schemas, stated: Stated) -> None:
    columns: list[dict[str, Any]] = [{"a": i, "\u4e2d": ["\u6587", "\u2028", None, 0.1]} for i in range(5)]
    columns[3]["lone"] = "\ud800"
    path = write(tmp_path / "o.jsonl", batches((2, 3), columns), column_types={"id": pa.string(), "a": pa.int64()})
    (whole,) = batches((5,), columns)
    lines = path.read_bytes().decode().split("\n")
    assert lines.pop() == ""
    assert "\u6587" in lines[0]
    for i, line in enumerate(lines):
        found = json.loads(line)
        assert list(found)[:3] == ["row", "id", "a"]
        assert (found["row"], found["id"]) == (i, f"id-{i}")
        assert {key: found[key] for key in columns[i]} == columns[i]
        for schema in schemas:
            feature = whole.features[schema.name]
            if isinstance(feature, Ragged):
                feature = feature.values[feature.offsets[i] : feature.offsets[i + 1]]
            else:
                feature = feature[i]
            value = np.array(found[schema.name], dtype=schema.dtype).reshape(feature.shape)
            assert np.array_equal(value, feature)
            assert schema.dtype != "bool" or all(isinstance(item, bool) for item in found[schema.name])
    assert json.loads((tmp_path / "o.jsonl.provenance.json").read_text()) == stated()


@settings(max_examples=100, deadline=None)
@given(
    hnp.arrays(
        st.sampled_from([np.float32, np.float16, np.int8, np.uint8]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    )
)
def test_json_numbers_read_back_as_the_same_bits(values: np.ndarray) -> None:
    back = np.array(json.loads(json_numbers(values)), dtype=values.dtype).reshape(values.shape)
    assert np.array_equal(back, values, equal_nan=values.dtype.kind == "f")
    assert np.array_equal(np.signbit(back), np.signbit(values)) or np.isnan(values).any()


def test_json_numbers_are_short() -> None:
    assert json_numbers(np.array([0.1, 1, -0.0, 1e-30], np.float32)) == "[0.1, 1.0, -0.0, 1e-30]"
    assert json_numbers(np.array([math.nan, math.inf, -math.inf], np.float32)) == "[NaN, Infinity, -Infinity]"
    assert json_numbers(np.array(math.nan, np.float32)) == "NaN"
    assert json_numbers(np.zeros((2, 0), np.float32)) == "[[], []]"


STRINGS = FeatureSchema(name="token_strings", dtype="str", shape=(), ragged=True)


@pytest.mark.parametrize("ending", ["safetensors", "npz", "npy"])
def test_strings_are_refused_by_name_before_any_work(tmp_path: Path, ending: str) -> None:
    with pytest.raises(OptionError, match=rf"{ending} holds numbers, and 'token_strings' is text; leave it out, or"):
        open_writer(tmp_path / f"o.{ending}", schemas=[STRINGS], provenance={})
    assert list(tmp_path.iterdir()) == []


def test_strings_and_maps_as_json(tmp_path: Path, write: Write) -> None:
    maps = FeatureSchema(name="a", dtype="float32", shape=(1,), ragged=False, maps=True)
    features = {
        "token_strings": Ragged(np.array(["[CLS]", 'x"\u4e2d', "\ud800"], dtype=object), np.array([0, 1, 1, 3])),
        "a": AttentionMaps(np.array([1, 0.5, 0.5, 0.25, 0.75], np.float32), np.array([1, 0, 2]), (1,)),
    }
    batch = FeatureBatch(records=[Record(row=i, text="") for i in range(3)], features=features)
    path = write(tmp_path / "o.jsonl", [batch], schemas=[STRINGS, maps], column_types={})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"row": 0, "token_strings": ["[CLS]"], "a": [[[1.0]]]},
        {"row": 1, "token_strings": [], "a": [[]]},
        {"row": 2, "token_strings": ['x"\u4e2d', "\ud800"], "a": [[[0.5, 0.5], [0.25, 0.75]]]},
    ]


@pytest.mark.parametrize(
    ("ending", "name"),
    [("safetensors", "a.offsets"), ("safetensors", "a.shapes"), ("npz", "a.shapes"), ("parquet", "a.shape")],
)
def test_names_that_attentions_need_themselves(tmp_path: Path, ending: str, name: str) -> None:
    maps = FeatureSchema(name="a", dtype="float32", shape=(2,), ragged=False, maps=True)
    other = FeatureSchema(name=name, dtype="float32", shape=(3,), ragged=False)
    with pytest.raises(UsageError, match=rf"'{name}': a feature and a column of the output have the same name"):
        open_writer(tmp_path / f"o.{ending}", schemas=[maps, other], provenance={})


def test_jsonl_columns_called_like_other_keys_are_refused(tmp_path: Path, write: Write) -> None:
    for column in ("row", "f", "id"):
        batch = dense(1, ["a"])
        batch = FeatureBatch(records=[Record(row=0, text="", id=None, columns={column: 1})], features=batch.features)
        if column == "id":
            found = json.loads(write(tmp_path / "o.jsonl", [batch], schemas=[DENSE], column_types={}).read_text())
            assert found["id"] == 1
            continue
        with pytest.raises(InputError, match=f"row 1: column '{column}' has the name of another key"):
            write(tmp_path / "o.jsonl", [batch], schemas=[DENSE], column_types={})
        assert list(tmp_path.iterdir()) == []
