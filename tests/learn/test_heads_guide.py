"""The commands and the code of the guide to heads, as they stand there, on the first rows of real data."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from layertap.cli.main import main

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared/data"
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def first_lines(source: Path, place: Path, count: int) -> None:
    place.parent.mkdir(exist_ok=True)
    place.write_text("\n".join(source.read_text("utf-8").splitlines()[:count]) + "\n", "utf-8")


def first_sentences(source: Path, place: Path, count: int) -> None:
    place.parent.mkdir(exist_ok=True)
    place.write_text("\n\n".join(source.read_text("utf-8").split("\n\n")[:count]) + "\n\n", "utf-8")


@pytest.fixture
def _data(tmp_path, monkeypatch, minilm_folder):
    if not DATA.is_dir():
        pytest.skip(f"{DATA} is not there")
    pytest.importorskip("seqeval", reason="seqeval is not installed (extra: learn)")
    for part, size in {"train": 240, "dev": 60, "test": 60}.items():
        name = f"stsa.binary.{part}.txt"
        first_lines(DATA / "sst" / name, tmp_path / "sst" / name, size)
    wnut, ewt = DATA / "ner_wnut17", DATA / "ud_english_ewt"
    first_sentences(wnut / "wnut17train.conll", tmp_path / "wnut/train.conll", 200)
    # tags that are in its first sentences
    first_sentences(wnut / "wnut17train.conll", tmp_path / "wnut/test.conll", 40)
    first_sentences(ewt / "en_ewt-ud-dev.conllu", tmp_path / "ewt/train.conllu", 120)
    first_sentences(ewt / "en_ewt-ud-dev.conllu", tmp_path / "ewt/test.conllu", 30)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")


@pytest.mark.slow
@pytest.mark.usefixtures("_data")
def test_the_guide_runs(tmp_path, capsys):
    names: dict = {}
    blocks = BLOCK.findall((ROOT / "docs/heads.md").read_text("utf-8"))
    assert [kind for kind, _ in blocks] == ["sh", "python", "sh", "python", "sh", "python", "python"]
    for kind, code in blocks:
        if kind == "python":
            block: dict = {}
            exec(code, block)
            names |= block
            continue
        for command in code.splitlines():
            program, *arguments = shlex.split(command)
            if program == "curl":
                continue
            assert program == "layertap"
            assert main(arguments) == 0, capsys.readouterr().err
    predicted = [json.loads(line) for line in (tmp_path / "predicted.jsonl").read_text().splitlines()]
    assert [list(row) for row in predicted] == [
        ["row", "mood", "text", "plain", "mixed", "v", "plain.scores", "mixed.scores"]
    ] * 60
    assert sum(row["mood"] == row["plain"] for row in predicted) > 36
    assert names["prediction"].label == "positive"
    tagged = [json.loads(line) for line in (tmp_path / "entities.jsonl").read_text().splitlines()]
    assert [len(row["ner"]) for row in tagged] == [len(row["ner.scores"]) for row in tagged]
    assert names["head"].metrics["validation"]["accuracy"] > 0.6
    assert (tmp_path / "python.head/head.json").is_file()
