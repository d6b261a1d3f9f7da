"""Embeddings of LangChain, beside `SentenceEncoder`; with langchain-tests, also LangChain's own tests of embeddings."""

from __future__ import annotations

import asyncio
import importlib.util
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from layertap import InputError, OptionError
from tests.integrations.conftest import FEATURE, TEXTS

pytest.importorskip("langchain_core", reason="langchain-core is not installed (extra: langchain)")
pytestmark = pytest.mark.filterwarnings("default")

from layertap.integrations.langchain import LayertapEmbeddings  # noqa: E402


@pytest.fixture(scope="module")
def embeddings(folder) -> LayertapEmbeddings:
    return LayertapEmbeddings(folder, FEATURE)


def test_vectors_are_those_of_the_encoder_with_its_prompts(embeddings, encoder):
    vectors = embeddings.embed_documents(TEXTS)
    assert type(vectors) is type(vectors[0]) is list
    assert type(vectors[0][0]) is float
    assert np.array_equal(np.array(vectors, np.float32), encoder.encode_document(TEXTS))
    assert np.array_equal(np.array(embeddings.embed_query(TEXTS[0]), np.float32), encoder.encode_query(TEXTS[0]))
    assert vectors[0] != embeddings.embed_query(TEXTS[0])


def test_empty_inputs_and_asynchronous_calls(embeddings):
    assert embeddings.embed_documents([]) == []
    assert asyncio.run(embeddings.aembed_documents([])) == []
    assert np.isfinite(embeddings.embed_query("")).all()
    assert asyncio.run(embeddings.aembed_documents(TEXTS)) == embeddings.embed_documents(TEXTS)
    assert asyncio.run(embeddings.aembed_query("")) == embeddings.embed_query("")


def test_threads_get_their_own_vectors(embeddings):
    expected = [embeddings.embed_query(text) for text in TEXTS]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(embeddings.embed_query, TEXTS * 4)) == expected * 4


def test_what_is_no_text_is_refused(embeddings):
    with pytest.raises(InputError, match="of type NoneType"):
        embeddings.embed_documents(["a", None])
    with pytest.raises(InputError, match="of type int"):
        embeddings.embed_query(3)
    with pytest.raises(OptionError, match="did you mean 'precision'"):
        LayertapEmbeddings(presision="int8")


def test_a_vector_store_finds_the_nearest_document(minilm_folder):
    from langchain_core.vectorstores import InMemoryVectorStore

    store = InMemoryVectorStore(LayertapEmbeddings(minilm_folder, "hidden_states[4].mean.normalize"))
    store.add_texts(["Paris is the capital of France.", "Bread is baked in an oven.", "The bank is by the river."])
    (nearest,) = store.as_retriever(search_kwargs={"k": 1}).invoke("Which city is the French capital?")
    assert nearest.page_content.startswith("Paris")


if importlib.util.find_spec("langchain_tests") is not None:
    from langchain_tests.integration_tests import EmbeddingsIntegrationTests

    class TestStandard(EmbeddingsIntegrationTests):
        @property
        def embeddings_class(self) -> type[LayertapEmbeddings]:
            return LayertapEmbeddings
