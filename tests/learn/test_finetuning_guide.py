"""The guide to fine-tuning as it stands there, on the first sentences of SST-2."""

from __future__ import annotations

import csv
import re
import shlex
from pathlib import Path

import pytest

from layertap.cli.main import main

ROOT = Path(__file__).parents[2]
SST = ROOT.parent / "shared/data/sst"


def test_the_guide_runs(tmp_path, monkeypatch, minilm_folder):
    if not SST.is_dir():
        pytest.skip(f"{SST} is not there")
    for part, size in {"train": 64, "dev": 24}.items():
        rows = (SST / f"stsa.binary.{part}.txt").read_text("utf-8").splitlines()
        with (tmp_path / f"{part}.csv").open("w", encoding="utf-8", newline="") as file:
            texts = [reversed(row.split(" ", 1)) for row in rows[:: len(rows) // size][:size]]
            csv.writer(file).writerows([["text", "label"], *texts])
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs/finetuning.md").read_text("utf-8")
    (line,) = re.findall(r"^```sh\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert main(shlex.split(line)[1:]) == 0
    names: dict = {}
    for block in re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE):
        exec(block, names)
    assert names["found"].scores.shape == (2, 2)
    assert set(names["found"].labels) <= {"0", "1"}
    assert names["result"].labels == ("neg", "pos")
    assert names["result"].steps == 2
