"""Extractors over small random checkpoints."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layertap.engine.extractor import Extractor
from layertap.records import AttentionMaps, Ragged

SENTENCE_LIMIT = 12

WORDS = ["the", "film", "was", "good", "bad", "funny", "dull", "river", "bank", "money", "hello", "world"]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory: pytest.TempPathFactory, make_checkpoint: Callable[..., Path]) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("bert") / "tiny-bert")


@pytest.fixture(scope="session")
def roberta_folder(tmp_path_factory: pytest.TempPathFactory, make_checkpoint: Callable[..., Path]) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("roberta") / "tiny-roberta", "roberta", pooler="absent")


@pytest.fixture(scope="session")
def sentence_folder(tmp_path_factory: pytest.TempPathFactory, make_checkpoint: Callable[..., Path]) -> Path:
    """A sentence-transformers folder: mean, normalised, 12 tokens at most."""
    folder = make_checkpoint(tmp_path_factory.mktemp("sentence") / "tiny-sentence")
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds.items())
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling/config.json").write_text(json.dumps(pooling))
    limit = {"max_seq_length": SENTENCE_LIMIT, "do_lower_case": False}
    (folder / "sentence_bert_config.json").write_text(json.dumps(limit))
    return folder


@pytest.fixture(scope="session")
def extractor(bert_folder: Path) -> Extractor:
    """A random BERT of 3 layers, hidden size 32, 64 tokens at most."""
    return Extractor.from_pretrained(bert_folder)


@pytest.fixture(scope="session")
def sentence_extractor(sentence_folder: Path) -> Extractor:
    return Extractor.from_pretrained(sentence_folder)


@pytest.fixture(scope="session")
def random_texts() -> Callable[..., list[str]]:
    """`random_texts(9, longest=20)`: texts of 0 to 20 words, each word a token."""

    def texts(number: int, *, longest: int = 30, seed: int = 0) -> list[str]:
        random = np.random.default_rng(seed)
        return [" ".join(random.choice(WORDS, random.integers(0, longest + 1))) for _ in range(number)]

    return texts


@pytest.fixture(scope="session")
def assert_same() -> Callable[..., None]:
    """Two results of `extract` with the same numbers, up to rounding."""

    def check(one: Any, other: Any, tolerance: float = 1e-5) -> None:
        assert type(one) is type(other)
        if isinstance(one, dict):
            assert list(one) == list(other)
            for name in one:
                check(one[name], other[name], tolerance)
        elif isinstance(one, Ragged):
            np.testing.assert_array_equal(one.offsets, other.offsets)
            check(one.values, other.values, tolerance)
        elif isinstance(one, AttentionMaps):
            assert len(one) == len(other)
            for maps, others in zip(one, other, strict=True):
                check(maps, others, tolerance)
        else:
            assert (one.dtype, one.shape) == (other.dtype, other.shape)
            if one.dtype.kind == "f":
                np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)
            else:
                np.testing.assert_array_equal(one, other)

    return check
