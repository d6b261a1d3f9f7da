"""Hugging Face classification checkpoints behind `layertap predict` and `Classifier`, and what is refused of them."""

from __future__ import annotations

import inspect
import json

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed (extra: torch)")
pytest.importorskip("transformers", reason="transformers, the oracle, is not installed")

import torch
import transformers

from layertap import Extractor, Rules
from layertap.cli.main import main
from layertap.engine.options import ClassifierOptions, Semantics, names_of
from layertap.errors import InputError, LayertapError, OptionError, UsageError
from layertap.learn import Classifier
from layertap.learn.heads.predictions import LabelSet
from layertap.learn.heads.predictor import Predictor
from layertap.records import FeatureBatch

SEQUENCE, TOKEN = "ForSequenceClassification", "ForTokenClassification"
TEXTS = ["a good film", "hello", "the dull story of a great actor and the bank of the river", "money"]
TAGS = {0: "O", 1: "B-place", 2: "I-place", 3: "B-thing"}
MOODS = {0: "bad", 1: "good", 2: "so so"}


@pytest.fixture(autouse=True)
def _quiet():
    transformers.logging.disable_progress_bar()


def oracle(folder, kind="SequenceClassification"):
    model = getattr(transformers, f"AutoModelFor{kind}").from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    found = []
    for text in TEXTS:
        batch = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[0].numpy()
        if kind == "TokenClassification":
            numbers = batch.word_ids(0)
            logits = logits[[numbers.index(i) for i in range(len(text.split()))]]
        found.append(logits)
    return found


def softmax(logits):
    return torch.softmax(torch.tensor(np.asarray(logits)), -1).numpy()


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(TEXTS)))
    return path


@pytest.fixture
def layertap(capsys):
    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        return code, capsys.readouterr().err

    return run


def test_a_classifier_in_jsonl(family_model, layertap, tmp_path, texts):
    folder = family_model(tmp_path / "mood-model", "DistilBERT", SEQUENCE, id2label=MOODS)
    expected = softmax(oracle(folder))
    code, said = layertap("predict", texts, "-m", folder, "-o", tmp_path / "out.jsonl")
    assert code == 0, said
    assert "mood-model  a label a text  on last_hidden_state.first" in said
    rows = lines(tmp_path / "out.jsonl")
    assert [list(row) for row in rows] == [["row", "id", "text", "mood-model", "mood-model.scores"]] * 4
    np.testing.assert_allclose([row["mood-model.scores"] for row in rows], expected, atol=1e-5)
    assert [row["mood-model"] for row in rows] == [MOODS[i] for i in expected.argmax(1)]
    stated = json.loads((tmp_path / "out.jsonl.provenance.json").read_text())
    assert stated["heads"]["mood-model"]["labels"] == list(MOODS.values())
    assert stated["model"] == "mood-model"
    assert str(tmp_path) not in json.dumps(stated)


def test_a_tagger_in_parquet_with_a_feature_and_a_name(family_model, layertap, tmp_path, texts):
    import pyarrow.parquet as pq

    folder = family_model(tmp_path / "m", "ELECTRA", TOKEN, id2label=TAGS)
    expected = oracle(folder, "TokenClassification")
    arguments = ["-f", "v = last_hidden_state.mean", "--head", f"ner={folder}", "-o", tmp_path / "out.parquet"]
    code, said = layertap("predict", texts, *arguments)
    assert code == 0, said
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column_names == ["row", "id", "text", "words", "ner", "ner.entities", "v", "ner.scores"]
    assert table["ner"].to_pylist() == [[TAGS[i] for i in own.argmax(1)] for own in expected]
    for own, logits in zip(table["ner.scores"].to_pylist(), expected, strict=True):
        np.testing.assert_allclose(own, softmax(logits).max(1), atol=1e-5)
    marked = 0
    for text, tags, found in zip(TEXTS, table["ner"].to_pylist(), table["ner.entities"].to_pylist(), strict=True):
        assert all(text[it["begin"] : it["end"]] == it["text"] for it in found)
        assert {it["label"] for it in found} == {tag[2:] for tag in tags if tag != "O"}
        marked += len(found)
    assert marked > 0


def test_arrays(family_model, layertap, tmp_path, texts):
    folder = family_model(tmp_path / "m", "ALBERT", TOKEN, id2label=TAGS)
    code, said = layertap("predict", texts, "-m", folder, "--name", "ner", "-o", tmp_path / "out.npz", "-q")
    assert (code, said) == (0, "")
    arrays = np.load(tmp_path / "out.npz")
    expected = np.concatenate(oracle(folder, "TokenClassification")).argmax(1)
    np.testing.assert_array_equal(arrays["ner.values" if "ner.values" in arrays else "ner"], expected)


def test_several_labels_a_text(family_model, layertap, tmp_path, texts):
    folder = family_model(
        tmp_path / "m", "RoBERTa", SEQUENCE, id2label=MOODS, problem_type="multi_label_classification"
    )
    logits = np.stack(oracle(folder))
    expected = torch.sigmoid(torch.tensor(logits)).numpy()
    chosen = [[MOODS[i] for i in np.flatnonzero(row > 0)] for row in logits]
    assert len({len(own) for own in chosen}) > 1 or len(chosen[0]) != 1
    code, said = layertap("predict", texts, "-m", folder, "--name", "mood", "-o", tmp_path / "out.parquet")
    assert code == 0, said
    assert "mood  labels a text" in said
    import pyarrow.parquet as pq

    table = pq.read_table(tmp_path / "out.parquet")
    assert table["mood"].to_pylist() == chosen
    np.testing.assert_allclose(np.array(table["mood.scores"].to_pylist()), expected, atol=1e-5)
    classifier = Classifier.from_pretrained(folder)
    found = classifier.predict(TEXTS)
    np.testing.assert_allclose(found.scores, expected, atol=1e-5)
    assert [list(labels) for labels in found.labels] == chosen
    (batch,) = classifier.stream(TEXTS)
    assert [record.columns["m"] for record in batch.records] == chosen
    assert LabelSet.__doc__
    code, said = layertap("predict", texts, "-m", folder, "--name", "mood", "-o", tmp_path / "out.npz")
    assert code == 0, said
    assert "mood" not in np.load(tmp_path / "out.npz")


@pytest.mark.parametrize("suffix", ["jsonl", "parquet", "npz", "npy", "safetensors"])
def test_a_number_a_text(family_model, layertap, tmp_path, texts, suffix):
    folder = family_model(tmp_path / "m", "MPNet", SEQUENCE, num_labels=1)
    expected = np.stack(oracle(folder))[:, 0]
    out = tmp_path / f"out.{suffix}"
    code, said = layertap("predict", texts, "-m", folder, "--name", "stars", "-o", out)
    assert code == 0, said
    assert "stars  a number a text" in said
    if suffix == "jsonl":
        found = [row["stars"] for row in lines(out)]
    elif suffix == "parquet":
        import pyarrow.parquet as pq

        found = pq.read_table(out)["stars"].to_pylist()
    elif suffix == "safetensors":
        from safetensors.numpy import load_file

        found = load_file(out)["stars"]
    else:
        found = np.load(out) if suffix == "npy" else np.load(out)["stars"]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    classifier = Classifier.from_pretrained(folder)
    predictions = classifier.predict(TEXTS)
    np.testing.assert_allclose(predictions.scores[:, 0], expected, atol=1e-5)
    assert predictions.labels == [None] * 4


def test_pairs_and_long_texts(family_model, tmp_path):
    folder = family_model(tmp_path / "m", "BERT", SEQUENCE, id2label=MOODS)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        expected = model(
            **tokenizer("a good film", "hello", return_tensors="pt", return_token_type_ids=True)
        ).logits.numpy()
        cut = model(**tokenizer("good " * 99, truncation=True, return_tensors="pt")).logits.numpy()
    classifier = Classifier.from_pretrained(folder)
    np.testing.assert_allclose(classifier.logits([("a good film", "hello")]), expected, atol=1e-5)
    np.testing.assert_allclose(classifier.logits(["good " * 99]), cut, atol=1e-5)
    tagger = Classifier.from_pretrained(family_model(tmp_path / "t", "BERT", TOKEN, id2label=TAGS), long="window")
    (found,) = tagger.predict(["good " * 99])
    assert len(found.tags) == 99
    assert min(found.scores[90:]) > 0.25


def test_words_of_a_pattern_and_options(family_model, layertap, tmp_path, texts):
    folder = family_model(tmp_path / "m", "BERT", TOKEN, id2label=TAGS)
    options = ["--word-pattern", r"[a-z]", "--max-length", "12", "--precision", "bfloat16", "--long", "window"]
    code, said = layertap("predict", texts, "-m", folder, "--name", "t", "-o", tmp_path / "out.jsonl", *options)
    assert code == 0, said
    assert [len(row["t"]) for row in lines(tmp_path / "out.jsonl")] == [len(t.replace(" ", "")) for t in TEXTS]


def test_a_stream_in_python(family_model, tmp_path):
    folder = family_model(tmp_path / "m", "DeBERTa v3", TOKEN, id2label=TAGS)
    classifier = Classifier.from_pretrained(folder, name="ner", batch_tokens=16)
    seen = []
    batches = list(
        classifier.stream(iter(TEXTS * 3), "v = last_hidden_state.mean", on_progress=lambda *n: seen.append(n))
    )
    assert all(isinstance(batch, FeatureBatch) for batch in batches)
    records = [record for batch in batches for record in batch.records]
    assert [record.columns["ner"] for record in records[:4]] == [list(it.tags) for it in classifier.predict(TEXTS)]
    assert {"v", "ner.scores"} == batches[0].features.keys()
    assert sum(number for number, _ in seen) == 12
    assert repr(classifier) == f"Classifier({str(folder)!r}, 4 labels of words)"


def test_labels_that_mark_entities_otherwise_or_none(family_model, tmp_path):
    def tagged(name, labels):
        classifier = Classifier.from_pretrained(family_model(tmp_path / name, "BERT", TOKEN, id2label=labels))
        return classifier.head.scheme, classifier.predict(TEXTS)

    scheme, found = tagged("single", {0: "O", 1: "S-x", 2: "S-y", 3: "U-z"})
    assert scheme == "bio"
    for text, tagging in zip(TEXTS, found, strict=True):  # each word that is marked is one
        marked = [word for word, tag in zip(text.split(), tagging.tags, strict=True) if tag != "O"]
        assert [it.text for it in tagging.entities] == marked
    assert any(tagging.entities for tagging in found)
    scheme, found = tagged("plain", {0: "A", 1: "B", 2: "C", 3: "D"})
    assert scheme == "tags"
    assert all(it.entities == () for it in found)


@pytest.mark.parametrize("end", [SEQUENCE, TOKEN])
def test_texts_that_are_no_list(family_model, tmp_path, end):
    classifier = Classifier.from_pretrained(family_model(tmp_path / "m", "BERT", end, num_labels=2))
    for call in (classifier.predict, classifier.logits):
        with pytest.raises(UsageError, match="expected a list of texts, found the text a good film"):
            call("a good film")
        with pytest.raises(InputError, match="text 1 is int"):
            call(["a", 1])
    assert len(classifier.predict([])) == 0


def test_a_folder_of_the_trainer(family_model, tmp_path):
    pytest.importorskip("accelerate")  # which the Trainer asks for
    start = family_model(tmp_path / "start", "BERT", "Model")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(start, id2label=MOODS)
    settings = transformers.TrainingArguments(
        output_dir=str(tmp_path / "run"), max_steps=2, report_to=[], use_cpu=True, save_strategy="no"
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(start)
    rows = [{**tokenizer(text), "labels": i % 3} for i, text in enumerate(TEXTS * 4)]
    trainer = transformers.Trainer(model, settings, train_dataset=rows, processing_class=tokenizer)
    trainer.train()
    trainer.save_model(str(tmp_path / "made"))
    found = Classifier.from_pretrained(tmp_path / "made")
    np.testing.assert_allclose(found.logits(TEXTS), np.stack(oracle(tmp_path / "made")), atol=1e-5)
    assert found.labels == tuple(MOODS.values())


def test_pickles(family_model, tmp_path):
    folder = family_model(tmp_path / "m", "ELECTRA", SEQUENCE, id2label=MOODS)
    expected = np.stack(oracle(folder))
    weights = transformers.AutoModelForSequenceClassification.from_pretrained(folder).state_dict()
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    found = Classifier.from_pretrained(folder, allow_pickle=True)
    np.testing.assert_allclose(found.logits(TEXTS), expected, atol=1e-5)


def changed(folder, **fields):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return folder


@pytest.mark.parametrize(
    ("end", "values", "change", "message"),
    [
        ("Model", {}, {}, "no classification head: architectures in its config.json is ['BertModel']"),
        (SEQUENCE, {}, {"architectures": None}, "no classification head: architectures in its config.json is None"),
        ("ForMaskedLM", {}, {"architectures": ["Bert" + TOKEN]}, "classifier.weight: expected for BertForToken"),
        (
            SEQUENCE,
            {"num_labels": 3},
            {"id2label": {"0": "a", "1": "b"}},
            "id2label: expected a label for each of 0 to 2",
        ),
        (TOKEN, {"num_labels": 2}, {"id2label": {"0": "O", "1": "O"}}, "id2label: expected labels that differ"),
        (TOKEN, {"num_labels": 1}, {}, "its head has one label, which every word would get"),
        (SEQUENCE, {"num_labels": 2}, {"problem_type": "regression"}, "its head gives 2 numbers per text"),
        (
            SEQUENCE,
            {"num_labels": 1},
            {"problem_type": "single_label_classification"},
            "its head has one label, which every text would get",
        ),
        (SEQUENCE, {"num_labels": 2}, {"problem_type": 3}, "problem_type: expected one of single_label"),
    ],
)
def test_checkpoints_that_cannot_predict_are_refused(
    family_model, layertap, tmp_path, texts, end, values, change, message
):
    folder = changed(family_model(tmp_path / "m", "BERT", end, **values), **change)
    code, said = layertap("predict", texts, "-m", folder, "-o", tmp_path / "out.jsonl")
    assert code == 1
    assert message in said
    assert not (tmp_path / "out.jsonl").exists()
    with pytest.raises(LayertapError):
        Classifier.from_pretrained(folder)


def test_what_does_not_go_together_is_refused(family_model, layertap, tmp_path, texts):
    folder = family_model(tmp_path / "m", "BERT", SEQUENCE, id2label=MOODS)
    out = tmp_path / "out.jsonl"
    head = tmp_path / "x.head"
    fit = tmp_path / "fit.jsonl"
    fit.write_text("".join(json.dumps({"text": text, "label": i % 2}) + "\n" for i, text in enumerate(TEXTS * 2)))
    assert layertap("fit", fit, "-o", head, "-m", folder, "-f", "last_hidden_state.mean", "-q")[0] == 0
    for arguments, message in (
        ([], "name a head (--head), or a checkpoint that stores one (--model)"),
        (["--head", folder, "-m", folder], "is a checkpoint with a head of its own; leave out --model"),
        (["--head", folder, "--head", head], "is a checkpoint with a head of its own, which runs without others"),
        (["--head", head, "--name", "y"], "--name y goes with --model alone; with --head write NAME=FOLDER"),
        (["--head", head, "--max-length", "9"], "--max-length goes with the head that a checkpoint stores"),
        (["--head", head, "--long", "window"], "--long goes with the head that a checkpoint stores"),
        (["-m", folder, "--name", "label"], "'label' is the name of a head and of a column"),
        (
            ["-m", folder, "--name", "v", "-f", "v = last_hidden_state.mean"],
            "'v' is the name of a result of a head and of a feature",
        ),
        (["-m", folder, "--window", "9"], "window 9 goes with long 'window'"),
    ):
        code, said = layertap("predict", fit if "label" in arguments else texts, "-o", out, *arguments)
        assert (code, out.exists()) == (2, False), said
        assert message in said
    code, said = layertap("predict", texts, "-o", out, "--head", "org/some-classifier")
    assert code == 1
    assert "a model of the Hugging Face hub that stores a head is named by --model" in said


def test_an_extractor_that_refuses_the_pooler_is_refused(family_model, tmp_path):
    folder = family_model(tmp_path / "m", "BERT", SEQUENCE, id2label=MOODS)
    weights = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    weights.bert.pooler.dense.bias.data.zero_()
    weights.save_pretrained(folder)
    head = Classifier.from_pretrained(folder).head  # trained on the pooler as it is
    with pytest.raises(OptionError, match="the head takes the output of the pooler as it is stored"):
        Predictor(Extractor.from_pretrained(folder), [head])


def test_a_classifier_takes_the_options_of_the_table(family_model, tmp_path):
    folder = family_model(tmp_path / "m", "BERT", SEQUENCE, id2label=MOODS)
    parameters = inspect.signature(Classifier.from_pretrained).parameters
    assert set(parameters) == {"model", "name", *names_of(ClassifierOptions)}
    classifier = Classifier.from_pretrained(folder, rules=Rules.without("stop"), max_length=8)
    assert classifier.extractor.runtime.rules == Rules.without("stop")
    assert classifier.extractor.semantics == Semantics(max_length=8, untrained_pooler="use")
    with pytest.raises(OptionError, match="no option 'untrained_pooler' here"):
        Classifier.from_pretrained(folder, untrained_pooler="refuse")
