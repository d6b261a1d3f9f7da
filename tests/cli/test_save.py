"""`layertap save`."""

from __future__ import annotations

import numpy as np
import pytest

from layertap import Extractor
from tests.tiny_models import write_checkpoint


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("save") / "bert")


def test_saves_and_says_what(layertap, source, tmp_path):
    ended = layertap("save", "hidden_states[1].mean.normalize", "-m", source, "-o", tmp_path / "small", "--threads", 1)
    assert (ended.code, ended.out) == (0, "")
    assert "1 of 3 layers" in ended.err
    assert "the same bits on 33 texts" in ended.err
    assert "at most 64 tokens" in ended.err
    saved = Extractor.from_pretrained(tmp_path / "small").extract(["a film"])
    expected = Extractor.from_pretrained(source).extract(["a film"], "hidden_states[1].mean.normalize")
    np.testing.assert_array_equal(saved, expected)


def test_quiet_says_nothing(layertap, source, tmp_path):
    ended = layertap("save", "hidden_states[1].mean", "-m", source, "-o", tmp_path / "small", "-q", "--max-length", 9)
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    assert Extractor.from_pretrained(tmp_path / "small").plan().inputs[0].max_length == 9


def test_refusals(refused, source, tmp_path):
    there = tmp_path / "there"
    there.mkdir()
    for arguments, said in (
        (("hidden_states[1].mean", "-o", there), "exists"),
        (("hidden_states[1].mean", "-o", source / "in"), "inside the model's own folder"),
        (("hidden_states[8].mean", "-o", tmp_path / "m"), "out of range"),
        (("hidden_states[1].means", "-o", tmp_path / "m"), "mean"),
        (("hidden_states[1].words(mean)", "-o", tmp_path / "m"), "cannot be saved in a model folder"),
        (("hidden_states[1].mean", "-o", tmp_path / "m", "--max-length", "100"), "out of range"),
    ):
        assert said in refused(2, "save", *arguments, "-m", source)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
