"""`layertap probe` from end to end on a small model."""

from __future__ import annotations

import csv
import json
import re
import shlex
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest

from layertap import Extractor
from layertap.cli.main import parser
from layertap.cli.probe import _command
from tests.writing import write

pytest.importorskip("sklearn", reason="scikit-learn is not installed (extra: learn)")

WORDS = ["film", "river", "bank", "money", "world", "hello", "story", "movie"]


def rows(number, seed=0):
    random = np.random.default_rng(seed)
    return [
        {
            "text": f"{' '.join(random.choice(WORDS, 4))} {('bad', 'good')[i % 2]} {seed}{i}",
            "mood": ("down", "up")[i % 2],
        }
        for i in range(number)
    ]


@pytest.fixture
def data(tmp_path):
    return write(tmp_path / "reviews.jsonl", rows(60))


@pytest.fixture
def runs(watch_runs):
    sequences = []
    watch_runs(lambda _program, batch: sequences.append(len(batch)))
    return sequences


def test_a_table_and_a_recommendation(layertap, data, model, runs):
    ended = layertap("probe", data, "--label", "mood", "-m", model, "-q")
    assert (ended.code, ended.err) == (0, "")
    assert sum(runs) == 60
    lines = ended.out.splitlines()
    assert lines[0].split()[:2] == ["feature", "accuracy"]
    assert [line.split()[0] for line in lines[1:5]] == [f"hidden_states[{i}].mean" for i in range(4)]
    for line in lines[1:5]:
        _, value, low, _, high, control, selectivity, *_ = line.split()
        assert 0 <= float(low) <= float(value) <= float(high) <= 1
        assert float(selectivity) == pytest.approx(float(value) - float(control), abs=0.0011)
    # the chart begins at the interval of the most frequent class
    chance = re.search(r"the most frequent class alone has [\d.]+ \(95% interval ([\d.]+) to", ended.out)[1]
    assert lines[0].split("|")[1].split()[0] == chance
    assert float(lines[1].split()[1]) > 0.9  # the word is in the text
    assert "5-fold cross-validation over 60 texts" in ended.out
    best = re.search(r"^best  (\S+): accuracy", ended.out, re.MULTILINE)[1]
    assert lines[-1] == f"use   layertap extract {data} -o features.parquet -f '{best}' --model {model}"
    frugal = re.search(r"(\S+) costs less", ended.out)
    saved = best if frugal is None else frugal[1]
    assert lines[-2] == f"save   layertap save '{saved}' -o model/ --model {model}"


def test_the_command_that_saves_the_best_feature_runs(layertap, data, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ended = layertap("probe", data, "--label", "mood", "-m", model, "--layers", 2, "--max-length", 20)
    saving = shlex.split(ended.out.splitlines()[-2].removeprefix("save   layertap "))
    assert layertap(*saving).code == 0
    assert Extractor.from_pretrained(tmp_path / "model").plan().inputs[0].max_length == 20
    # a graph where a folder cannot say it
    ended = layertap("probe", data, "--label", "mood", "-m", model, "--layers", 2, "--pooling", "sum")
    assert shlex.split(ended.out.splitlines()[-2])[-4:-2] == ["-o", "model.onnx"]


def test_the_recommended_command_runs(layertap, data, model, tmp_path, monkeypatch):
    import shlex

    monkeypatch.chdir(tmp_path)
    ended = layertap("probe", data, "--label", "mood", "-m", model, "-q", "--layers", "1,2", "--max-length", "20")
    command = shlex.split(ended.out.splitlines()[-1].removeprefix("use   layertap "))
    assert "--max-length" in command
    assert layertap(*command).code == 0
    assert (tmp_path / "features.parquet").exists()


def test_the_recommended_command_opens_the_model_as_the_probe_did(
    layertap, data, make_checkpoint, tmp_path, monkeypatch
):
    import shlex

    import torch
    from safetensors.numpy import load_file

    folder = make_checkpoint(tmp_path / "pickled")
    weights = {name: torch.from_numpy(array) for name, array in load_file(folder / "model.safetensors").items()}
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    monkeypatch.chdir(tmp_path)
    model = ["-m", folder, "--allow-pickle", "--offline"]
    ended = layertap("probe", data, "--label", "mood", *model, "-q", "--layers", "1")
    command = shlex.split(ended.out.splitlines()[-1].removeprefix("use   layertap "))
    assert {"--allow-pickle", "--offline"} <= set(command)
    assert layertap(*command).code == 0


def test_a_given_split_with_files_of_every_kind(layertap, data, model, tmp_path, runs):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra: learn)")
    test, dev = write(tmp_path / "t.jsonl", rows(30, seed=1)), write(tmp_path / "d.jsonl", rows(20, seed=2))
    outputs = [tmp_path / f"out{ending}" for ending in (".csv", ".json", ".png", ".html")]
    arguments = ["probe", data, "--test", test, "--dev", dev, "--label", "mood", "-m", model]
    arguments += ["--pooling", "mean,cls", "-f", "pooler_output", "--metric", "mcc", "--cache", tmp_path / "cache"]
    arguments += [part for output in outputs for part in ("-o", output)]
    ended = layertap(*arguments)
    assert ended.code == 0, ended.err
    assert sum(runs) == 110
    assert "Learned from 60 texts, scored on 30 others" in ended.out
    assert "probing hidden_states[0].mean (1 of 9)" in ended.err
    with outputs[0].open() as file:
        table = list(csv.DictReader(file))
    whole = json.loads(outputs[1].read_text())
    assert [row["feature"] for row in table] == [row["feature"] for row in whole["features"]]
    assert [row["feature"] for row in table][-1] == "pooler_output"
    assert (table[5]["layer"], table[5]["pooling"]) == ("1", "cls")
    assert whole["classes"] == ["down", "up"]
    assert np.sum(whole["confusion"]) == 30
    assert whole["num_mistakes"] == 30 - np.trace(whole["confusion"])
    texts = [json.loads(line) for line in test.read_text().splitlines()]
    for mistake in whole["mistakes"]:
        assert (texts[mistake["row"]]["text"], texts[mistake["row"]]["mood"]) == (mistake["text"], mistake["true"])
    assert whole["best"] == max(whole["features"], key=lambda row: row["selection"])["feature"]
    assert whole["provenance"]["features"]["pooler_output"] == "pooler_output"
    assert str(tmp_path) not in json.dumps(whole["provenance"])
    assert len(whole["cka"]["features"]) == len(whole["cka"]["values"]) == 4
    assert outputs[2].read_bytes().startswith(b"\x89PNG")
    page = outputs[3].read_text(encoding="utf-8")
    assert page.count("data:image/svg+xml;base64,") == 4
    assert not re.search(r'(src|href)="(?!data:)', page)
    HTMLParser().feed(page)
    again = layertap(*arguments, "--overwrite")
    assert again.out == ended.out
    assert json.loads(outputs[1].read_text()) == whole
    assert outputs[3].read_text(encoding="utf-8") == page
    assert sum(runs) == 110


def test_labels_are_escaped_and_any_script(layertap, model, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra: learn)")
    labels = ["<script>alert(1)</script>", "$x_", "\u597d\u8bc4"]
    data = write(tmp_path / "<b>.jsonl", [{"text": f"good {i}", "y": labels[i % 3]} for i in range(18)])
    ended = layertap(
        "probe", data, "--label", "y", "-m", model, "-q", "-o", tmp_path / "p.html", "-o", tmp_path / "p.png"
    )
    assert ended.code == 0, ended.err
    assert ended.err == ""
    page = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "<h1>&lt;b&gt;" in page


@pytest.mark.slow
def test_many_classes(layertap, model, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra: learn)")
    data = write(tmp_path / "d.jsonl", [{"text": f"good {i}", "y": i % 15} for i in range(45)])
    arguments = ["--folds", "3", "-m", model, "-q", "-o", tmp_path / "p.png", "-o", tmp_path / "p.html"]
    ended = layertap("probe", data, "--label", "y", *arguments, "--layers", "0", "--projection", "tsne")
    assert ended.code == 0, ended.err
    assert "15 classes" in ended.out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--label", "tone"], 2, "'tone'"),
        (["--label", "mood", "--dev", "d.jsonl"], 2, "--dev needs --test"),
        (["--label", "mood", "--folds", "1"], 2, "--folds 1: expected at least 2"),
        (
            ["--label", "mood", "--folds", "40"],
            1,
            "class 'down' has 30 distinct texts (and 1 more with too few), and 40-fold cross-validation needs 40",
        ),
        (["--label", "mood", "--test", "x.jsonl", "--folds", "3"], 2, "leave one of them out"),
        (["--label", "mood", "--test", "nowhere.jsonl"], 1, "nowhere.jsonl"),
        (["--label", "mood", "-o", "x.pdf"], 2, "ends with .csv, .json, .png, .html"),
        (["--label", "mood", "-o", "nowhere/x.csv"], 1, "there is no folder nowhere"),
        (["--label", "mood", "--pooling", "median"], 2, "--pooling 'median': expected some of cls"),
        (["--label", "mood", "--pooling", ","], 2, "expected some of cls"),
        (["--label", "mood", "--layers", "a"], 2, "--layers 'a': expected numbers"),
        (["--label", "mood", "--layers", "9"], 2, "hidden_states[9]"),
        (["--label", "mood", "-f", "hidden_states[1]"], 2, "a vector per token"),
        (["--label", "mood", "--show", "hidden_states[:].mean"], 2, "gives 4 vectors per text"),
        (["--label", "mood", "--seed", "-1"], 2, "--seed -1: expected a whole number of at least 0"),
        (["--label", "mood", "--spans-column", "s"], 2, "--spans-column"),
        (
            ["--label", "mood", "--metric", "entity_f1"],
            2,
            "needs BIO or IO tags of words, and the labels are 'down', 'up'",
        ),
        (["--label", "mood", "--metric", "pearson"], 2, "is for pairs; name the column of second texts"),
        ([], 2, "there is no column 'label'"),
    ],
)
def test_refusals(refused, data, model, arguments, code, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in refused(code, "probe", data, "-m", model, *arguments)


def test_bad_labels_are_refused_before_the_model_is_opened(refused, tmp_path):
    missing = write(tmp_path / "m.jsonl", [*rows(4), {"text": "x", "mood": None}])
    assert "m.jsonl, line 5: column 'mood' is empty; fill it in, or remove the row" in refused(
        1, "probe", missing, "--label", "mood", "-m", "/no/model"
    )
    one = write(tmp_path / "o.jsonl", rows(9)[::2])
    assert "every row has the label 'down'" in refused(1, "probe", one, "--label", "mood", "-m", "/no/model")


def test_existing_outputs_are_kept(refused, data, model, tmp_path):
    kept = tmp_path / "kept.csv"
    kept.write_text("mine")
    assert "--overwrite" in refused(2, "probe", data, "--label", "mood", "-m", model, "-o", kept)
    assert kept.read_text() == "mine"


def test_what_help_names_is_what_there_is():
    from typing import get_args

    from layertap.cli import probe
    from layertap.features.grammar import PoolOp
    from layertap.learn.bootstrap import ENTITY_F1
    from layertap.learn.metrics import CORRELATIONS, METRICS

    assert (*METRICS, ENTITY_F1) == probe.METRICS
    assert tuple(CORRELATIONS) == probe.PAIR_METRICS
    assert set(probe.POOLINGS) == set(get_args(PoolOp))


def tagged(path, number, seed=0):
    random = np.random.default_rng(seed)
    tags = {"film": "NOUN", "river": "NOUN", "good": "ADJ", "bad": "ADJ", "the": "DET", "a": "DET"}
    lines = []
    for i in range(number):
        words = [*random.choice(list(tags), 5), f"{seed}x{i}"]
        lines += [f"{word}\t{tags.get(word, 'X')}" for word in words] + [""]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_words_of_a_conll_file(layertap, model, tmp_path, monkeypatch, runs):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra: learn)")
    monkeypatch.chdir(tmp_path)
    train, test = tagged(tmp_path / "train.conll", 40), tagged(tmp_path / "test.conll", 20, seed=1)
    outputs = ["-o", "w.json", "-o", "w.html", "-o", "w.png"]
    arguments = ["--label", "col1", "-m", model, "--pooling", "mean,first", "-q", *outputs]
    ended = layertap("probe", train, "--test", test, *arguments)
    assert (ended.code, ended.err) == (0, "")
    assert sum(runs) == 60
    assert "360 words, 4 classes. Learned from 240 words, scored on 120 others" in ended.out
    assert "bootstrap samples of the scored sentences" in ended.out
    whole = json.loads((tmp_path / "w.json").read_text())
    assert [row["feature"] for row in whole["features"][3:5]] == [
        "hidden_states[3].words(mean)",
        "hidden_states[0].words(first)",
    ]
    assert (whole["features"][5]["layer"], whole["features"][5]["pooling"]) == (1, "words(first)")
    assert whole["features"][0]["score"] > 0.9
    # Most words are of six forms, each of which has a random label of its own: a probe learns these, too.
    assert whole["features"][0]["control"] > 0.6
    assert "360 words" in (tmp_path / "w.html").read_text(encoding="utf-8")
    command = ended.out.splitlines()[-1]
    assert "\nsave " not in ended.out  # no target has vectors of words
    assert command.endswith(f"-f '{whole['best']}' --model {model}")


def test_words_of_jsonl_in_cross_validation(layertap, model, tmp_path):
    rows = [{"words": ["the", ("film", "river")[i % 2], f"n{i}"], "tag": ["D", "N", "X"]} for i in range(20)]
    data = write(tmp_path / "w.jsonl", rows)
    arguments = ["--label", "tag", "--words-column", "words", "-m", model, "-q", "--layers", "0"]
    ended = layertap("probe", data, *arguments, "--max-words", "30")
    assert ended.code == 0, ended.err
    assert "5-fold cross-validation over 30 words, sentences kept whole" in ended.out
    assert "note: of the 60 words" in ended.out
    assert "--words-column words" in ended.out.splitlines()[-1]


def test_tags_of_the_words_of_texts(layertap, model, tmp_path):
    rows = [{"text": f"the {('film', 'river')[i % 2]} n{i}", "tag": ["D", "N", "X"]} for i in range(20)]
    data = write(tmp_path / "w.jsonl", rows)
    ended = layertap("probe", data, "--label", "tag", "-m", model, "-q", "--layers", "0")
    assert ended.code == 0, ended.err
    assert "5-fold cross-validation over 60 words, sentences kept whole" in ended.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cache", "c"], "--cache keeps vectors of texts"),
        (["-f", "last_hidden_state.mean"], "one vector per word is needed"),
        (["--pooling", "cls"], "words takes one of first"),
        (["--max-words", "0"], "--max-words 0: expected at least 1"),
    ],
)
def test_refusals_of_words(refused, model, tmp_path, arguments, message):
    train = tagged(tmp_path / "train.conll", 10)
    assert message in refused(2, "probe", train, "--label", "col1", "-m", model, *arguments)


def test_entities(layertap, model, tmp_path, monkeypatch):
    pytest.importorskip("seqeval", reason="seqeval is not installed (extra: learn)")
    monkeypatch.chdir(tmp_path)
    for name, number in (("train", 60), ("test", 30)):
        lines = []
        for i in range(number):
            lines += [f"{name}{i}\tO", "hello\tB-greeting", "world\tI-greeting", "river\tB-place", ""]
        (tmp_path / f"{name}.conll").write_text("\n".join(lines) + "\n", encoding="utf-8")
    arguments = ["--label", "col1", "-m", model, "-q", "-o", "e.json", "-o", "e.csv", "--overwrite"]
    ended = layertap("probe", "train.conll", "--test", "test.conll", *arguments, "--layers", "0,2")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.split("\n")[0].split()[:5] == ["feature", "entity_f1", "95%", "interval", "accuracy"]
    assert "random labels (accuracy)" in ended.out.split("\n")[0]
    assert "the most frequent class alone has accuracy" in ended.out
    whole = json.loads((tmp_path / "e.json").read_text())
    best = max(whole["features"], key=lambda row: row["selection"])
    assert best["score"] > 0.9
    assert best["accuracy_low"] <= best["accuracy"] <= best["accuracy_high"]
    assert best["selectivity"] == pytest.approx(best["accuracy"] - best["control"])
    assert (whole["settings"]["metric"], whole["control_metric"]) == ("entity_f1", "accuracy")
    assert "accuracy_high" in (tmp_path / "e.csv").read_text().split("\n")[0]
    again = layertap(
        "probe", "train.conll", "--test", "test.conll", *arguments, "--layers", "0", "--metric", "accuracy"
    )
    assert again.out.split("\n")[0].split()[:5] == ["feature", "accuracy", "95%", "interval", "entity_f1"]


def pairs(path, number, seed=0):
    random = np.random.default_rng(seed)
    rows = []
    for i in range(number):
        words = random.choice(WORDS, 5)
        same = int(random.integers(0, 6))
        other = [*words[:same], *random.choice(WORDS, 5 - same)]
        rows.append({"one": f"{' '.join(words)} {seed}{i}", "two": " ".join(other), "alike": same})
    return write(path, rows)


PAIRS = ["--text-column", "one", "--pair-column", "two", "--label", "alike"]


def test_pairs(layertap, model, tmp_path, monkeypatch, runs):
    import shlex

    pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra: learn)")
    monkeypatch.chdir(tmp_path)
    pairs(tmp_path / "data.jsonl", 60), pairs(tmp_path / "test.jsonl", 40, seed=1)
    outputs = [f"p{ending}" for ending in (".csv", ".json", ".png", ".html")]
    arguments = ["probe", "data.jsonl", *PAIRS, "--test", "test.jsonl", "-m", model, "-q", "--pooling", "mean,max"]
    arguments += [part for output in outputs for part in ("-o", output)] + ["--cache", "cache"]
    ended = layertap(*arguments)
    assert (ended.code, ended.err) == (0, "")
    head, *lines = ended.out.splitlines()
    assert head.split()[:8] == ["feature", "spearman", "95%", "interval", "pearson", "shuffled", "chosen", "by"]
    assert len(lines[: lines.index("")]) == 8
    assert "100 pairs of" in ended.out
    assert "Scored on 40 pairs" in ended.out
    assert "chosen on the 60 other pairs" in ended.out
    whole = json.loads((tmp_path / "p.json").read_text())
    assert sum(runs) == whole["settings"]["texts"]
    assert whole["best"] == max(whole["features"], key=lambda row: row["selection"])["feature"]
    best = next(row for row in whole["features"] if row["feature"] == whole["best"])
    assert best["score"] > 0.6
    assert best["low"] < best["score"] < best["high"]
    assert best["pearson"] > 0.6
    assert 0.1 < best["control"] < 0.6
    assert len(whole["cosines"]["values"]) == len(whole["scores"]) == 40
    first = whole["mistakes"][0]
    assert first["true"] == f"{whole['scores'][first['row']]:.4g}"
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert page.count("data:image/svg+xml;base64,") == 3
    with (tmp_path / "p.csv").open() as file:
        assert [row["feature"] for row in csv.DictReader(file)] == [row["feature"] for row in whole["features"]]
    again = layertap(*arguments, "--overwrite")
    assert again.out == ended.out
    assert sum(runs) == whole["settings"]["texts"]
    commands = ended.out.splitlines()[-1].removeprefix("use   ").split(" && ")
    for command, column in zip(commands, ("one", "two"), strict=True):
        assert shlex.split(command)[-3:] == [column, "--model", str(model)] or column in shlex.split(command)
        assert layertap(*shlex.split(command)[1:]).code == 0


def test_cosines_of_pairs_are_those_of_their_vectors(layertap, model, tmp_path):
    from scipy import stats

    from layertap import Extractor

    data = pairs(tmp_path / "data.jsonl", 30)
    ended = layertap("probe", data, *PAIRS, "-m", model, "-q", "--layers", "2", "-o", tmp_path / "p.json")
    assert ended.code == 0, ended.err
    assert "the best is chosen by the same scores" in ended.out
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    extractor = Extractor.from_pretrained(model)
    one, two = (extractor.extract([row[key] for row in rows], "hidden_states[2].mean") for key in ("one", "two"))
    cosines = (one * two).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(two, axis=1)
    whole = json.loads((tmp_path / "p.json").read_text())
    np.testing.assert_allclose(whole["cosines"]["values"], cosines, atol=1e-5)
    expected = stats.spearmanr(cosines, [row["alike"] for row in rows]).statistic
    assert whole["features"][0]["score"] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--folds", "3"], "--folds: nothing is learned from pairs, so there are no folds; leave it out"),
        (["--test", "t.jsonl", "--dev", "d.jsonl"], "--dev: nothing is learned from pairs"),
        (["--metric", "mcc"], "--metric mcc is for classes; for pairs expected one of spearman, pearson"),
        (["--projection", "tsne"], "for pairs cosines are drawn"),
        (["-f", "hidden_states[1]"], "a vector per token"),
    ],
)
def test_refusals_of_pairs(refused, model, tmp_path, arguments, message):
    data = pairs(tmp_path / "data.jsonl", 10)
    assert message in refused(2, "probe", data, *PAIRS, "-m", model, *arguments)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([1, None, 2], "d.jsonl, line 2: column 'y' is empty; fill it in"),
        ([1, "high", 2], "d.jsonl, line 2: column 'y' is 'high'; expected a number"),
        ([1, True, 2], "d.jsonl, line 2: column 'y' is True; expected a number"),
        ([1, "inf", 2], "is 'inf'; expected a number"),
        ([1, [2], 2], r"is [2]; expected a number"),
        ([3, 3, 3], "every score is 3; a correlation needs different scores"),
        ([1, 2], "2 distinct pairs; a correlation needs at least 3"),
    ],
)
def test_bad_scores_are_refused_before_the_model_is_opened(refused, tmp_path, scores, message):
    data = write(tmp_path / "d.jsonl", [{"text": f"a {i}", "b": f"b {i}", "y": y} for i, y in enumerate(scores)])
    assert message in refused(1, "probe", data, "--pair-column", "b", "--label", "y", "-m", "/no/model")


def test_pairs_of_the_test_part_that_stand_in_the_data(layertap, refused, model, tmp_path):
    data = pairs(tmp_path / "data.jsonl", 20)
    lines = data.read_text().splitlines()
    swapped = json.loads(lines[0])
    swapped["one"], swapped["two"] = swapped["two"], swapped["one"]
    test = pairs(tmp_path / "test.jsonl", 10, seed=1)
    test.write_text(test.read_text() + json.dumps(swapped) + "\n")
    ended = layertap("probe", data, *PAIRS, "--test", test, "-m", model, "-q", "--layers", "1")
    assert "Scored on 10 pairs" in ended.out
    assert f"note: 1 pair of {test} also occurs in {data} and was left out" in ended.out
    assert "none is left to score" in refused(1, "probe", data, *PAIRS, "--test", data, "-m", model)


def test_the_command_reads_the_file_as_the_probe_did():
    arguments = ["probe", "d.csv", "--label", "mood", "--delimiter", ";", "--no-header", "--encoding", "gb18030"]
    options = parser("probe").parse_args([*arguments, "--quoting", "none", "--text-column", "col0"])
    findings = SimpleNamespace(winner=SimpleNamespace(feature="hidden_states[1].mean"))
    command = shlex.split(_command(options, findings))
    assert command[:6] == ["layertap", "extract", "d.csv", "-o", "features.parquet", "-f"]
    extract = parser("extract").parse_args([*command[1:]])
    names = ("delimiter", "header", "encoding", "quoting", "text_column")
    assert [getattr(extract, name) for name in names] == [";", False, "gb18030", "none", "col0"]
