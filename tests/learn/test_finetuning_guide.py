"""The guide to fine-tuning as it stands there, on the first sentences of SST-2."""

from __future__ import annotations

import csv
import json
import re
import shlex
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from layertap.cli.main import main

ROOT = Path(__file__).parents[2]
SST = ROOT.parent / "shared/data/sst"


@pytest.mark.slow
def test_the_guide_runs(tmp_path, monkeypatch, minilm_folder):
    pytest.importorskip("seqeval", reason="seqeval is not installed (extra: learn)")
    if not SST.is_dir():
        pytest.skip(f"{SST} is not there")
    for part, size in {"train": 64, "dev": 24}.items():
        rows = (SST / f"stsa.binary.{part}.txt").read_text("utf-8").splitlines()
        with (tmp_path / f"{part}.csv").open("w", encoding="utf-8", newline="") as file:
            texts = [reversed(row.split(" ", 1)) for row in rows[:: len(rows) // size][:size]]
            csv.writer(file).writerows([["text", "label"], *texts])
    for part, name, size in (("train", "wnut17train.conll", 120), ("dev", "wnut17train.conll", 20)):
        sentences = (SST.parent / "ner_wnut17" / name).read_text("utf-8").split("\n\n")
        (tmp_path / f"{part}.conll").write_text("\n\n".join(sentences[:size]) + "\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs/finetuning.md").read_text("utf-8")
    lines = re.findall(r"^```sh\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    commands = [shlex.split(line)[1:] for block in lines for line in block.splitlines()]
    assert [command[0] for command in commands] == ["finetune", "finetune", "predict", "predict"]
    for command in commands:
        assert main(command) == 0
    moods = [json.loads(line) for line in (tmp_path / "moods.jsonl").read_text().splitlines()]
    assert {row["mood"] for row in moods} <= {"0", "1"}
    entities = pq.read_table(tmp_path / "entities.parquet")
    assert entities.column_names[-5:] == ["words", "entities", "entities.entities", "v", "entities.scores"]
    names: dict = {}
    for block in re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE):
        own: dict = {}
        exec(block, own)
        names |= own
    assert names["predictions"].scores.shape == (2, 2)
    assert set(names["predictions"].labels) <= {"0", "1"}
    assert names["result"].labels == ("neg", "pos")
    assert names["result"].steps == 2
    assert len(names["tagging"].tags) == 7
