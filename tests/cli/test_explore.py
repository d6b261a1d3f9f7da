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
    text = (folder / "page.html").read_text(encoding="utf-8")
    facts = json.loads(re.search(r'id="facts">(.*?)</script>', text, re.DOTALL)[1])  # type: ignore[index]
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
        (["--pair-column", "mood"], "explore shows texts; leave it out"),
    ],
)
def test_what_cannot_be_shown_is_refused(folder, capsys, arguments, message):
    output = [] if "-o" in arguments else ["-o", "page.html"]
    assert main(["explore", "moods.csv", "-m", "m", *output, *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (folder / "page.html").exists()


def test_a_folder_of_features_is_refused(folder, capsys):
    assert main(["explore", "m", "-o", "page.html"]) == 2
    assert "m is a folder; explore reads the file of texts, not stored features" in capsys.readouterr().err


def test_a_page_that_exists_is_kept(folder, capsys):
    (folder / "page.html").write_text("mine", encoding="utf-8")
    assert main(["explore", "moods.csv", "-m", "m", "-o", "page.html"]) == 2
    assert (folder / "page.html").read_text(encoding="utf-8") == "mine"
