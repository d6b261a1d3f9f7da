"""A small sentence-transformers folder with prompts, and vectors that adapters are compared with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from layertap import SentenceEncoder

TEXTS = ["a good film", "The river bank. " * 60, "", "caf\u00e9 and \U0001f600"]
FEATURE = "hidden_states[1].mean.normalize"


@pytest.fixture(scope="session")
def folder(tmp_path_factory, make_checkpoint) -> Path:
    place: Path = make_checkpoint(tmp_path_factory.mktemp("integrations") / "small")
    kinds = {"": "Transformer", "1_Pooling": "Pooling"}
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds.items())
    ]
    files = {
        "modules.json": modules,
        "1_Pooling/config.json": {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True},
        "sentence_bert_config.json": {"max_seq_length": 40, "do_lower_case": False},
        "config_sentence_transformers.json": {"prompts": {"query": "find the film: ", "document": "river: "}},
    }
    for name, value in files.items():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text(json.dumps(value))
    return place


@pytest.fixture(scope="session")
def encoder(folder: Path) -> SentenceEncoder:
    return SentenceEncoder(folder, FEATURE)
