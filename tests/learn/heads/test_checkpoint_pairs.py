"""Pairs of texts given to classifiers as lists, as tuples and as two columns, against the model of transformers."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (extra: torch)")
transformers = pytest.importorskip("transformers", reason="transformers, the oracle, is not installed")

from layertap.errors import InputError  # noqa: E402
from layertap.learn import Classifier  # noqa: E402
from layertap.learn.labelled import LabelledTexts  # noqa: E402
from layertap.text.units import UnitFinder  # noqa: E402

END = "ForSequenceClassification"
PAIRS = [["a good film", "the story of a film"], ["who can say", "money"], ["dull", "a river of money"]]


def expected_logits(folder):
    """Scores as cross-encoders compute them: the tokenizer's pairs, then the model."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(PAIRS, padding=True, return_tensors="pt")
    # this class of tokenizer does not return them by default
    batch["token_type_ids"] = torch.tensor([encoding.type_ids for encoding in batch.encodings])
    with torch.no_grad():
        return model(**batch).logits.numpy()


@pytest.mark.parametrize(("family", "labels"), [("BERT", 1), ("BERT", 3), ("RoBERTa", 3)])
def test_lists_of_two_score_as_cross_encoders_do(family_model, tmp_path, family, labels):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    folder = family_model(tmp_path / "pairs", family, END, num_labels=labels)
    classifier = Classifier.from_pretrained(folder)
    expected = expected_logits(folder)
    frame = pandas.DataFrame(PAIRS, columns=["q", "d"])
    for given in (PAIRS, [tuple(pair) for pair in PAIRS], frame[["q", "d"]].values):
        np.testing.assert_allclose(classifier.logits(given), expected, atol=1e-5)
        scores = classifier.predict(given).scores
        assert np.array_equal(scores.argmax(1), expected.argmax(1))
    streamed = [batch.features[f"{classifier.head.name}" + (".scores" if labels > 1 else "")] for batch in
                classifier.stream(PAIRS)]  # fmt: skip
    assert np.array_equal(np.concatenate(streamed).reshape(3, -1), classifier.predict(PAIRS).scores)


def test_one_word_each(family_model, tmp_path):
    """Two single words are a pair for a head that gives a number; other heads refuse to guess."""
    number = Classifier.from_pretrained(family_model(tmp_path / "n", "BERT", END, num_labels=1))
    assert np.array_equal(number.logits([["dull", "money"]]), number.logits([("dull", "money")]))
    labels = Classifier.from_pretrained(family_model(tmp_path / "c", "BERT", END, num_labels=2))
    with pytest.raises(InputError, match=r"text 0 is the list \['dull', 'money'\], which could be a pair"):
        labels.predict([["dull", "money"]])
    tags = Classifier.from_pretrained(family_model(tmp_path / "t", "BERT", "ForTokenClassification", num_labels=2))
    assert len(tags.predict([["dull", "money"]])[0].tags) == 2


def test_texts_to_learn_from():
    """With one label per text, tuples and lists with white space are pairs; with a label per word they are words."""
    finder = UnitFinder(words=True)
    given = [("q", "d"), ["a question", "an answer"], ["three", "given", "words"]]
    records = LabelledTexts(texts=given, labels=["x", "y", "x"]).dataset(finder).records
    assert [(record.text, record.pair) for record in records] == [
        ("q", "d"),
        ("a question", "an answer"),
        ("three given words", None),
    ]
    (record,) = LabelledTexts(texts=[("q", "d")], labels=[["A", "B"]]).dataset(finder).records
    assert record.words == ("q", "d")
