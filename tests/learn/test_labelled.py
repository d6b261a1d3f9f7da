"""Labelled datasets: files and texts in memory, places in messages, notations of labels, inputs that are read once."""

from __future__ import annotations

import json
import os
import threading

import pytest

from layertap.data.input import Input, read_options
from layertap.errors import InputError
from layertap.learn.labelled import LabelledDataset, LabelledTexts
from layertap.learn.labels import check_labels, labels_of
from layertap.records import Record
from layertap.text.units import UnitFinder

FINDER = UnitFinder(words=True)


def file_of(path, content, column="y"):
    path.write_text(content)
    return Input(source=path, options=read_options(columns=(column,)))


def values(dataset):
    return [label for (label,) in dataset.labels.values]


@pytest.mark.parametrize(
    ("csv", "jsonl", "labels"),
    [
        (["1.0", "2.0"], [1.0, 2.0], ["1", "2"]),
        (["1", "2.0"], [1, 2.0], ["1", "2"]),
        (["-0.0", "10.00"], [-0.0, 10.0], ["0", "10"]),
        (["True", "False"], [True, False], ["true", "false"]),
        (["1.0", "2.5"], [1.0, 2.5], ["1", "2.5"]),
        (["01", "1.0"], ["01", 1], ["01", "1"]),
        (["True", "maybe"], [True, "maybe"], ["true", "maybe"]),
    ],
)
def test_a_label_is_one_in_every_notation(tmp_path, csv, jsonl, labels):
    rows = "".join(f"text {i},{label}\n" for i, label in enumerate(csv))
    one = LabelledDataset.read(file_of(tmp_path / "x.csv", "text,y\n" + rows), "y", FINDER)
    lines = "".join(json.dumps({"text": f"text {i}", "y": label}) + "\n" for i, label in enumerate(jsonl))
    other = LabelledDataset.read(file_of(tmp_path / "x.jsonl", lines), "y", FINDER)
    assert values(one) == values(other) == labels


@pytest.mark.parametrize("in_memory", [True, False])
def test_messages_name_file_line_and_column(tmp_path, in_memory):
    def read(content):
        source = file_of(tmp_path / "x.csv", content)
        return LabelledDataset.read(source, "y", FINDER, in_memory=in_memory)

    with pytest.raises(InputError, match=r"x\.csv, line 4: column 'y' is empty; fill it in, or remove the row"):
        read('text,y\n"two\nlines",a\nb,\n')
    with pytest.raises(InputError, match=r"x\.csv, line 3: column 'y' is empty, as in 2 of 3 rows"):
        read("text,y\na,b\nb,\nc,\n")
    with pytest.raises(InputError, match=r"x\.csv: there are no rows; rows with a text and a label are needed"):
        read("text,y\n")


def test_an_id_is_named_beside_the_line(tmp_path):
    source = file_of(tmp_path / "x.jsonl", '{"id": "k7", "text": "a", "y": {}}\n')
    with pytest.raises(InputError, match=r"x\.jsonl, line 1 \(id 'k7'\): column 'y' is {}; expected a string"):
        LabelledDataset.read(source, "y", FINDER)


def test_records_of_a_file_can_be_read_again(tmp_path):
    source = file_of(tmp_path / "x.csv", "text,y\na,1\nb,2\n")
    dataset = LabelledDataset.read(source, "y", FINDER, in_memory=False)
    assert [[record.text for record in dataset.records] for _ in range(2)] == [["a", "b"]] * 2
    (tmp_path / "x.csv").write_text("text,y\na,1\nb,2\nc,3\n")
    with pytest.raises(InputError, match="changed while it was read"):
        list(dataset.records)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_read_once(tmp_path):
    place = tmp_path / "pipe.csv"
    os.mkfifo(place)
    writer = threading.Thread(target=place.write_text, args=("text,y\na,1\nb,2\n",))
    writer.start()
    source = Input(source=place, options=read_options(columns=("y",)))
    dataset = LabelledDataset.read(source, "y", FINDER, in_memory=False)
    writer.join()
    assert [[record.text for record in dataset.records] for _ in range(2)] == [["a", "b"]] * 2
    assert values(dataset) == ["1", "2"]


def test_texts_in_memory():
    dataset = LabelledDataset.of_texts([("a", "b"), ["c", "d", "f"], "e"], ["x", "y", "x"], FINDER, source="data")
    assert [(record.text, record.pair, record.words) for record in dataset.records] == [
        ("a", "b", None),
        ("c d f", None, ("c", "d", "f")),
        ("e", None, None),
    ]
    assert (len(dataset), dataset.task) == (3, "text")
    assert [record.text for record in dataset.subset([2]).records] == ["e"]
    assert values(dataset.subset([1])) == ["y"]
    with pytest.raises(InputError, match="data: text 1 is int; expected a str"):
        LabelledDataset.of_texts(["a", 3], ["x", "y"], FINDER, source="data")
    with pytest.raises(InputError, match="data: 1 texts and 2 labels"):
        LabelledDataset.of_texts(["a"], ["x", "y"], FINDER, source="data")
    with pytest.raises(InputError, match="data: a single text and 1 labels"):
        LabelledDataset.of_texts("a", ["x"], FINDER, source="data")


def test_pairs_in_memory():
    dataset = LabelledTexts(texts=["a", "b"], labels=[1, 2], pairs=["c", "d"]).dataset(FINDER)
    assert [(record.text, record.pair) for record in dataset.records] == [("a", "c"), ("b", "d")]
    with pytest.raises(InputError, match="data: 2 texts and 1 second texts"):
        LabelledTexts(texts=["a", "b"], labels=[1, 2], pairs=["c"]).dataset(FINDER)
    with pytest.raises(InputError, match="text 0 is a list of words, and pairs are of texts"):
        LabelledTexts(texts=[["a"]], labels=[1], pairs=["c"]).dataset(FINDER)


def labels_from(*given, source="data"):
    located = [(f"line {i}", Record(row=i, text="a b", columns={"y": label})) for i, label in enumerate(given, start=1)]
    return labels_of(located, "y", source=source, finder=FINDER)


def test_lists_and_single_labels_are_not_mixed():
    with pytest.raises(InputError, match="data, line 2: column 'y' holds a list, and single labels in the rows before"):
        labels_from("a", ["a", "b"])
    with pytest.raises(InputError, match="line 2: column 'y' holds a single label, and lists in the rows before"):
        labels_from(["a", "b"], "a")


def test_a_dataset_without_words_is_refused_whatever_it_is_for():
    train = labels_from(["A", "B"], ["A", "B"])
    empty = labels_of([("line 1", Record(row=0, text="", columns={"y": []}))], "y", source="test", finder=FINDER)
    with pytest.raises(InputError, match="test: no text has a word"):
        check_labels(train, [empty], scheme="tags")
    with pytest.raises(InputError, match="test: no text has a word"):
        check_labels(empty, [], scheme="tags")


def test_classes_are_encoded_as_the_scheme_learns_them():
    train = labels_from(["B-x", "I-x"], ["O", "B-x"], ["O", "I-x"])
    encoder = check_labels(train, [], scheme="io")
    assert encoder.classes == ("I-x", "O")
    assert encoder.marks_entities
    assert [classes.tolist() for classes in encoder.encode(train)] == [[0, 0], [1, 0], [1, 0]]
    assert check_labels(train, []).classes == ("B-x", "I-x", "O")


@pytest.mark.parametrize("labels", [[["a", "b"], ["a"]], ["a", ["a", "b"]], ["['a', 'b']", "['a']"], ['["a"]', "[]"]])
def test_several_labels_per_text_are_refused_in_words_that_say_so(tmp_path, labels):
    lines = "".join(json.dumps({"text": "one two three", "y": label}) + "\n" for label in labels)
    source = file_of(tmp_path / "x.jsonl", lines)
    with pytest.raises(InputError, match=r"Several labels per text are not supported: give each label a column"):
        LabelledDataset.read(source, "y", FINDER)


@pytest.mark.parametrize("in_memory", [True, False])
def test_rows_without_a_usable_label_are_skipped_and_listed(tmp_path, in_memory):
    rows = ["text,y", "a,1", "b,", "c,2,too many", "d,2", "e,1.0"]
    (tmp_path / "x.csv").write_text("\n".join(rows) + "\n")

    def read(most=None):
        options = read_options(columns=("y",), on_error="skip", max_errors=most)
        return LabelledDataset.read(Input(source=tmp_path / "x.csv", options=options), "y", FINDER, in_memory=in_memory)

    dataset = read()
    assert values(dataset) == ["1", "2", "1"]
    assert [[record.text for record in dataset.records] for _ in range(2)] == [["a", "d", "e"]] * 2
    assert len(dataset.text_keys) == 3
    assert [(error.row, error.where) for error in dataset.skipped] == [(1, "line 3"), (2, "line 4")]
    assert "column 'y' is empty" in dataset.skipped[0].reason
    assert len(read(2).skipped) == 2
    with pytest.raises(InputError, match=r"x\.csv: 2 rows cannot be used, and 1 are allowed \(--max-errors\)"):
        read(1)
