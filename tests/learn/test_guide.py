"""The guide's code, as it stands there, on the first sentences of SST-2."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SST = ROOT.parent / "shared/data/sst"
SIZES = {"train": 240, "test": 120}


@pytest.fixture
def sst(tmp_path, monkeypatch, minilm_folder):
    if not SST.is_dir():
        pytest.skip(f"{SST} is not there")
    (tmp_path / "sst").mkdir()
    for part, size in SIZES.items():
        name = f"stsa.binary.{part}.txt"
        lines = (SST / name).read_text("utf-8").splitlines()[:size]
        (tmp_path / "sst" / name).write_text("\n".join(lines) + "\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "sst"


@pytest.mark.slow
def test_the_guide_runs(sst, runs):
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/learn.md").read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 2
    names: dict = {}
    exec(blocks[0], names)
    assert names["accuracy"] > 0.65
    assert runs.sequences == sum(SIZES.values())
    names = {}  # each block runs by itself
    exec(blocks[1], names)
    assert runs.sequences == sum(SIZES.values()) + SIZES["train"]
    assert max(names["search"].cv_results_["mean_test_score"]) > 0.65


@pytest.mark.slow
def test_the_example_runs(sst, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sentiment.py", str(sst)])
    runpy.run_path(str(ROOT / "examples/sentiment.py"), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 8
    assert lines[-1].endswith("on the test part")


PROBING = ROOT.parent / "shared/data/probing_en"


@pytest.mark.slow
def test_the_example_of_nine_tasks_runs(tmp_path, monkeypatch, capsys, minilm_folder):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra: learn)")
    if not PROBING.is_dir():
        pytest.skip(f"{PROBING} is not there")
    monkeypatch.setattr("sys.argv", ["probing_tasks.py", str(PROBING), str(tmp_path / "reports"), "40"])
    runpy.run_path(str(ROOT / "examples/probing_tasks.py"), run_name="__main__")
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == [*(f"[{i}]" for i in range(7)), "often"]
    tasks = sorted(path.name for path in PROBING.iterdir() if path.is_dir())
    assert [line.split()[0] for line in lines] == tasks
    assert all(len(line.split()) == 9 for line in lines)
    assert (tmp_path / "reports/tasks.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in (tmp_path / "reports").glob("*.html")) == [f"{task}.html" for task in tasks]
