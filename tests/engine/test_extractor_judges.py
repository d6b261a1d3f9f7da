"""Extractor beside the vectors that text-embeddings-inference, another implementation, records in its tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layertap.engine.extractor import Extractor
from layertap.records import Ragged

RECORDED = Path(__file__).parents[2].parent / "shared/judges/tei/recorded.json"
SMALLEST_COSINE = 0.99999
LARGEST_ERROR = 8e-3
"""Largest |error| over the RMS of the recorded values, which are computed with GELU in its tanh form."""

FEATURES = {
    "bert_mean_batch": "last_hidden_state.mean",
    "bert_mean_single": "last_hidden_state.mean",
    "bert_cls_batch": "last_hidden_state.cls",
    "bert_cls_single": "last_hidden_state.cls",
    "bert_tokens_batch": "last_hidden_state",
    "bert_tokens_single": "last_hidden_state",
    "http_embed_128": "last_hidden_state.mean.truncate(128).normalize",
}


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    if not RECORDED.is_file():
        pytest.skip(f"recorded vectors of text-embeddings-inference are not there: {RECORDED}")
    entries: dict[str, Any] = json.loads(RECORDED.read_text(encoding="utf-8"))
    return entries


@pytest.fixture(scope="module")
def extractor(minilm_folder: Path) -> Extractor:
    return Extractor.from_pretrained(minilm_folder)


@pytest.mark.parametrize("name", FEATURES)
def test_vectors_are_those_that_text_embeddings_inference_records(
    name: str, recorded: dict[str, Any], extractor: Extractor
):
    theirs = np.asarray(recorded[name]["values"], dtype=np.float64)
    result = extractor.extract(recorded[name]["texts"], FEATURES[name])
    ours = np.asarray(result.values if isinstance(result, Ragged) else result, dtype=np.float64)
    assert ours.shape == theirs.shape
    cosines = (ours * theirs).sum(axis=1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    assert cosines.min() >= SMALLEST_COSINE
    assert np.abs(ours - theirs).max() / np.sqrt(np.mean(theirs**2)) <= LARGEST_ERROR
