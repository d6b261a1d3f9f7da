from __future__ import annotations

import pytest
from safetensors.numpy import save_file

from layertap.backends.here import absences
from layertap.engine.extractor import Extractor
from tests.adapters import write_adapter

TEXTS = ["the film was good", "hello world", ""]


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_an_adapter_gives_what_its_merged_weights_give(tmp_path, make_checkpoint, assert_same, backend):
    if backend in absences():
        pytest.skip(absences()[backend])
    base = make_checkpoint(tmp_path / "base")
    merged = make_checkpoint(tmp_path / "merged")
    weights = write_adapter(tmp_path / "adapter", base)
    save_file(weights, merged / "model.safetensors")
    with_adapter, plain, unchanged = (
        Extractor.from_pretrained(tmp_path / name, backend=backend) for name in ("adapter", "merged", "base")
    )
    features = {"low": "hidden_states[1].mean", "high": "last_hidden_state.mean"}
    found, expected, before = (extractor.extract(TEXTS, features) for extractor in (with_adapter, plain, unchanged))
    for name in features:
        assert abs(found[name] - expected[name]).max() < 1e-5
    # the first adapted block is the second
    assert_same(found["low"], before["low"])
    assert abs(found["high"] - before["high"]).max() > 0.01
    assert "is merged into" in with_adapter.tokenizer.notes[0]
    assert with_adapter.files.hashes().keys() - plain.files.hashes().keys() == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
