"""Stored features on a page: its numbers are those of the file, and what cannot be shown is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

import layertap
from layertap.data.input import Input, read_options
from layertap.engine.extractor import Extractor
from layertap.errors import InputError, OptionError, UsageError
from layertap.learn.exploring.contents import PageOptions, stored_exploration
from layertap.learn.exploring.stored import layer_numbers, read_stored

pytest.importorskip("sklearn")

TEXTS = [f"a good film {i}" if i % 2 else f"the dull movie {i} bank" for i in range(24)]
FEATURES = ["h = hidden_states[1:].mean", "p = last_hidden_state.cls", "w = hidden_states[:].words(mean)"]


@pytest.fixture(scope="module")
def folder(make_checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stored")
    make_checkpoint(folder / "m")
    rows = [{"text": text, "mood": "up" if i % 2 else "down", "id": f"t{i}"} for i, text in enumerate(TEXTS)]
    (folder / "texts.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    options = {"model": folder / "m", "features": FEATURES}
    layertap.extract(folder / "texts.jsonl", folder / "f.parquet", **options)
    layertap.extract(folder / "texts.jsonl", folder / "with.parquet", columns=["text", "mood"], **options)
    layertap.extract(folder / "texts.jsonl", folder / "f.npz", **options)
    layertap.extract(folder / "texts.jsonl", folder / "d.parquet", details=["word_texts"], **options)
    quantised = ["q = hidden_states[1:].mean.astype(int8)", "a = attentions[0]"]
    layertap.extract(folder / "texts.jsonl", folder / "q.safetensors", model=folder / "m", features=quantised)
    return folder


@pytest.fixture(scope="module")
def extractor(folder) -> Extractor:
    return Extractor.from_pretrained(folder / "m")


def cosines_of(vectors):
    units = vectors.astype(np.float64)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    return units @ units.T


@pytest.mark.parametrize("name", ["f.parquet", "f.npz", "q.safetensors"])
def test_numbers_are_those_of_extract(folder, extractor, name):
    with layertap.open(folder / name) as file:
        points = read_stored(file, most=99, seed=0)
    content = stored_exploration(points, PageOptions(), extractor=None, why_no_model="", commands={}).content
    layers = [layer["name"] for layer in content.facts["layers"]]
    expected = [f"hidden_states[{i}]" for i in (1, 2, 3)] + ([] if name.startswith("q") else ["p"])
    assert layers == expected
    exact = extractor.extract(TEXTS, "hidden_states[1:].mean")
    for i in range(3):
        near = content.arrays[f"near{i}"].astype(int)
        cosines = np.take_along_axis(cosines_of(exact[:, i]), near, axis=1)
        np.testing.assert_allclose(content.arrays[f"cosine{i}"], cosines, atol=2e-3 if name.startswith("q") else 1e-5)
    assert content.facts["texts"] is None
    assert "hold no texts" in content.facts["notes"][0]
    assert "the features hold no texts" in content.facts["why_no_sentences"]
    assert content.facts["ids"][3] == "t3"


def test_the_code_of_a_layer_reads_its_vectors(folder):
    with layertap.open(folder / "q.safetensors") as file:
        points = read_stored(file, most=99, seed=0)
    for layer in points.layers:
        names = {"layertap": layertap, "np": np}
        exec(layer.code, names)
        np.testing.assert_array_equal(names["v"], layer.vectors)


@pytest.mark.parametrize("held", ["carried", "input", "details"])
def test_words_are_points_with_the_characters_of_their_texts(folder, extractor, held):
    name = {"carried": "with.parquet", "input": "f.parquet", "details": "d.parquet"}[held]
    texts = Input(source=folder / "texts.jsonl", options=read_options()) if held == "input" else None
    label = None if held == "details" else "mood"
    with layertap.open(folder / name) as file:
        points = read_stored(file, features=["w"], label=label, texts=texts, most=40, seed=1)
    corpus, units = points.corpus, points.corpus.units
    assert units is not None
    words = [text.split() for text in TEXTS]
    assert (len(corpus), corpus.total) == (40, sum(map(len, words)))
    exact = extractor.extract(TEXTS, "hidden_states[:].words(mean)")
    for point, (owner, number) in enumerate(zip(units.owners.tolist(), units.numbers.tolist(), strict=True)):
        row = corpus.rows[owner]
        assert units.names[point] == words[row][number]
        begin, end = units.chars[point].tolist()
        assert corpus.records[owner].text[begin:end] == units.names[point]
        for layer in range(4):
            np.testing.assert_allclose(points.layers[layer].vectors[point], exact[row][number, layer], atol=1e-5)
    content = stored_exploration(points, PageOptions(sentences=2), extractor=extractor, why_no_model="", commands={})
    facts = content.content.facts
    assert facts["unit"] == "word"
    assert facts["contexts"] == corpus.texts
    assert all(facts["contexts"][one["index"]] == one["text"] for one in facts["sentences"])
    assert (facts["probe"] is None) == (label is None)


def test_a_sample_of_records_keeps_those_asked_for(folder):
    with layertap.open(folder / "with.parquet") as file:
        points = read_stored(file, features=["h"], label="mood", most=6, seed=0, kept=(23,))
        assert len(points.corpus) == 6
        assert points.corpus.total == 24
        assert 23 in points.corpus.rows
        assert points.corpus.texts == [TEXTS[row] for row in points.corpus.rows]
        np.testing.assert_array_equal(points.layers[0].vectors, file["h"][list(points.corpus.rows)][:, 0])


def test_what_cannot_be_shown_is_refused(folder, tmp_path):
    with layertap.open(folder / "f.parquet") as file:
        with pytest.raises(UsageError, match="no feature 'x'; there are 'h', 'p', 'w'"):
            read_stored(file, features=["x"], most=9, seed=0)
        with pytest.raises(UsageError, match="no column 'moood' for labels; beside the texts there are 'mood'"):
            read_stored(file, label="moood", most=9, seed=0)
        with pytest.raises(UsageError, match="no column 'text' of texts"):
            read_stored(file, text_column="text", most=9, seed=0)
        with pytest.raises(UsageError, match="there is no row 24;"):
            read_stored(file, most=9, seed=0, kept=(24,))
        with pytest.raises(OptionError, match="'h' has a vector for each text, 'w' has a vector for each word"):
            read_stored(file, features=["h", "w"], most=9, seed=0)
        (tmp_path / "other.jsonl").write_text('{"text": "a", "id": "x"}\n', encoding="utf-8")
        other = Input(source=tmp_path / "other.jsonl", options=read_options())
        with pytest.raises(InputError, match="its id is 'x', and 't0' in"):
            read_stored(file, texts=other, most=99, seed=0)
    with (
        layertap.open(folder / "q.safetensors") as file,
        pytest.raises(OptionError, match="'a' holds attentions, and no vectors"),
    ):
        read_stored(file, features=["a"], most=9, seed=0)


def test_texts_that_the_features_were_not_made_from_are_refused(folder, extractor, tmp_path):
    (tmp_path / "other.txt").write_text("something else\n" * 24, encoding="utf-8")
    with layertap.open(folder / "f.parquet") as file:
        points = read_stored(file, texts=Input(source=tmp_path / "other.txt", options=read_options()), most=9, seed=0)
    with pytest.raises(InputError, match="is not that of its text, 'something else'"):
        stored_exploration(points, PageOptions(), extractor=extractor, why_no_model="", commands={})


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("hidden_states[:].mean", [0, 1, 2]),
        ("hidden_states[4:].words(mean)", [4, 5, 6]),
        ("hidden_states[0:6:2].cls", [0, 2, 4]),
        ("hidden_states[1, 2, 6].mean", [1, 2, 6]),
        ("hidden_states[-3:].mean", None),
        ("sentence_embedding", None),
        (None, None),
    ],
)
def test_numbers_of_layers_follow_from_the_expression(text, numbers):
    assert layer_numbers(text, 3) == numbers
