from __future__ import annotations

import json
import re

import pytest

from layertap.cli.main import main

pytest.importorskip("sklearn")


@pytest.fixture
def folder(tmp_path, make_checkpoint, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_checkpoint(tmp_path / "m")
    rows = "".join(f"a good film {i},up\na dull <b>film</b> {i},down\n" for i in range(10))
    (tmp_path / "moods.csv").write_text("text,mood\n" + rows, encoding="utf-8")
    return tmp_path


def test_a_page_is_written_with_the_commands_that_give_its_numbers(folder, capsys):
    assert main(["explore", "moods.csv", "-m", "m", "--label", "mood", "-o", "page.html", "--sentence", "3"]) == 0
    facts = facts_of(folder / "page.html")
    assert facts["commands"]["extract"] == "layertap extract moods.csv -o vectors.parquet -f 'v = {FEATURE}' --model m"
    assert facts["commands"]["probe"] == "layertap probe moods.csv --label mood --pooling mean --model m"
    assert 3 in [sentence["index"] for sentence in facts["sentences"]]
    assert facts["count"] == 20
    assert "contains the texts" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--label", "moood"], "no column 'moood' for labels; beside the texts there are 'mood'"),
        (["-o", "page.pdf"], "expected a name that ends with .html"),
        (["-o", "moods.csv"], "expected a name that ends with .html"),
        (["--sentences", "51"], "sentences 51: expected a number from 0 to 50"),
        (["--sentence", "20"], "there is no row 20"),
        (["--neighbours", "0"], "neighbours 0: expected at least 1"),
        (["--pooling", "median"], "--pooling 'median': expected one of cls"),
        (["--max-texts", "0"], "--max-texts 0: expected at least 1"),
        (["--pair-column", "mood"], "explore shows texts, words or spans; leave it out"),
    ],
)
def test_what_cannot_be_shown_is_refused(folder, capsys, arguments, message):
    output = [] if "-o" in arguments else ["-o", "page.html"]
    assert main(["explore", "moods.csv", "-m", "m", *output, *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (folder / "page.html").exists()


def facts_of(path):
    text = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'id="facts">(.*?)</script>', text, re.DOTALL)[1])  # type: ignore[index]


@pytest.mark.parametrize("output", ["features/", "f.parquet"])
def test_stored_features_are_shown_with_their_texts_and_the_model(folder, capsys, output):
    feature = ["-f", "h = hidden_states[:].mean", "-q"]
    assert main(["extract", "moods.csv", "-m", "m", "-o", output, *feature]) == 0
    common = ["explore", output, "--label", "mood", "-o", "page.html", "--overwrite"]
    assert main([*common, "--texts", "moods.csv", "-m", "m", "--sentence", "3"]) == 0
    facts = facts_of(folder / "page.html")
    assert facts["texts"][:2] == ["a good film 0", "a dull <b>film</b> 0"]
    assert 3 in [sentence["index"] for sentence in facts["sentences"]]
    assert facts["layers"][1]["name"] == "hidden_states[1]"
    assert facts["commands"]["neighbours"].startswith("import layertap, numpy as np\n{VECTORS}\n")
    capsys.readouterr()
    assert main(common) == 0
    facts = facts_of(folder / "page.html")
    assert (facts["texts"], facts["sentences"]) == (None, [])
    assert facts["probe"] is not None
    assert "The features hold no texts" in capsys.readouterr().err


def test_the_model_of_stored_features_is_checked(folder, capsys, make_checkpoint):
    make_checkpoint(folder / "other", seed=5)
    assert main(["extract", "moods.csv", "-m", "m", "-o", "f.parquet", "--columns", "text", "-q"]) == 0
    assert main(["explore", "f.parquet", "-o", "page.html", "-m", "other"]) == 2
    assert "--model other: f.parquet is from another model, m; name that" in capsys.readouterr().err
    (folder / "m").rename(folder / "elsewhere")
    assert main(["explore", "f.parquet", "-o", "page.html"]) == 0
    facts = facts_of(folder / "page.html")
    assert facts["texts"] is not None
    assert "the model of the features, m, is not at hand" in facts["why_no_sentences"]


def test_words_of_a_treebank_are_points_with_their_own_labels(folder, capsys):
    lines = "".join(f"a O\ngood B\nfilm{i} I\n\n" for i in range(8))
    (folder / "tags.conll").write_text(lines, encoding="utf-8")
    arguments = ["explore", "tags.conll", "-m", "m", "--unit", "words", "--label", "col1", "-o", "page.html"]
    assert main(arguments) == 0
    facts = facts_of(folder / "page.html")
    assert facts["texts"][:3] == ["a", "good", "film0"]
    assert (facts["count"], facts["unit"], len(facts["contexts"])) == (24, "word", 8)
    assert facts["columns"][0]["names"] == ["B", "I", "O"]
    assert facts["probe"] is not None
    assert facts["commands"]["extract"].startswith("layertap extract tags.conll")
    assert "words(mean)" in facts["layers"][0]["feature"]
    assert main(["explore", "tags.conll", "-m", "m", "-o", "texts.html"]) == 0
    assert facts_of(folder / "texts.html")["unit"] == "text"


def test_features_as_jsonl_and_empty_texts_are_told_apart(folder, capsys):
    assert main(["extract", "moods.csv", "-m", "m", "-o", "f.jsonl", "-q"]) == 0
    assert main(["explore", "f.jsonl", "-o", "page.html"]) == 2
    assert "f.jsonl holds features as JSONL, which explore does not read" in capsys.readouterr().err
    (folder / "empty.txt").write_text("", encoding="utf-8")
    assert main(["explore", "empty.txt", "-m", "m", "-o", "page.html"]) == 1
    assert "there are no texts to show" in capsys.readouterr().err
    assert not (folder / "page.html").exists()


def test_a_folder_without_features_is_refused(folder, capsys):
    assert main(["explore", "m", "-o", "page.html"]) == 1
    assert "no folder of features" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["f.parquet", "--unit", "words"], "--unit is for files of texts, and f.parquet holds features"),
        (["f.parquet", "--pooling", "cls"], "--pooling is for files of texts"),
        (["f.parquet", "--feature", "x"], "there is no feature 'x'; there are "),
        (["f.parquet", "--label", "moood"], "no column 'moood' for labels; beside the texts there are 'mood'"),
        (["f.parquet", "--texts", "no.csv"], "no.csv"),
        (["moods.csv", "--feature", "x"], "--feature is for stored features, and moods.csv is a file of texts"),
        (["moods.csv", "--texts", "moods.csv"], "--texts is for stored features"),
        (["moods.csv", "--unit", "spans"], "--unit spans and --spans-column go together"),
    ],
)
def test_options_that_do_not_go_together_are_refused(folder, capsys, arguments, message):
    assert main(["extract", "moods.csv", "-m", "m", "-o", "f.parquet", "-q"]) == 0
    assert main(["explore", *arguments, "-o", "page.html"]) in (1, 2)
    assert message in capsys.readouterr().err
    assert not (folder / "page.html").exists()


def test_a_page_that_exists_is_kept(folder, capsys):
    (folder / "page.html").write_text("mine", encoding="utf-8")
    assert main(["explore", "moods.csv", "-m", "m", "-o", "page.html"]) == 2
    assert (folder / "page.html").read_text(encoding="utf-8") == "mine"
