"""Fine-tuning on words: tags, entities, what is refused, the folder, the command."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed (extra: torch)")
pytest.importorskip("seqeval", reason="seqeval is not installed (extra: learn)")

import torch
from seqeval.metrics import f1_score
from sklearn.metrics import accuracy_score

from layertap.cli.main import main
from layertap.errors import InputError, OptionError
from layertap.learn import Classifier, LabelledTexts, TrainingOptions, finetune
from layertap.learn.finetuning import trainer as trainer_module

KINDS = {"river": "B-place", "bank": "I-place", "money": "B-thing"}
VOCABULARY = ["river bank", "money", "river", "the", "was", "good", "hello"]


def sentences(count, seed=0):
    random = np.random.default_rng(seed)
    texts = [" ".join(random.choice(VOCABULARY, random.integers(1, 8))).split() for _ in range(count)]
    return LabelledTexts(texts=texts, labels=[[KINDS.get(word, "O") for word in text] for text in texts])


TRAIN, DEV = sentences(40), sentences(15, seed=1)
LEARN = TrainingOptions(epochs=8, batch_size=8, learning_rate=3e-3)
ONE = TrainingOptions(epochs=1, batch_size=8)


def test_entities_are_learnt_and_scored_as_seqeval_scores_them(tmp_path, model):
    found = finetune(TRAIN, tmp_path / "ner", dev=DEV, test=sentences(20, seed=2), model=model, options=LEARN)
    assert found.labels == ("B-place", "B-thing", "I-place", "O")
    assert found.kept is not None
    assert found.kept.scores["entity_f1"] == max(seen.scores["entity_f1"] for seen in found.evaluations) > 0.9
    tagged = Classifier.from_pretrained(found.folder).predict(DEV.texts)
    predicted = [list(it.tags) for it in tagged]
    assert f1_score([list(tags) for tags in DEV.labels], predicted) == found.kept.scores["entity_f1"]
    flat = [np.concatenate(tags) for tags in (DEV.labels, predicted)]
    assert accuracy_score(*flat) == found.kept.scores["accuracy"]
    assert found.test is not None
    assert list(found.test) == ["accuracy", "macro_f1", "mcc", "entity_f1"]
    made = json.loads((found.folder / "training.json").read_text())
    assert (made["task"], made["scheme"], made["metric"]) == ("words", "bio", "entity_f1")
    assert made["test"] == found.test
    header, *rows = (found.folder / "curve.csv").read_text().splitlines()
    assert header == "step,epoch,learning_rate,train_loss,dev_loss,accuracy,macro_f1,mcc,entity_f1"
    assert float(rows[-1].split(",")[-1]) == found.evaluations[-1].scores["entity_f1"]
    config = json.loads((found.folder / "config.json").read_text())
    assert config["architectures"] == ["BertForTokenClassification"]
    assert "problem_type" not in config


def test_entities_come_with_characters(tmp_path, model):
    folder = finetune(TRAIN, tmp_path / "ner", model=model, options=LEARN).folder
    classifier = Classifier.from_pretrained(folder)
    (given,), (alone,) = classifier.predict([["the", "river", "bank"]]), classifier.predict(["the  river\tbank"])
    assert given.tags == alone.tags == ("O", "B-place", "I-place")
    assert [(it.begin, it.end, it.label, it.text) for it in given.entities] == [(4, 14, "place", "river bank")]
    assert [(it.begin, it.end, it.text) for it in alone.entities] == [(5, 15, "river\tbank")]
    assert classifier.predict([]) == []


def test_texts_with_tags_are_words_by_white_space(tmp_path, model):
    plain = LabelledTexts(texts=[" ".join(text) for text in TRAIN.texts], labels=[np.array(it) for it in TRAIN.labels])
    found = [finetune(data, tmp_path / str(i), model=model, options=ONE) for i, data in enumerate((TRAIN, plain))]
    one, two = ((it.folder / "model.safetensors").read_bytes() for it in found)
    assert one == two


def test_parts_of_speech_mark_no_entities(tmp_path, model):
    tags = [["NOUN" if word in KINDS else "VERB" if word == "was" else "X" for word in text] for text in TRAIN.texts]
    data = LabelledTexts(texts=TRAIN.texts, labels=tags)
    found = finetune(data, tmp_path / "pos", dev=data, model=model, options=LEARN)
    assert found.kept is not None
    assert list(found.kept.scores) == ["accuracy", "macro_f1", "mcc"]
    assert found.kept.scores["accuracy"] > 0.95
    assert json.loads((found.folder / "training.json").read_text())["metric"] == "accuracy"
    assert all(not it.entities for it in Classifier.from_pretrained(found.folder).predict(TRAIN.texts[:3]))
    with pytest.raises(OptionError, match="metric 'entity_f1' needs tags of words: O, B-type and I-type"):
        finetune(data, tmp_path / "no", model=model, options=TrainingOptions(metric="entity_f1"))


def test_io_learns_b_as_i(tmp_path, model):
    found = finetune(TRAIN, tmp_path / "ner", dev=DEV, model=model, options=ONE, scheme="io")
    assert found.labels == ("I-place", "I-thing", "O")
    assert found.kept is not None
    assert "entity_f1" in found.kept.scores


def test_the_loss_is_the_mean_over_the_words_of_a_step(tmp_path, model):
    def losses(name, **options):
        given = TrainingOptions(epochs=1, batch_size=40, **options)
        folder = finetune(TRAIN, tmp_path / name, model=model, options=given).folder
        return [float(row.split(",")[3]) for row in (folder / "curve.csv").read_text().splitlines()[1:]]

    config = json.loads((tmp_path / model / "config.json").read_text())
    assert config["hidden_dropout_prob"] == 0.1
    (whole,), (parts,) = losses("whole"), losses("parts", batch_tokens=12)
    assert whole == pytest.approx(parts, abs=0.15)  # dropout is drawn for other batches
    assert whole == pytest.approx(np.log(4), abs=0.5)


@pytest.mark.parametrize("model_type", ["bert", "roberta"])
def test_words_are_those_of_transformers(tmp_path, make_checkpoint, model_type):
    transformers = pytest.importorskip("transformers", reason="transformers, the oracle, is not installed")
    start = make_checkpoint(tmp_path / "start", model_type, pooler="absent")
    found = finetune(TRAIN, tmp_path / "out", model=start, options=ONE)
    own = {} if model_type == "bert" else {"add_prefix_space": True}
    tokenizer = transformers.AutoTokenizer.from_pretrained(found.folder, **own)
    oracle = transformers.AutoModelForTokenClassification.from_pretrained(found.folder).eval()
    texts = [["Hello,", "isn't", "extraordinary"], ["hello"]]
    logits = Classifier.from_pretrained(found.folder).logits(texts)
    for words, values in zip(texts, logits, strict=True):
        batch = tokenizer(words, is_split_into_words=True, return_tensors="pt")
        first = [batch.word_ids(0).index(i) for i in range(len(words))]
        with torch.no_grad():
            expected = oracle(**batch).logits[0, first].numpy()
        np.testing.assert_allclose(values, expected, atol=1e-5)


def test_words_that_are_cut_off_are_not_learned_from_and_are_told(tmp_path, model):
    long = LabelledTexts(texts=[["river"] * 20, ["the", "money"]], labels=[["B-place"] * 20, ["O", "O"]])
    found = finetune(long, tmp_path / "out", dev=long, model=model, options=TrainingOptions(epochs=1, max_length=12))
    assert "10 words of the training data have no token, or their tokens were cut off" in found.notes
    classifier = Classifier.from_pretrained(found.folder)
    logits = classifier.logits(long.texts)
    assert [len(own) for own in logits] == [20, 2]
    np.testing.assert_allclose(logits[0][10:], np.tile(classifier.head.logits(np.zeros((1, 32))), (10, 1)), atol=1e-6)
    assert found.kept is not None
    tags = [tag for it in classifier.predict(long.texts) for tag in it.tags]
    assert found.kept.scores["accuracy"] == accuracy_score(
        ["B-place"] * 20 + ["O", "O"], [tag or "none" for tag in tags]
    )


class Killed(BaseException):
    """What stands for a kill."""


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path, monkeypatch, model):
    options = TrainingOptions(epochs=3, batch_size=16, learning_rate=3e-3, eval_steps=2, patience=9)

    def run(name, **more):
        finetune(TRAIN, tmp_path / name, dev=DEV, test=DEV, model=model, options=options, **more)

    run("whole")
    inner, waiting = trainer_module.Trainer._take_step, [3, 7]

    def step(self, rows):
        if waiting and self.step == waiting[0]:
            waiting.pop(0)
            raise Killed
        inner(self, rows)

    monkeypatch.setattr(trainer_module.Trainer, "_take_step", step)
    for _ in range(2):
        torch.rand(3)
        with pytest.raises(Killed):
            run("killed", resume=True)
    run("killed", resume=True)
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert {"model.safetensors", "curve.csv", "training.json"} <= set(names)
    for name in names:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes(), name


def tagged(*labels, texts=None):
    return LabelledTexts(texts=texts or [["a", "b"]] * len(labels), labels=labels, source="x.conll")


GOOD = tagged(["O", "B-x"], ["B-x", "O"])


@pytest.mark.parametrize(
    ("data", "dev", "message"),
    [
        (tagged(["O", "B-x"], ["O"]), None, "text 1: column 'label' has 1 label, and the text has 2 words"),
        (
            tagged(["O", "B-x"], ["O"], texts=["a b", "c d e"]),
            None,
            "text 1: column 'label' has 1 label, and the text has 3 words",
        ),
        (tagged(["O", None]), None, "text 0: item 2 of column 'label' is empty"),
        (tagged(["O", "B-x"], "O"), None, "holds a single label, and lists in the rows before"),
        (tagged(["O", "O"]), None, "every word has the label 'O'"),
        (tagged(["O", "B-x"], ["O", "O"]), None, "only one example of 'B-x'"),
        (tagged([], [], texts=[[], []]), None, "x.conll: no text has a word"),
        (tagged(["O", "S-x"], ["O", "E-x"]), None, "are BIOES or BILOU; convert them to BIO"),
        (GOOD, tagged(["O", "B-y"]), "one label does not occur in x.conll: 'B-y'"),
        (GOOD, tagged([], texts=[[]]), "x.conll: no text has a word"),
        (GOOD, tagged(), "x.conll: there are no rows"),
        (
            GOOD,
            tagged("a", "b", texts=["one", "two"]),
            "x.conll has one label per row, and x.conll has lists of labels",
        ),
        (
            tagged(["O", "B-x"], ["B-x", "O"], texts=[["a", 3], ["b", "c"]]),
            None,
            "text 0 is a list of other things than words",
        ),
        (
            LabelledTexts(texts=["a b"], labels=[["O", "O"]], pairs=["c"], source="x"),
            None,
            "x, text 0: it is a pair; words and spans, and details of them, are of single texts",
        ),
    ],
)
def test_tags_that_cannot_be_learned_from_are_refused_before_a_model_is_opened(tmp_path, data, dev, message):
    with pytest.raises(InputError, match=message):
        finetune(data, tmp_path / "out", dev=dev, model=tmp_path / "no-such-model")
    assert not list(tmp_path.iterdir())


def test_tags_of_the_test_part_are_checked_before_a_model_is_opened(tmp_path):
    for test, message in (
        (tagged(["O", "I-x"]), "one label does not occur in x.conll: 'I-x'"),
        (tagged(["O"]), "text 0: column 'label' has 1 label, and the text has 2 words"),
        (tagged([], texts=[""]), "no text has a word"),
    ):
        with pytest.raises(InputError, match=message):
            finetune(GOOD, tmp_path / "out", test=test, model=tmp_path / "no-such-model")


def test_a_scheme_goes_with_tags(tmp_path):
    texts = LabelledTexts(texts=["a", "b"] * 2, labels=["x", "y"] * 2)
    with pytest.raises(OptionError, match="scheme 'bio' is for tags of words"):
        finetune(texts, tmp_path / "out", scheme="bio")
    with pytest.raises(InputError, match="scheme bio: 'NOUN'"):
        finetune(tagged(["O", "NOUN"], ["O", "NOUN"]), tmp_path / "out", scheme="bio")


def conll(path, data):
    rows = zip(data.texts, data.labels, strict=True)
    path.write_text("\n".join("".join(f"{w}\t{t}\n" for w, t in zip(*row, strict=True)) for row in rows))
    return str(path)


def test_the_command(tmp_path, model, capsys):
    train, dev = conll(tmp_path / "train.conll", TRAIN), conll(tmp_path / "dev.conll", DEV)
    line = ["finetune", train, "-o", str(tmp_path / "ner"), "--label", "col1", "--dev", dev, "--test", dev]
    line += ["--model", model, "--epochs", "2", "--batch-size", "8", "--learning-rate", "3e-3", "--threads", "1"]
    assert main(line) == 0
    said = capsys.readouterr().err
    assert "entity_f1 " in said
    assert "\ntest: accuracy " in said
    assert Classifier.from_pretrained(tmp_path / "ner").labels == ("B-place", "B-thing", "I-place", "O")
    rows = [{"w": text, "t": tags} for text, tags in zip(TRAIN.texts, TRAIN.labels, strict=True)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    line = [
        "finetune",
        str(tmp_path / "train.jsonl"),
        "-o",
        str(tmp_path / "io"),
        "--words-column",
        "w",
        "--label",
        "t",
    ]
    assert main([*line, "--scheme", "io", "--model", model, "--epochs", "1", "-q"]) == 0
    assert Classifier.from_pretrained(tmp_path / "io").labels == ("I-place", "I-thing", "O")
