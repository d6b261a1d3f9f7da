"""Names of classes from the metadata that the Hugging Face library datasets writes."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from layertap.data import Input, open_reader, open_writer
from layertap.data.input import read_options
from layertap.errors import InputError
from layertap.learn.labelled import LabelledDataset
from layertap.records import FeatureBatch
from layertap.text.units import UnitFinder

LABEL = {"names": ["neg", "pos"], "_type": "ClassLabel"}
TAG = {"names": ["O", "B-PER", "I-PER"], "_type": "ClassLabel"}


def parquet(folder, *, tags=None, features=None, labels=(1, 0, -1)):
    """Two classes of texts, and tags of their words, with the metadata that datasets writes."""
    described = {
        "text": {"dtype": "string", "_type": "Value"},
        "label": LABEL,
        "tags": tags or {"feature": TAG, "length": -1, "_type": "Sequence"},
    }
    metadata = {"huggingface": json.dumps({"info": {"features": features or described}})}
    table = pa.table(
        {
            "text": ["Ann Lee sang", "no", "x"],
            "words": [["Ann", "Lee", "sang"], ["no"], []],
            "label": pa.array(labels, pa.int64()),
            "tags": pa.array([[1, 2, 0], [0], None], pa.list_(pa.int64())),
        }
    ).replace_schema_metadata(metadata)
    path = folder / "a.parquet"
    pq.write_table(table, path, row_group_size=2)
    return path


@pytest.mark.parametrize("tags", [None, [TAG], {"feature": TAG, "_type": "List"}, {"feature": [TAG], "_type": "List"}])
def test_numbers_of_classes_are_read_as_names(tmp_path, tags):
    path = parquet(tmp_path, tags=tags)
    with open_reader(path) as reader:
        assert reader.column_types["label"] == pa.string()
        assert reader.column_types["tags"] == pa.list_(pa.string())
        found = list(reader)
        assert [record.columns["label"] for record in found] == ["pos", "neg", None]
        assert [record.columns["tags"] for record in found] == [["B-PER", "I-PER", "O"], ["O"], None]
        assert "'label', 'tags' are read as the names of classes" in reader.notes[0]
        with open_writer(tmp_path / "o.parquet", schemas=(), column_types=reader.column_types, provenance={}) as writer:
            writer.write(FeatureBatch(records=found, features={}))
    assert pq.read_table(tmp_path / "o.parquet")["tags"].to_pylist() == [["B-PER", "I-PER", "O"], ["O"], None]
    with Input(source=path).open(range(1, 2)) as reader:
        assert [record.columns["label"] for record in reader] == ["neg"]


def test_labels_and_tags_to_learn_from_have_names(tmp_path):
    path = parquet(tmp_path, labels=(1, 0, 1))
    source = Input(source=path, options=read_options(columns=("label",)))
    assert LabelledDataset.read(source, "label", UnitFinder()).labels.values == (("pos",), ("neg",), ("pos",))
    source = Input(source=path, options=read_options(words_column="words", columns=("tags",), on_error="skip"))
    tags = LabelledDataset.read(source, "tags", UnitFinder()).labels.values
    assert tags[0] == ("B-PER", "I-PER", "O")


def test_classes_without_a_name_are_bad_rows(tmp_path):
    path = parquet(tmp_path, labels=(1, 7, 0))
    with (
        pytest.raises(
            InputError, match=r"row 2: column 'label' is 7, and the file's metadata names the classes 0 to 1"
        ),
        open_reader(path) as reader,
    ):
        list(reader)
    with open_reader(path, on_error="skip") as reader:
        assert [record.columns["label"] for record in reader] == ["pos", "neg"]


@pytest.mark.parametrize(
    "features",
    [
        {"label": {"names": [1, 2], "_type": "ClassLabel"}},
        {"label": {"names": ["a", "b"], "_type": "Value"}},
        {"text": LABEL},
        ["label"],
        {"label": "ClassLabel"},
    ],
)
def test_metadata_that_names_nothing_changes_nothing(tmp_path, features):
    with open_reader(parquet(tmp_path, features=features)) as reader:
        assert [record.columns["label"] for record in reader] == [1, 0, -1]
        assert reader.notes == ()
