"""Extractor on all-mpnet-base-v2, a second real model; `.ci/nightly` installs it and names its folder in MPNET."""

from __future__ import annotations

import csv
import logging
import os
from pathlib import Path

import numpy as np
import pytest

from layertap.engine.extractor import Extractor
from layertap.records import Ragged
from tests import judges

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", reason="transformers, the oracle, is not installed")

pytestmark = pytest.mark.real_size

FEATURES = {"mean": "last_hidden_state.mean", "cls": "last_hidden_state.cls", "tokens": "last_hidden_state"}
FIGURES = logging.getLogger("figures")
LAYERS = {f"h{layer}": f"hidden_states[{layer}]" for layer in range(13)}


@pytest.fixture(scope="module")
def folder() -> Path:
    if "MPNET" not in os.environ:
        pytest.skip("MPNET does not name the folder of all-mpnet-base-v2; .ci/nightly does")
    return Path(os.environ["MPNET"])


@pytest.fixture(scope="module", params=["native", "torch"])
def extractor(request: pytest.FixtureRequest, folder: Path) -> Extractor:
    return Extractor.from_pretrained(folder, backend=request.param)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """16 sentences of STSBenchmark, and one text of more than 512 tokens made of others."""
    path = judges.DATA / "stsb_multi/stsb-en-dev.csv"
    if not path.is_file():
        pytest.skip(f"the texts are not there: {path}")
    with path.open(encoding="utf-8", newline="") as file:
        sentences = [row[0] for row in csv.reader(file)]
    return [*sentences[:800:50], " ".join(sentences[:100])]


def states_of_transformers(folder: Path, texts: list[str], dtype: object) -> list[np.ndarray]:
    """Compute each hidden state of each text alone, all tokens one after another: 13 arrays, float64 [T, 768]."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder, dtype=dtype, attn_implementation="eager").eval()
    states: list[list[np.ndarray]] = [[] for _ in range(13)]
    with torch.no_grad():
        for text in texts:
            inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=512)
            for collected, state in zip(states, model(**inputs, output_hidden_states=True).hidden_states, strict=True):
                collected.append(state[0].double().numpy())
    return [np.concatenate(collected) for collected in states]


def test_every_layer_is_as_near_to_float64_as_that_of_transformers(extractor, folder, texts):
    exact = states_of_transformers(folder, texts, torch.float64)
    theirs = states_of_transformers(folder, texts, torch.float32)
    found = extractor.extract(texts, LAYERS)
    ours = [found[name].values.astype(np.float64) for name in LAYERS]
    our_errors, their_errors = (
        [judges.error(one, state) for one, state in zip(states, exact, strict=True)] for states in (ours, theirs)
    )
    last = judges.cosines(ours[-1], exact[-1]).min()
    FIGURES.info(
        "float32 of %s, |error| / RMS: %.2g, last layer %.2g",
        extractor.selection.backend,
        max(our_errors),
        our_errors[-1],
    )
    FIGURES.info("float32 of transformers: %.2g, last layer %.2g", max(their_errors), their_errors[-1])
    assert max(our_errors) <= 3e-5
    assert max(our_errors) <= 1.5 * max(their_errors)
    assert last >= 0.9999999


def test_sentence_embeddings_are_those_of_sentence_transformers(extractor, folder, texts):
    library = pytest.importorskip("sentence_transformers")
    theirs = library.SentenceTransformer(str(folder), device="cpu").encode(texts, batch_size=1)
    ours = np.asarray(extractor.extract(texts, "sentence_embedding"))
    FIGURES.info("largest |error| of sentence_embedding: %.2g", np.abs(ours - theirs).max())
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("number", ["single", "batch"])
@pytest.mark.parametrize("kind", FEATURES)
def test_vectors_are_those_that_text_embeddings_inference_records(extractor, kind, number):
    recorded = judges.recorded_vectors()[f"mpnet_{kind}_{number}"]
    theirs = np.asarray(recorded["values"], dtype=np.float64)
    result = extractor.extract(recorded["texts"], FEATURES[kind])
    ours = np.asarray(result.values if isinstance(result, Ragged) else result, dtype=np.float64)
    smallest = judges.cosines(ours, theirs).min()
    FIGURES.info("smallest cosine with text-embeddings-inference, %s, %s: %.7f", kind, number, smallest)
    assert smallest >= 0.99999


def test_scores_of_similarity_are_those_that_mteb_publishes(folder):
    extractor = Extractor.from_pretrained(folder)

    def encode(texts):
        return np.asarray(extractor.extract(texts, "sentence_embedding"))

    for name in ("sts_benchmark", "sick_r"):
        ours, published = getattr(judges, name)(encode), getattr(judges.MPNET, name)
        FIGURES.info("%s: %.7f, published %.7f", name, ours, published)
        assert ours == pytest.approx(published, abs=1e-5)
