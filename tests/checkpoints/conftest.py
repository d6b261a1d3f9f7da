"""A small encoder to put the files of sentence-transformers around."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory, make_checkpoint: Callable[..., Path]) -> Path:
    """A checkpoint without a tokenizer, which no test changes."""
    return make_checkpoint(tmp_path_factory.mktemp("encoder"), tokenizer=False)


@pytest.fixture
def sentence_folder(tmp_path: Path, encoder: Path) -> Path:
    """A copy of the encoder, for a test to change."""
    return Path(shutil.copytree(encoder, tmp_path / "m"))
