"""One order of axes in Python and in every file, and names that say it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import layertap
from layertap.data.store.axes import with_axes
from layertap.records import FeatureBatch, FeatureSchema, Ragged, Record

Write = Callable[..., Path]

WORDS = FeatureSchema(name="w", dtype="float32", shape=(2, 4), ragged=True, axes=("word", "layer", "dim"))
OFFSETS = np.array([0, 3, 3, 8])
VALUES = np.arange(64, dtype=np.float32).reshape(8, 2, 4)


def batch(**columns: list[Any]) -> FeatureBatch:
    records = [
        Record(row=i, text="", columns={name: values[i] for name, values in columns.items()})
        for i in range(len(OFFSETS) - 1)
    ]
    return FeatureBatch(records=records, features={"w": Ragged(VALUES, OFFSETS)})


@pytest.mark.parametrize("ending", ["parquet", "safetensors", "npz", "npy", "jsonl"])
def test_words_come_first_and_layers_second_in_python_and_in_every_file(tmp_path: Path, write: Write, ending: str):
    expected = [VALUES[0:3], VALUES[3:3], VALUES[3:8]]
    results = batch().features["w"]
    path = write(tmp_path / f"o.{ending}", [batch()], schemas=[WORDS], column_types={}, provenance={})
    if ending == "jsonl":
        stored = [np.array(json.loads(line)["w"]) for line in path.read_text().splitlines()]
        named = json.loads((tmp_path / "o.jsonl.provenance.json").read_text())["axes"]
        assert named == {"w": ["record", "word", "layer", "dim"]}
    else:
        with layertap.open(path) as file:
            name = next(iter(file.features))
            stored = [record[name] for record in file]
            assert file.provenance == {}
            if ending != "npy":
                assert file.features[name].axes == ("word", "layer", "dim")
                assert "'w': float32 [words, 2 layers, 4]" in repr(file)
                assert repr(file["w"]) == "FeatureColumn('w', 3 records of float32 [words, 2 layers, 4])"
    for one, other, array in zip(stored, results, expected, strict=True):
        assert other.shape == array.shape
        assert np.array_equal(one.reshape(array.shape), array)
        assert np.array_equal(other, array)
        assert one.shape == array.shape or not array.size


def test_a_parquet_column_in_pandas_has_the_same_order_and_its_field_names_it(tmp_path: Path, write: Write):
    path = write(tmp_path / "o.parquet", [batch()], schemas=[WORDS], column_types={}, provenance={})
    column = pq.read_table(path).to_pandas()["w"]
    assert np.array_equal(np.array([list(map(list, word)) for word in column[0]]), VALUES[0:3])
    assert json.loads(pq.read_schema(path).field("w").metadata[b"axes"]) == ["record", "word", "layer", "dim"]


@pytest.mark.parametrize(
    ("name", "features", "first"),
    [
        ("w", {"w": "hidden_states[:].words(mean)"}, "word"),
        ("w.scale", {"w": "hidden_states[:].spans(mean).astype(int8)"}, "span"),
        ("h", {"h": "hidden_states[:]"}, "token"),
        ("word_offsets", {"h": "hidden_states[:]"}, "word"),
        ("h", {"h": "((("}, "token"),
        ("h", 3, "token"),
    ],
)
def test_files_that_name_no_axes_get_the_names_of_their_features(name: str, features: object, first: str):
    schema = FeatureSchema(name=name, dtype="float32", shape=(2, 4), ragged=True)
    assert with_axes(schema, {"features": features}).axes == (first, "layer", "dim")


@pytest.mark.parametrize("stated", [["record", "word"], ["word", "layer", "dim", "x"], "word", [1, 2, 3, 4], None])
def test_axes_that_do_not_go_with_the_array_are_not_believed(stated: object):
    schema = FeatureSchema(name="h", dtype="float32", shape=(2, 4), ragged=True)
    assert with_axes(schema, {"axes": {"h": stated}}).axes == ("token", "layer", "dim")
    assert with_axes(schema, {"axes": stated}).axes == ("token", "layer", "dim")


def test_columns_of_the_input_are_shown_and_read(tmp_path: Path, write: Write):
    columns = {"label": ["pos", None, "neg"], "n": [1, 2, 3]}
    types = {"label": pa.string(), "n": pa.int64()}
    path = write(tmp_path / "o.parquet", [batch(**columns)], schemas=[WORDS], column_types=types)
    with layertap.open(path) as file:
        assert "columns ['label', 'n']" in repr(file)
        assert list(file.columns) == ["label", "n"]
        assert list(file.columns["label"]) == file.columns["label"][:] == columns["label"]
        assert (file.columns["n"][-1], file.columns["n"][::2]) == (3, [1, 3])
        assert repr(file.columns["n"]) == "CarriedColumn('n', 3 records, int64)"
        with pytest.raises(IndexError, match="record 3 of 3"):
            file.columns["n"][3]
        with pytest.raises(
            KeyError, match=r"'label' is a column of the input, and no feature: file.columns\['label'\]"
        ):
            file["label"]
