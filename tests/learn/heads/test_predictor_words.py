"""Heads of words: tags and entities, with characters."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed (extra: learn)")
pytest.importorskip("seqeval", reason="seqeval is not installed (extra: learn)")

from seqeval.metrics import f1_score
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score

from layertap import Extractor
from layertap.errors import FeatureError, InputError
from layertap.learn import Head, fit_head
from layertap.learn.heads.predictor import Predictor
from layertap.records import Record

KINDS = {"river": "B-place", "bank": "I-place", "money": "B-thing"}


def sentences(count: int, seed: int = 0) -> tuple[list[list[str]], list[list[str]]]:
    random = np.random.default_rng(seed)
    words = ["river bank", "money", "river", "the", "was", "good", "hello"]
    texts = [" ".join(random.choice(words, size=random.integers(1, 8))).split() for _ in range(count)]
    return texts, [[KINDS.get(word, "O") for word in text] for text in texts]


TRAIN, TEST = sentences(120), sentences(40, seed=1)
FEATURE = "hidden_states[0].words(mean)"


@pytest.fixture(scope="module")
def extractor(model):
    return Extractor.from_pretrained(model)


@pytest.fixture(scope="module")
def head(extractor):
    return fit_head(*TRAIN, FEATURE, extractor=extractor, name="ner", test=TEST, l2=0.1)


def test_tags_are_those_of_scikit_learn_on_the_same_vectors(extractor, head):
    vectors, others = (extractor.extract(texts, FEATURE).values for texts, _ in (TRAIN, TEST))
    oracle = LogisticRegression(C=10, tol=1e-8, max_iter=5000).fit(
        vectors.astype(np.float64), [tag for tags in TRAIN[1] for tag in tags]
    )
    found = [tag for it in head.predict(TEST[0], extractor=extractor) for tag in it.tags]
    assert found == oracle.predict(others.astype(np.float64)).tolist()


def test_metrics_are_those_of_seqeval(extractor, head):
    found = [list(it.tags) for it in head.predict(TEST[0], extractor=extractor)]
    measured = head.metrics["test"]
    assert measured["entities"]["f1"] == f1_score(TEST[1], found) > 0.8
    assert set(measured["entities"]["types"]) == {"place", "thing"}
    assert measured["accuracy"] == accuracy_score(np.concatenate(TEST[1]), np.concatenate(found))


def test_entities_have_characters(extractor, head):
    (given,) = head.predict([["the", "river", "bank", "was", "money"]], extractor=extractor)
    text = "the  river\tbank was money"
    alone = head.predict(text, extractor=extractor)
    assert given.tags == alone.tags == ("O", "B-place", "I-place", "O", "B-thing")
    assert [(it.begin, it.end, it.label, it.text) for it in given.entities] == [
        (4, 14, "place", "river bank"),
        (19, 24, "thing", "money"),
    ]
    assert [(it.begin, it.end, it.text) for it in alone.entities] == [(5, 15, "river\tbank"), (20, 25, "money")]
    assert [text[begin:end] for begin, end in alone.words] == text.split()
    assert alone.entities[0].score == pytest.approx(np.mean(alone.scores[1:3]))
    assert head.predict("", extractor=extractor).tags == ()


def test_words_of_a_pattern(model):
    extractor = Extractor.from_pretrained(model, word_pattern=r"\w+")
    texts = [f"{' '.join(words)}." for words in TRAIN[0]]
    head = fit_head(texts, TRAIN[1], FEATURE, extractor=extractor, l2=0.1)
    assert [it.text for it in head.predict("the (river bank)!", extractor=extractor).entities] == ["river bank"]


def test_saved_and_read_back_with_a_mix(extractor, tmp_path):
    head = fit_head(*TRAIN, "hidden_states[:].words(first)", extractor=extractor, validation_share=0.2, seed=3)
    head.save(tmp_path / "h")
    again = Head.load(tmp_path / "h")
    assert (again.task, again.scheme) == ("words", "bio")
    assert again.predict(TEST[0]) == head.predict(TEST[0], extractor=extractor)
    spilled = fit_head(
        *TRAIN, "hidden_states[:].words(first)", extractor=extractor, validation_share=0.2, seed=3, memory_bytes=0
    )
    np.testing.assert_array_equal(spilled.weight, head.weight)


def test_io_learns_no_beginnings(extractor):
    head = fit_head(*TRAIN, FEATURE, extractor=extractor, scheme="io", test=TEST, l2=0.1)
    assert head.labels == ("I-place", "I-thing", "O")
    found = [list(it.tags) for it in head.predict(TEST[0], extractor=extractor)]
    # measured against the entities of the data's own scheme
    assert head.metrics["test"]["entities"]["f1"] == f1_score(TEST[1], found)
    (two,) = head.predict([["money", "money"]], extractor=extractor)
    assert [(it.begin, it.end) for it in two.entities] == [(0, 11)]


def test_tags_without_entities(extractor):
    tags = [["NAME" if tag != "O" else "OTHER" for tag in row] for row in TRAIN[1]]
    head = fit_head(TRAIN[0], tags, extractor=extractor)
    assert (head.scheme, head.feature) == ("tags", "last_hidden_state.words(mean)")
    assert head.predict("the river", extractor=extractor).entities == ()
    assert "entities" not in fit_head(TRAIN[0], tags, extractor=extractor, validation_share=0.5).metrics["validation"]


def test_a_stream_carries_tags_and_entities(extractor, head):
    predictor = Predictor(extractor, [head])
    (batch,) = predictor.stream(TEST[0], {"v": "hidden_states[1].words(mean)"})
    assert list(batch.features) == ["v", "ner.scores"]
    assert list(batch.features["ner.scores"].offsets) == list(batch.features["v"].offsets)
    for record, it in zip(batch.records, head.predict(TEST[0], extractor=extractor), strict=True):
        assert record.columns["ner"] == list(it.tags)
        assert [entity["text"] for entity in record.columns["ner.entities"]] == [entity.text for entity in it.entities]
    (arrays,) = Predictor(extractor, [head], columns=False).stream(TEST[0])
    tags = [head.labels[i] for i in arrays.features["ner"].values]
    assert tags == [tag for record in batch.records for tag in record.columns["ner"]]


@pytest.mark.parametrize(
    ("tags", "match"),
    [
        ([["O"], ["O", "B-x"]], "text 0: column 'label' has 1 label, and the text has 2 words"),
        ([["O", "B-x"], ["O", "O"]], "only one example of 'B-x'"),
        ([["O", "O"], ["O", "O"]], "every word has the label 'O'"),
        ([["O", None], ["B-x", "B-x"]], "text 0: item 2 of column 'label' is empty"),
        ([["O", "S-x"], ["O", "S-x"]], "are BIOES or BILOU"),
        ([["O", "B-x"], "O"], "holds a single label, and lists in the rows before"),
    ],
)
def test_tags_that_do_not_fit_are_refused_before_anything_runs(extractor, tags, match, runs):
    with pytest.raises(InputError, match=match):
        fit_head([["a", "b"], ["c", "d"]], tags, extractor=extractor)
    assert runs.sequences == 0


def test_parts_must_agree(extractor, runs):
    with pytest.raises(InputError, match="test data has one label per row, and training data has lists"):
        fit_head(*TRAIN, extractor=extractor, test=(["x"], ["O"]))
    with pytest.raises(InputError, match=r"test data: one label does not occur in .*: 'B-odd'"):
        fit_head(*TRAIN, extractor=extractor, test=([["x"]], [["B-odd"]]))
    with pytest.raises(FeatureError, match="gives one vector per text, and the labels are one per word"):
        fit_head(*TRAIN, "last_hidden_state.mean", extractor=extractor)
    assert runs.sequences == 0


def test_pairs_have_no_words(extractor):
    records = [Record(row=0, text="a b", pair="c"), Record(row=1, text="a b", pair="c")]
    with pytest.raises(InputError, match="it is a pair"):
        fit_head(records, [["O", "B-x"]] * 2, extractor=extractor)


def test_words_that_are_cut_are_noted(model):
    head = fit_head(*TRAIN, FEATURE, extractor=Extractor.from_pretrained(model, max_length=5))
    assert any("texts cut at 5 tokens" in note for note in head.options["notes"])
