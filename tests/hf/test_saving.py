from __future__ import annotations

import os
import stat

import pytest

torch = pytest.importorskip("torch")

from layertap.errors import OutputError  # noqa: E402
from layertap.hf import BertConfig, BertModel  # noqa: E402
from tests.faults import hidden, visible  # noqa: E402


@pytest.fixture
def model():
    config = BertConfig(
        vocab_size=11, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=16,
    )  # fmt: skip
    return BertModel(config)


def test_weights_are_as_readable_as_the_config(model, tmp_path):
    before = os.umask(0o027)
    try:
        model.save_pretrained(tmp_path / "new")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "new").iterdir()}
    assert modes == {"config.json": 0o640, "model.safetensors": 0o640}


def test_weights_that_cannot_be_written_leave_the_old_model(model, tmp_path, monkeypatch):
    from safetensors import SafetensorError

    model.save_pretrained(tmp_path)
    (tmp_path / "notes.md").write_text("mine")
    old = visible(tmp_path)
    with torch.no_grad():
        model.embeddings.word_embeddings.weight.zero_()
    model.config.layer_norm_eps = 0.5

    def full(*_: object, **__: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OutputError, match=r"model\.safetensors: cannot be written: .*No space left"):
        model.save_pretrained(tmp_path)
    assert visible(tmp_path) == old
    assert hidden(tmp_path) == []
    monkeypatch.undo()
    model.save_pretrained(tmp_path)
    new = visible(tmp_path)
    assert new["notes.md"] == b"mine"
    assert all(new[name] != old[name] for name in ("config.json", "model.safetensors"))


def test_a_config_that_cannot_be_written_leaves_the_old_weights(model, tmp_path, monkeypatch):
    """New weights beside an old config would be read as another model."""
    model.save_pretrained(tmp_path)
    old = visible(tmp_path)
    with torch.no_grad():
        model.embeddings.word_embeddings.weight.zero_()
    monkeypatch.setattr(BertConfig, "to_json_string", lambda _: "\udcff")
    with pytest.raises(UnicodeEncodeError):
        model.save_pretrained(tmp_path)
    assert visible(tmp_path) == old
    assert hidden(tmp_path) == []
