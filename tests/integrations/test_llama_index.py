"""Embedding model of LlamaIndex, beside `SentenceEncoder`."""

from __future__ import annotations

import asyncio
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from layertap import OptionError, hidden_states
from tests.integrations.conftest import FEATURE, TEXTS

pytest.importorskip("llama_index.core", reason="llama-index-core is not installed (extra: llama-index)")
pytestmark = pytest.mark.filterwarnings("default")

from layertap.integrations.llama_index import LayertapEmbedding  # noqa: E402


@pytest.fixture(scope="module")
def embedding(folder) -> LayertapEmbedding:
    return LayertapEmbedding(folder, FEATURE, embed_batch_size=3)


def test_vectors_are_those_of_the_encoder_with_its_prompts(embedding, encoder):
    vectors = embedding.get_text_embedding_batch(TEXTS)
    assert type(vectors[0]) is list
    assert type(vectors[0][0]) is float
    assert np.array_equal(np.array(vectors, np.float32), encoder.encode_document(TEXTS))
    assert np.array_equal(np.array(embedding.get_query_embedding(TEXTS[0]), np.float32), encoder.encode_query(TEXTS[0]))
    assert embedding.get_text_embedding(TEXTS[1]) == vectors[1]


def test_empty_inputs_and_asynchronous_calls(embedding):
    assert embedding.get_text_embedding_batch([]) == []
    assert np.isfinite(embedding.get_text_embedding("")).all()

    async def all_calls():
        return (
            await embedding.aget_text_embedding_batch(TEXTS),
            await embedding.aget_text_embedding_batch([]),
            await embedding.aget_query_embedding(""),
            await embedding.aget_text_embedding(TEXTS[3]),
        )

    vectors = embedding.get_text_embedding_batch(TEXTS)
    assert asyncio.run(all_calls()) == (vectors, [], embedding.get_query_embedding(""), vectors[3])


def test_threads_get_their_own_vectors(embedding):
    expected = [embedding.get_query_embedding(text) for text in TEXTS]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(embedding.get_query_embedding, TEXTS * 4)) == expected * 4


def test_what_is_written_to_files_opens_the_same_encoder(folder):
    embedding = LayertapEmbedding(folder, hidden_states[1].mean, truncate_dim=5, embed_batch_size=7)
    written = embedding.to_dict()
    assert written["feature"] == "hidden_states[1].mean"
    assert written["options"] == {"truncate_dim": 5}
    for other in (
        LayertapEmbedding.from_dict(written),
        LayertapEmbedding.from_json(embedding.to_json()),
        pickle.loads(pickle.dumps(embedding)),
    ):
        assert other.embed_batch_size == 7
        assert other.get_text_embedding(TEXTS[0]) == embedding.get_text_embedding(TEXTS[0])
        assert len(other.get_text_embedding("")) == 5


def test_what_cannot_be_written_or_is_unknown_is_refused(encoder, folder):
    with pytest.raises(OptionError, match="name it"):
        LayertapEmbedding(encoder)
    with pytest.raises(OptionError, match="did you mean 'threads'"):
        LayertapEmbedding(folder, thread=1)


def test_an_index_finds_the_nearest_document(minilm_folder):
    from llama_index.core import Document, VectorStoreIndex
    from llama_index.core.ingestion import IngestionPipeline

    embedding = LayertapEmbedding(minilm_folder, "hidden_states[4].mean.normalize")
    texts = ["Paris is the capital of France.", "Bread is baked in an oven.", "The bank is by the river."]
    nodes = IngestionPipeline(transformations=[embedding]).run(documents=[Document(text=text) for text in texts])
    index = VectorStoreIndex(nodes, embed_model=embedding)
    (nearest,) = index.as_retriever(similarity_top_k=1).retrieve("Which city is the French capital?")
    assert nearest.get_content() == texts[0]
