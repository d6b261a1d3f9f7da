"""Kinds of values: strings stay strings, mixed scalars become plain text, in every output and through a pipe."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import layertap.data.store as store
from layertap.data import open_reader, open_writer
from layertap.data.json_text import plain_text
from layertap.data.json_types import arrow_type, kind_of, merge
from layertap.records import FeatureBatch, FeatureSchema
from tests.writing import write

VECTOR = FeatureSchema(name="v", dtype="float32", shape=(2,), ragged=False)


def rewritten(source, output, **options):
    """Read a file, and write what it carries beside a feature."""
    with open_reader(source, **options) as reader:
        types = reader.column_types
        rows = list(reader)
    with open_writer(output, schemas=(VECTOR,), column_types=types, provenance={}, overwrite=True) as writer:
        writer.write(FeatureBatch(records=rows, features={"v": np.zeros((len(rows), 2), np.float32)}))
    return writer


@pytest.mark.parametrize("suffix", ["parquet", "npz", "safetensors"])
def test_ids_of_several_kinds_are_found_by_their_text(tmp_path, suffix):
    path = write(tmp_path / "a.jsonl", [{"text": "a", "id": "1a"}, {"text": "b", "id": 2}, {"text": "c", "id": 2**70}])
    rewritten(path, tmp_path / f"o.{suffix}", columns=[])
    with store.open(tmp_path / f"o.{suffix}") as file:
        assert list(file.ids) == ["1a", "2", str(2**70)]
        assert [file.record(name)["v"].shape for name in ("1a", "2")] == [(2,)] * 2


def test_mixed_scalars_become_plain_text_and_strings_stay(tmp_path):
    values = ["word", 5, 0.5, True, None, "5", 2**70, '\u4e2d "q"']
    path = write(tmp_path / "a.jsonl", [{"text": "a", "value": value} for value in values])
    writer = rewritten(path, tmp_path / "o.parquet")
    column = pq.read_table(tmp_path / "o.parquet")["value"].to_pylist()
    assert column == ["word", "5", "0.5", "true", None, "5", str(2**70), '\u4e2d "q"']
    assert writer.notes == ()


def test_a_column_of_nulls_and_then_strings_is_alike_from_a_file_and_through_a_pipe(tmp_path, monkeypatch):
    rows = [{"text": "a", "late": None}] * 1500 + [{"text": "b", "late": "word"}]
    path = write(tmp_path / "a.jsonl", rows)
    rewritten(path, tmp_path / "file.parquet")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes())))
    rewritten("-", tmp_path / "pipe.parquet", format="jsonl")
    tables = [pq.read_table(tmp_path / name) for name in ("file.parquet", "pipe.parquet")]
    assert tables[0].equals(tables[1])
    assert tables[1]["late"].to_pylist()[-1] == "word"


def test_columns_that_become_json_text_are_noted(tmp_path):
    rows = [{"text": "a", "o": {"x": 1}, "m": [1, "a"], "s": "plain"}, {"text": "b", "o": "plain", "m": None, "s": "x"}]
    writer = rewritten(write(tmp_path / "a.jsonl", rows), tmp_path / "o.parquet")
    table = pq.read_table(tmp_path / "o.parquet")
    assert table["o"].to_pylist() == ['{"x": 1}', "plain"]
    assert table["m"].to_pylist() == ['[1, "a"]', None]
    assert ["'o', 'm'" in note and "JSON text" in note for note in writer.notes] == [True]


def test_a_number_beyond_doubles_is_its_text(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"text": "a", "id": 1e400}\n{"text": "b", "id": "x"}\n')
    with open_reader(path) as reader:
        assert [record.id for record in reader] == ["1e400", "x"]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([None], "null"),
        ([1, "a"], "text"),
        ([True, 1], "text"),
        ([1, 2**60], "long"),
        ([0.5, 2**60], "text"),
        ([[1], ["a"]], "json"),
        ([{}, "a"], "json"),
        ([2**70], "text"),
    ],
)
def test_kinds(values, kind):
    seen = "null"
    for value in values:
        seen = merge(seen, kind_of(value))
    assert seen == kind
    assert arrow_type(kind) == {"null": pa.string(), "text": pa.string(), "long": pa.int64(), "json": None}[kind]


def test_plain_text_of_a_lone_surrogate_is_json():
    assert plain_text("\ud800") == '"\\ud800"'
