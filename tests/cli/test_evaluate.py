"""`layertap evaluate`."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from tests.writing import write

pytest.importorskip("sklearn", reason="scikit-learn is not installed (extra: learn)")
pytest.importorskip("torch", reason="torch is not installed (extra: torch)")

TEST = [("a great film", "good"), ("a funny film", "good"), ("a dull film", "bad"), ("great", "bad")]


@pytest.fixture
def head(layertap, model, tmp_path):
    words = {"good": ["great", "funny"], "bad": ["dull", "not"]}
    rows = [{"text": f"{word} {i}", "mood": mood} for mood in words for word in words[mood] for i in range(8)]
    write(tmp_path / "train.jsonl", rows)
    arguments = ["--label", "mood", "-o", tmp_path / "mood.head", "-m", model, "-q"]
    assert layertap("fit", tmp_path / "train.jsonl", *arguments).code == 0
    return tmp_path / "mood.head"


@pytest.fixture
def test(tmp_path):
    return write(tmp_path / "test.jsonl", [{"text": text, "mood": mood} for text, mood in TEST])


def test_the_table_and_json_agree_with_the_predictions(layertap, head, test, tmp_path):
    ended = layertap("evaluate", head, test, "--label", "mood", "-q")
    assert (ended.code, ended.err) == (0, "")
    whole = json.loads(layertap("evaluate", head, test, "--label", "mood", "--json", "-q").out)
    assert layertap("predict", test, "--head", f"x={head}", "-o", tmp_path / "p.jsonl", "-q").code == 0
    predicted = [json.loads(line)["x"] for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    accuracy = np.mean([label == mood for label, (_, mood) in zip(predicted, TEST, strict=True)])
    score = whole["metrics"]["accuracy"]
    assert score["value"] == accuracy
    assert score["low"] <= accuracy <= score["high"]
    row = f"accuracy {accuracy:.4f} {score['low']:.4f} to {score['high']:.4f}"
    assert row in re.sub(" +", " ", ended.out)
    assert whole["labels"] == ["bad", "good"]
    confusion = np.array(whole["confusion"])
    assert confusion.trace() / confusion.sum() == accuracy
    assert whole["num_mistakes"] == len(TEST) - confusion.trace() > 0
    (first, *_) = whole["mistakes"]
    assert predicted[first["row"]] == first["predicted"] != first["true"] == TEST[first["row"]][1]
    assert f"{first['true']} -> {first['predicted']}" in ended.out


def test_fit_measures_the_same(layertap, head, test, tmp_path):
    whole = json.loads(layertap("evaluate", head, test, "--label", "mood", "--json", "-q").out)
    arguments = ["--label", "mood", "-o", tmp_path / "again.head", "--test", test, "--json", "-q"]
    arguments += ["-m", json.loads((head / "head.json").read_text())["model"]["name"]]
    fitted = json.loads(layertap("fit", tmp_path / "train.jsonl", *arguments).out)["test"]
    for name in ("accuracy", "macro_f1", "mcc"):
        assert whole["metrics"][name]["value"] == fitted[name]
    assert whole["classes"] == fitted["classes"]


@pytest.mark.parametrize(
    ("rows", "code", "message"),
    [
        ([{"text": "a", "mood": "fine"}], 1, "one label does not occur in the labels of mood: 'fine'; known are 'bad'"),
        ([{"text": "a", "mood": ["bad"]}], 1, "has lists of labels, and mood classifies texts"),
        ([{"text": "a"}], 2, "there is no column 'mood'"),
        ([], 1, "there are no rows"),
    ],
)
def test_refusals(refused, head, tmp_path, rows, code, message):
    later = write(tmp_path / "later.jsonl", rows)
    assert message in refused(code, "evaluate", head, later, "--label", "mood")


def test_rows_that_cannot_be_used_are_skipped_and_counted(layertap, refused, head, test):
    with test.open("a") as file:
        file.write('no json\n{"text": "x", "mood": null}\n')
    assert "line 5" in refused(1, "evaluate", head, test, "--label", "mood")
    ended = layertap("evaluate", head, test, "--label", "mood", "--on-error", "skip", "--json")
    assert [row["row"] for row in json.loads(ended.out)["skipped"]] == [4, 5]
    assert f"skipped: 2 rows of {test}" in ended.err
    assert "line 6: column 'mood' is empty" in ended.err


def test_a_tagger_of_a_checkpoint(layertap, model, tmp_path):
    pytest.importorskip("seqeval", reason="seqeval is not installed (extra: learn)")
    words = "the\tO\nriver\tB-place\nbank\tI-place\n\nhello\tO\nmoney\tB-thing\n\n"
    train, test = tmp_path / "train.conll", tmp_path / "test.conll"
    train.write_text(words * 3)
    test.write_text(words + "\u0001\tB-thing\nthe\tO\n\n")
    arguments = ["--label", "col1", "-m", model, "--epochs", "1", "-q", "-o", tmp_path / "ner"]
    assert layertap("finetune", train, *arguments).code == 0
    whole = json.loads(layertap("evaluate", tmp_path / "ner", test, "--label", "col1", "--json", "-q").out)
    assert list(whole["metrics"]) == ["entity_f1", "accuracy", "macro_f1", "mcc"]
    assert whole["words"] == 7
    assert whole["without_prediction"] == 1
    assert sum(map(sum, whole["confusion"])) == 6
    ended = layertap("evaluate", tmp_path / "ner", test, "--label", "col1", "--mistakes", "20")
    assert "1 word without a token, or cut off: no prediction; counted as an error" in ended.err
    assert "no prediction" in ended.out


def test_a_cross_encoder_is_compared_with_scores(layertap, make_checkpoint, tmp_path):
    from scipy import stats

    from layertap.learn import Classifier, evaluate

    folder = make_cross_encoder(tmp_path / "cross")
    rows = [{"text": f"good {i}", "b": "film " * (i % 4), "score": i % 3} for i in range(12)]
    data = write(tmp_path / "pairs.jsonl", rows)
    ended = layertap("evaluate", folder, data, "--pair-column", "b", "--label", "score", "--json", "-q")
    assert ended.code == 0, ended.err
    scores = Classifier.from_pretrained(folder).predict([(row["text"], row["b"]) for row in rows]).scores[:, 0]
    expected = stats.spearmanr(scores, [row["score"] for row in rows]).statistic
    whole = json.loads(ended.out)
    assert whole["metrics"]["spearman"]["value"] == pytest.approx(expected)
    again = evaluate(folder, data, label="score", pair_column="b")
    assert again.as_dict()["metrics"] == whole["metrics"]


def make_cross_encoder(folder):
    pytest.importorskip("transformers", reason="transformers, the oracle, is not installed")
    from tests.tiny_models import random_model, save_model, wordpiece_tokenizer

    tokenizer = wordpiece_tokenizer()
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    values = sizes | {"max_position_embeddings": 64, "vocab_size": tokenizer.get_vocab_size(), "num_labels": 1}
    module = random_model("Bert", values, end="ForSequenceClassification")
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return save_model(folder, module, tokenizer, **names, model_max_length=48)


def test_python_takes_heads_classifiers_and_texts_in_memory(head, test):
    from layertap.learn import Head, LabelledTexts, evaluate

    texts = LabelledTexts(texts=[text for text, _ in TEST], labels=[mood for _, mood in TEST])
    one, other = evaluate(Head.load(head), texts), evaluate(head, test, label="mood")
    assert one.metrics == other.metrics
    assert one.mistakes == other.mistakes
    assert one.confusion.tolist() == other.confusion.tolist()
