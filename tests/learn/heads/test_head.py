"""Heads of texts: fitted, saved, read, used, refused."""

from __future__ import annotations

import inspect
import json
import os
import pickle
import shutil
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed (extra: learn)")

import torch
from safetensors.numpy import load_file, save_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from layertap import Extractor, Rules
from layertap.engine.options import HeadOptions, Runtime, names_of
from layertap.errors import CheckpointError, FeatureError, InputError, OptionError, UsageError
from layertap.learn import Head, fit_head
from layertap.learn.heads.predictor import Predictor

WORDS = {"good": ["good", "great", "funny"], "bad": ["bad", "dull", "not"], "river": ["river", "bank", "money"]}


def texts_of(count: int, seed: int = 0) -> tuple[list[str], list[str]]:
    random = np.random.default_rng(seed)
    labels = [list(WORDS)[i % len(WORDS)] for i in range(count)]
    return [
        f"the {random.choice(WORDS[label])} {random.choice(['film', 'movie', 'story'])} said it {i}"
        for i, label in enumerate(labels)
    ], labels


TRAIN, TEST = texts_of(90), texts_of(30, seed=1)


@pytest.fixture(scope="module")
def extractor(model):
    return Extractor.from_pretrained(model)


@pytest.fixture(scope="module")
def head(extractor):
    return fit_head(*TRAIN, "hidden_states[1].mean", extractor=extractor, name="topic", test=TEST, l2=0.1)


def test_predictions_are_those_of_scikit_learn_on_the_same_vectors(extractor, head):
    vectors, others = (extractor.extract(texts, "hidden_states[1].mean") for texts, _ in (TRAIN, TEST))
    oracle = LogisticRegression(C=10, tol=1e-8, max_iter=5000).fit(vectors.astype(np.float64), TRAIN[1])
    tight = fit_head(*TRAIN, "hidden_states[1].mean", extractor=extractor, l2=0.1, tolerance=1e-7)
    np.testing.assert_allclose(tight.probabilities(others), oracle.predict_proba(others), atol=2e-3)
    found = head.predict(TEST[0], extractor=extractor)
    assert [it.label for it in found] == oracle.predict(others).tolist()
    assert found[0].score == max(found[0].scores.values()) == found[0].scores[found[0].label]
    assert sum(found[0].scores.values()) == pytest.approx(1)


def test_metrics_are_those_of_scikit_learn(extractor, head):
    predicted = [it.label for it in head.predict(TEST[0], extractor=extractor)]
    measured = head.metrics["test"]
    assert measured["accuracy"] == accuracy_score(TEST[1], predicted) > 0.8
    assert measured["macro_f1"] == pytest.approx(f1_score(TEST[1], predicted, average="macro"))
    assert measured["mcc"] == pytest.approx(matthews_corrcoef(TEST[1], predicted))
    assert measured["classes"]["bad"]["support"] == 10


def test_saved_and_read_back_it_says_the_same(extractor, head, tmp_path):
    head.save(tmp_path / "h")
    assert sorted(path.name for path in (tmp_path / "h").iterdir()) == ["head.json", "head.safetensors"]
    assert [path.name for path in tmp_path.iterdir()] == ["h"]
    again = Head.load(tmp_path / "h")
    assert again.predict(TEST[0]) == head.predict(TEST[0], extractor=extractor)
    alone = again.predict(TEST[0][0])
    assert alone.scores == pytest.approx(again.predict(TEST[0])[0].scores, abs=1e-5)
    assert again.metrics == head.metrics
    assert pickle.loads(pickle.dumps(again)).predict(TEST[0]) == again.predict(TEST[0])
    stated = json.loads((tmp_path / "h/head.json").read_text())
    assert stated["feature"] == "hidden_states[1].mean"
    assert stated["labels"] == ["bad", "good", "river"]
    assert "model.safetensors" in stated["model"]["sha256"]


def test_a_place_that_is_taken(head, tmp_path):
    head.save(tmp_path / "h")
    with pytest.raises(UsageError, match="exists; name another folder, or allow overwriting"):
        head.save(tmp_path / "h")
    head.save(tmp_path / "h", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["h"]
    (tmp_path / "other").mkdir()
    with pytest.raises(UsageError, match="exists and is not a head"):
        head.save(tmp_path / "other", overwrite=True)


def test_a_link_stands_for_the_head_that_it_leads_to(head, tmp_path):
    head.save(tmp_path / "h")
    (tmp_path / "link").symlink_to("h")
    with pytest.raises(UsageError, match="link exists; name another folder, or allow overwriting"):
        head.save(tmp_path / "link")
    replace(head, name="other").save(tmp_path / "link", overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert Head.load(tmp_path / "h").name == Head.load(tmp_path / "link").name == "other"
    (tmp_path / "folder").mkdir()
    (tmp_path / "wrong").symlink_to("folder")
    with pytest.raises(UsageError, match=r"wrong \(a link to .*folder\) exists and is not a head"):
        head.save(tmp_path / "wrong", overwrite=True)


def test_a_head_that_cannot_be_written_leaves_nothing(head, tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "no space")

    head.save(tmp_path / "h")
    before = (tmp_path / "h/head.json").read_bytes()
    monkeypatch.setattr("layertap.files.system.sync", full)
    with pytest.raises(OSError, match="the disk is full; what stood there is as it was"):
        head.save(tmp_path / "h", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["h"]
    assert (tmp_path / "h/head.json").read_bytes() == before


def test_the_extractor_of_a_head_takes_the_options_of_the_table(head):
    parameters = inspect.signature(head.extractor).parameters
    assert set(parameters) == {"model", *names_of(HeadOptions)}
    rules = Rules.without("stop")
    assert head.extractor(rules=rules, batch_tokens=64).runtime == Runtime(rules=rules, batch_tokens=64)
    with pytest.raises(OptionError, match="no option 'batch_token' here; did you mean 'batch_tokens'"):
        head.extractor(batch_token=64)
    with pytest.raises(OptionError, match="no option 'precision' here"):
        head.extractor(precision="bfloat16")


def test_damaged_heads_are_refused(head, tmp_path):
    with pytest.raises(InputError, match="there is no such folder"):
        Head.load(tmp_path / "none")
    with pytest.raises(InputError, match=r"it has no head\.json"):
        Head.load(tmp_path)
    head.save(tmp_path / "h")
    arrays = tmp_path / "h/head.safetensors"
    content = arrays.read_bytes()
    arrays.write_bytes(content[:-7])
    with pytest.raises(InputError, match=r"head\.safetensors is damaged"):
        Head.load(tmp_path / "h")
    arrays.write_bytes(content)
    stated = json.loads((tmp_path / "h/head.json").read_text())
    for change, match in [
        ({"labels": ["a"]}, "do not fit 1 labels"),
        ({"version": 2}, "its version is 2"),
        ({"format": "x"}, "does not describe a head"),
        ({"task": "words"}, "task 'words' with scheme None"),
        ({"feature": "nonsense("}, "is damaged"),
        ({"semantics": {"precision": "float7"}}, "is damaged"),
        ({"semantics": {"precision": []}}, "is damaged"),
        ({"labels": ["bad", "bad"]}, "expected a list of different strings"),
        ({"labels": "bad"}, "expected a list of different strings"),
        ({"feature": 3}, "is damaged"),
        ({"model": {"name": 1, "revision": None, "architecture": "bert", "sha256": {}}}, "expected a name"),
        ({"metrics": 3}, "is damaged"),
    ]:
        (tmp_path / "h/head.json").write_text(json.dumps(stated | change))
        with pytest.raises(InputError, match=match):
            Head.load(tmp_path / "h")
    (tmp_path / "h/head.json").write_text('{"format": ' + "[" * 100_000)
    with pytest.raises(InputError, match="is damaged"):
        Head.load(tmp_path / "h")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"weight": np.zeros((3, 32))}, "weight is float64; expected float32"),
        ({"bias": np.zeros(3, dtype=np.float16)}, "bias is float16; expected float32"),
        ({"weight": np.zeros((3, 32, 1), dtype=np.float32)}, r"weight \[3, 32, 1\] and bias \[3\] do not fit"),
        ({"weight": np.zeros(3, dtype=np.float32)}, r"weight \[3\] and bias \[3\] do not fit"),
        ({"mix": np.zeros((4, 1), dtype=np.float32)}, "expected one factor per layer"),
        ({"mix": np.full(4, np.nan, dtype=np.float32)}, "mix holds NaN or infinity"),
    ],
)
def test_damaged_weights_are_refused(head, tmp_path, change, match):
    head.save(tmp_path / "h")
    arrays = load_file(tmp_path / "h/head.safetensors")
    save_file(arrays | change, tmp_path / "h/head.safetensors")
    with pytest.raises(InputError, match=match):
        Head.load(tmp_path / "h")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("name", ["head.json", "head.safetensors"])
def test_a_named_pipe_in_a_head_is_refused(head, tmp_path, name):
    head.save(tmp_path / "h")
    (tmp_path / "h" / name).unlink()
    os.mkfifo(tmp_path / "h" / name)
    with pytest.raises(InputError, match="it is not a file"):
        Head.load(tmp_path / "h")


def test_a_head_fitted_on_a_pickle_opens_its_model_again(make_checkpoint, tmp_path):
    folder = make_checkpoint(tmp_path / "pickled")
    weights = {name: torch.from_numpy(array) for name, array in load_file(folder / "model.safetensors").items()}
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    extractor = Extractor.from_pretrained(folder, allow_pickle=True)
    fit_head(*TRAIN, extractor=extractor).save(tmp_path / "h")
    head = Head.load(tmp_path / "h")
    assert head.predict(TEST[0]) == head.predict(TEST[0], extractor=extractor)
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
        head.extractor(allow_pickle=False)


def test_a_mix_of_layers(extractor, tmp_path):
    head = fit_head(*TRAIN, "hidden_states[:].mean", extractor=extractor, validation=TEST, test=TEST)
    assert head.mix.shape == (4,)
    shares = head.options["layer_shares"]
    assert sum(shares) == pytest.approx(1)
    np.testing.assert_array_equal(head.mix > 0, np.array(shares) > 0)
    assert head.options["mix_loss"] <= min(head.options["layer_losses"])
    assert head.metrics["validation"] == head.metrics["test"]
    head.save(tmp_path / "h")
    assert Head.load(tmp_path / "h").predict(TEST[0]) == head.predict(TEST[0], extractor=extractor)


def test_a_mix_without_a_validation_part_holds_some_out_and_learns_from_all(extractor):
    head = fit_head(*TRAIN, "hidden_states[:].mean", extractor=extractor, test=TEST)
    assert head.options["records"] == len(TRAIN[0])
    assert list(head.metrics) == ["test"]
    assert head.options["ended"].startswith("converged")
    again = fit_head(*TRAIN, "hidden_states[:].mean", extractor=extractor, seed=0)
    np.testing.assert_array_equal(head.mix, again.mix)
    words = fit_head(
        [["a", "b"], ["c", "d"]], [["X", "Y"], ["X", "Y"]], "hidden_states[:].words(mean)", extractor=extractor
    )
    assert words.mix.shape == (4,)
    with pytest.raises(InputError, match="training data: 1 distinct sentence: too few to hold any out"):
        fit_head([["a", "b"]] * 9, [["X", "Y"]] * 9, "hidden_states[:].words(mean)", extractor=extractor)


def test_vectors_on_disk_make_the_same_head(extractor, tmp_path, runs):
    options = {"extractor": extractor, "validation_share": 0.2}
    kept = fit_head(*TRAIN, "hidden_states[:].mean", **options)
    assert runs.sequences == len(TRAIN[0])  # extracted once
    spilled = fit_head(*TRAIN, "hidden_states[:].mean", memory_bytes=0, folder=tmp_path, **options)
    np.testing.assert_array_equal(kept.weight, spilled.weight)
    assert list(tmp_path.iterdir()) == []


def test_the_seed_chooses_the_validation_part(extractor):
    def made(seed):
        return fit_head(*TRAIN, extractor=extractor, validation_share=0.3, seed=seed)

    np.testing.assert_array_equal(made(1).weight, made(1).weight)
    assert not np.array_equal(made(1).weight, made(2).weight)
    assert sum(it["support"] for it in made(1).metrics["validation"]["classes"].values()) == 27
    assert made(1).options["records"] == 63


def test_class_weights(extractor):
    texts, labels = [*TRAIN[0], *TRAIN[0]], [*TRAIN[1], *["good"] * 90]
    plain = fit_head(texts, labels, extractor=extractor)
    weighted = fit_head(texts, labels, extractor=extractor, class_weight={"bad": 9.0})
    balanced = fit_head(texts, labels, extractor=extractor, class_weight="balanced")

    def how_often_bad(head):
        return sum(it.label == "bad" for it in head.predict(TEST[0], extractor=extractor))

    assert how_often_bad(weighted) > how_often_bad(plain)
    vectors = extractor.extract(texts).astype(np.float64)
    oracle = LogisticRegression(class_weight="balanced", tol=1e-8, max_iter=5000).fit(vectors, labels)
    np.testing.assert_allclose(balanced.probabilities(vectors), oracle.predict_proba(vectors), atol=1e-2)


def test_several_heads_and_features_in_one_pass(extractor, head, runs):
    other = fit_head(*TRAIN, "hidden_states[2].cls", extractor=extractor, name="other")
    runs.sequences = 0
    predictor = Predictor(extractor, [head, other])
    (batch,) = predictor.stream(TEST[0], {"v": "last_hidden_state.mean"})
    assert runs.sequences == len(TEST[0])
    assert list(batch.features) == ["v", "topic.scores", "other.scores"]
    assert [record.columns["topic"] for record in batch.records] == [
        it.label for it in head.predict(TEST[0], extractor=extractor)
    ]
    np.testing.assert_allclose(batch.features["v"], extractor.extract(TEST[0], "last_hidden_state.mean"), atol=1e-5)
    with pytest.raises(OptionError, match="two heads are called 'topic'"):
        Predictor(extractor, [head, head])


def test_another_model_or_other_options_are_refused(head, extractor, make_checkpoint, tmp_path, model):
    other = make_checkpoint(tmp_path / "other", seed=5)
    with pytest.raises(OptionError, match=r"'topic' was fitted on .*tiny-bert, .*other: model.safetensors differs"):
        head.extractor(other)
    moved = shutil.copytree(model, tmp_path / "moved")
    assert head.predict(TEST[0], extractor=head.extractor(moved)) == head.predict(TEST[0], extractor=extractor)
    short = Extractor.from_pretrained(model, max_length=5)
    with pytest.raises(OptionError, match="fitted with max_length None, and this run has 5"):
        head.predict(TEST[0], extractor=short)


@pytest.mark.parametrize(
    ("feature", "match"),
    [
        ("hidden_states[1]", "gives one vector per token, and the labels are one per text"),
        ("hidden_states[1].words(mean)", "gives one vector per word, and the labels are one per text"),
        ("last_hidden_state.mean.astype(int8)", "gives int8 codes"),
        ("attentions[0]", "gives attention maps"),
    ],
)
def test_features_that_are_no_vectors_of_texts(extractor, feature, match):
    with pytest.raises(FeatureError, match=match):
        fit_head(*TRAIN, feature, extractor=extractor)


@pytest.mark.parametrize(
    ("labels", "options", "match"),
    [
        (["a", None, "b", "", "a", "b"], {}, r"training data, text 1: column 'label' is empty, as in 2 of 6 rows"),
        (["a"] * 6, {}, "every row has the label 'a'"),
        (["a", "a", "a", "b", "b", "c"], {}, "only one example of 'c'"),
        (["a", "b", 0.5, "b", "a", "b"], {}, "only one example of '0.5'"),
        (["a", "b", ["b"], "b", "a", "b"], {}, "holds a list, and single labels in the rows before"),
        (
            ["a", "b"] * 3,
            {"test": (["x"], ["c"])},
            "test data: one label does not occur in training data: 'c'",
        ),
        (["a", "b"] * 3, {"validation": (["x"], ["c"])}, "validation data: one label does not occur"),
        (["a", "b"] * 3, {"validation": ([], [])}, "validation data: there are no rows"),
        (
            ["a", "b"] * 3,
            {"validation_share": 0.01},
            "validation_share 0.01: this share of the 6 distinct texts .* is none that",
        ),
        (["a", "b"] * 3, {"validation_share": 1.5}, "validation_share 1.5: expected"),
        (["a", "b"] * 3, {"validation_share": 0.5, "validation": (["x"], ["a"])}, "give one of the two"),
        (["a", "b"] * 3, {"scheme": "bio"}, "is for tags of words"),
        (["a", "b"] * 3, {"class_weight": {"c": 1.0}}, "class_weight names 'c'; expected some of 'a', 'b'"),
        (["a", "b"] * 3, {"class_weight": {"a": -1.0}}, "class_weight -1.0 of 'a'"),
        (["a", "b"] * 3, {"class_weight": "even"}, "expected 'balanced'"),
        (["a", "b"] * 3, {"l2": -1.0}, "l2 -1.0"),
        (["a", "b"] * 3, {"patience": 0}, "patience 0"),
        (["a", "b"] * 3, {"seed": -1}, "seed -1"),
        (["a", "b"] * 2, {}, "6 texts and 4 labels"),
    ],
)
def test_bad_labels_and_options_are_refused_before_anything_runs(extractor, labels, options, match, runs):
    with pytest.raises((InputError, UsageError), match=match):
        fit_head([f"text {i}" for i in range(6)], labels, extractor=extractor, **options)
    assert runs.sequences == 0


def test_labels_of_other_types(extractor):
    pandas = pytest.importorskip("pandas")
    numbers = np.array([list(WORDS).index(label) for label in TRAIN[1]])
    assert fit_head(TRAIN[0], numbers, extractor=extractor).labels == ("0", "1", "2")
    assert fit_head(TRAIN[0], pandas.Series(TRAIN[1]), extractor=extractor).labels == ("bad", "good", "river")
    truth = [label == "good" for label in TRAIN[1]]
    assert fit_head(TRAIN[0], truth, extractor=extractor).labels == ("false", "true")


def test_texts_that_are_cut_are_noted(model):
    head = fit_head(*TRAIN, extractor=Extractor.from_pretrained(model, max_length=5))
    assert "training: 90 texts cut at 5 tokens, 350 tokens lost" in head.options["notes"]
