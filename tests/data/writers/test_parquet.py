from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from layertap.data import open_reader, open_writer
from layertap.errors import InputError, UsageError
from layertap.records import AttentionMaps, FeatureBatch, FeatureSchema, Ragged, Record

Batches = Callable[..., list[FeatureBatch]]
Write = Callable[..., Path]
Schemas = tuple[FeatureSchema, ...]
Stated = Callable[..., dict[str, Any]]


def test_everything_comes_back(
    tmp_path: Path,
    write: Write,
    batches: Batches,
    schemas: Schemas,
    stated: Stated,
) -> None:
    (batch,) = batches()
    path = write(tmp_path / "o.parquet", [batch])
    table = pq.read_table(path)
    assert table.schema.names == ["row", "id", *columns_of(schemas)]
    assert json.loads(table.schema.metadata[b"layertap"]) == stated()
    assert table["row"].to_pylist() == list(range(5))
    assert table["id"].to_pylist() == [f"id-{i}" for i in range(5)]
    for schema in schemas:
        feature = batch.features[schema.name]
        column = table[schema.name].combine_chunks()
        if isinstance(feature, AttentionMaps):
            shapes = table[f"{schema.name}.shape"].to_pylist()
            assert shapes == [list(map_.shape) for map_ in feature]
            for found, shape, map_ in zip(column, shapes, feature, strict=True):
                assert np.array_equal(found.values.to_numpy().reshape(shape), map_)
            continue
        if isinstance(feature, Ragged):
            assert np.array_equal(column.offsets.to_numpy(), feature.offsets)
            column, expected = column.values, feature.values
        else:
            expected = feature
        sizes = []
        while pa.types.is_fixed_size_list(column.type):
            sizes.append(column.type.list_size)
            column = column.values
        assert tuple(sizes) == schema.shape
        assert column.type == pa.from_numpy_dtype(np.dtype(schema.dtype))
        assert np.array_equal(column.to_numpy(zero_copy_only=False).reshape(expected.shape), expected)


def columns_of(schemas: Schemas) -> list[str]:
    return [name for s in schemas for name in ([s.name, f"{s.name}.shape"] if s.maps else [s.name])]


STRINGS = FeatureSchema(name="token_strings", dtype="str", shape=(), ragged=True)


def test_strings_come_back(tmp_path: Path, write: Write) -> None:
    values = np.array(["[CLS]", "\u4e2d", "a\ud800b", ""], dtype=object)
    batch = FeatureBatch(
        records=[Record(row=i, text="") for i in range(3)],
        features={"token_strings": Ragged(values, np.array([0, 1, 1, 4]))},
    )
    path = write(tmp_path / "o.parquet", [batch], schemas=[STRINGS], column_types={})
    assert pq.read_table(path)["token_strings"].to_pylist() == [["[CLS]"], [], ["\u4e2d", "a\ufffdb", ""]]


def test_a_map_too_large_for_a_list_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Write, batches: Batches
) -> None:
    monkeypatch.setattr("layertap.data.writers.parquet.MOST_VALUES", 200)
    with pytest.raises(InputError, match=r"row 4: 'heads' of 5 tokens is more than a Parquet file holds.*heads_mean"):
        write(tmp_path / "o.parquet", batches())
    assert list(tmp_path.iterdir()) == []


def test_row_groups_do_not_depend_on_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Write, batches: Batches
) -> None:
    monkeypatch.setattr("layertap.data.writers.parquet.ROW_GROUP_BYTES", 5_000)
    files = [
        write(tmp_path / f"{i}.parquet", batches(sizes)).read_bytes()
        for i, sizes in enumerate([(300,), (1,) * 300, (7, 250, 43), (7, 250, 43)])
    ]
    assert len(set(files)) == 1
    metadata = pq.read_metadata(tmp_path / "0.parquet")
    assert metadata.num_row_groups > 5
    assert metadata.num_rows == 300


def test_no_records_make_a_whole_file(tmp_path: Path, write: Write, schemas: Schemas) -> None:
    table = pq.read_table(write(tmp_path / "o.parquet", []))
    assert table.num_rows == 0
    assert table.schema.names == ["row", "id", *columns_of(schemas)]


def test_features_are_stored_plain_and_columns_compressed(
    tmp_path: Path, write: Write, batches: Batches, schemas: Schemas
) -> None:
    group = pq.read_metadata(write(tmp_path / "o.parquet", batches())).row_group(0)
    found = {group.column(i).path_in_schema.split(".list")[0]: group.column(i) for i in range(group.num_columns)}
    assert found["id"].compression == "ZSTD"
    for schema in schemas:
        is_detail = schema.dtype in ("int32", "bool")
        assert found[schema.name].compression == ("ZSTD" if is_detail else "UNCOMPRESSED")
        assert found[schema.name].is_stats_set == is_detail
        has_dictionary = schema.dtype in ("int8", "uint8", "int32")  # truth is a bit
        assert ("RLE_DICTIONARY" in found[schema.name].encodings) == has_dictionary
    assert found["heads.shape"].compression == "ZSTD"


@pytest.mark.parametrize("dtype", ["int8", "uint8", "float16", "float32"])
@pytest.mark.parametrize("ragged", [False, True])
def test_numbers_take_their_own_size(tmp_path: Path, write: Write, dtype: Any, ragged: bool) -> None:
    schema = FeatureSchema(name="v", dtype=dtype, shape=(384,), ragged=ragged)
    values = np.random.default_rng(0).integers(0, 256, (2000, 384)).astype(np.uint8).astype(dtype)
    offsets = np.arange(0, 2001, 20)
    feature = Ragged(values, offsets) if ragged else values
    batch = FeatureBatch(records=[Record(row=i, text="") for i in range(len(feature))], features={"v": feature})
    path = write(tmp_path / "o.parquet", [batch], schemas=[schema], column_types={})
    assert path.stat().st_size == pytest.approx(values.nbytes, rel=0.05)
    flat = pq.read_table(path)["v"].combine_chunks().flatten()
    assert np.array_equal((flat.flatten() if ragged else flat).to_numpy().reshape(values.shape), values)


def test_python_values_are_carried_exactly(tmp_path: Path, write: Write, batches: Batches) -> None:
    columns = [{"n": 1, "any": 1}, {"n": None, "any": "1"}, {"any": None}, {"n": 2**60, "any": {"a": [1]}}, {"n": 0}]
    path = write(
        tmp_path / "o.parquet",
        batches((2, 3), columns),
        column_types={"n": pa.int64(), "any": None, "id": pa.string()},
    )
    table = pq.read_table(path)
    assert table.schema.names[:4] == ["row", "id", "n", "any"]
    assert table["n"].to_pylist() == [1, None, None, 2**60, 0]
    assert table["any"].to_pylist() == ["1", "1", None, '{"a": [1]}', None]


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (pa.int64(), 2.5),
        (pa.int64(), 2**63),
        (pa.int64(), "7"),
        (pa.int64(), True),
        (pa.float64(), 2**53 + 1),
        (pa.list_(pa.int64()), [1, 2.5]),
        (pa.bool_(), 1),
    ],
)
def test_a_value_that_does_not_fit_its_type_is_refused(
    tmp_path: Path, type_: pa.DataType, value: Any, write: Write, batches: Batches
) -> None:
    columns = [{"x": None}, {"x": None}, {"x": None}, {"x": value}, {"x": None}]
    with pytest.raises(InputError, match=r"row 4: column 'x': .* leave the column out"):
        write(tmp_path / "o.parquet", batches((5,), columns), column_types={"x": type_})
    assert list(tmp_path.iterdir()) == []


def test_nan_is_a_value(tmp_path: Path, write: Write, batches: Batches) -> None:
    columns = [{"x": 0.5}, {"x": float("nan")}, {}, {"x": 3}, {}]
    table = pq.read_table(
        write(tmp_path / "o.parquet", batches((5,), columns), column_types={"x": pa.float64()}), columns=["x"]
    )
    assert repr(table["x"].to_pylist()) == "[0.5, nan, None, 3.0, None]"


def test_a_column_met_too_late_is_refused(tmp_path: Path, write: Write, batches: Batches) -> None:
    with pytest.raises(InputError, match=r"row 2: column 'x' appears here for the first time"):
        write(tmp_path / "o.parquet", batches((5,), [{}, {"x": 1}, {}, {}, {}]))


@pytest.mark.parametrize("name", ["row", "id", "label"])
def test_a_feature_called_like_a_column_is_refused(tmp_path: Path, name: str) -> None:
    schema = FeatureSchema(name=name, dtype="float32", shape=(4,), ragged=False)
    with pytest.raises(UsageError, match=f"'{name}': a feature and a column of the output have the same name"):
        open_writer(
            tmp_path / "o.parquet",
            schemas=[schema],
            column_types={"id": pa.string(), "label": pa.string()},
            provenance={},
        )
    assert list(tmp_path.iterdir()) == []


def test_a_column_called_row_is_refused(tmp_path: Path, schemas: Schemas) -> None:
    with pytest.raises(UsageError, match="column 'row' cannot be carried"):
        open_writer(tmp_path / "o.parquet", schemas=schemas, column_types={"row": pa.int64()}, provenance={})


def test_jsonl_to_parquet(tmp_path: Path, write: Write, batches: Batches) -> None:
    rows = [{"text": "a", "id": i, "tags": ["x"] * i, "when": str(datetime.date(2020, 1, 1 + i))} for i in range(5)]
    source = tmp_path / "a.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (batch,) = batches()
    with open_reader(source) as reader:
        made = FeatureBatch(records=list(reader), features=batch.features)
        path = write(tmp_path / "o.parquet", [made], column_types=reader.column_types)
    table = pq.read_table(path, columns=["id", "tags", "when"])
    assert table.to_pylist() == [{key: row[key] for key in ("id", "tags", "when")} for row in rows]
