"""Everything public of `SentenceTransformer`: there, or absent with a reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from layertap import SentenceEncoder
from layertap.sentence_encoder.absent import ATTRIBUTES


@pytest.mark.filterwarnings("ignore")  # the peer's own
def test_every_public_name_of_sentence_transformers(make_checkpoint, tmp_path: Path):
    folder = make_checkpoint(tmp_path / "m")
    peer = pytest.importorskip("sentence_transformers").SentenceTransformer(str(folder), device="cpu")
    encoder = SentenceEncoder(folder)
    # smart_apply: what transformers adds to all modules of torch when it first loads a model
    public = {name for name in dir(peer) if not name.startswith("_") and name != "smart_apply"}
    assert sorted(name for name in public if not hasattr(encoder, name) and name not in ATTRIBUTES) == []
    assert sorted(set(ATTRIBUTES) - public) == [], "rows of nothing in sentence-transformers"
    for name, why in ATTRIBUTES.items():
        assert not hasattr(encoder, name)
        with pytest.raises(AttributeError) as absence:
            getattr(encoder, name)
        assert str(absence.value) == f"SentenceEncoder.{name} is not supported: {why}"
    with pytest.raises(AttributeError, match="'SentenceEncoder' object has no attribute 'encod'"):
        getattr(encoder, "encod")  # noqa: B009
