"""Components of Haystack, beside `SentenceEncoder`, in pipelines that are written to YAML and read back."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from layertap import InputError, OptionError
from tests.integrations.conftest import FEATURE, TEXTS

pytest.importorskip("haystack", reason="haystack-ai is not installed (extra: haystack)")
pytestmark = pytest.mark.filterwarnings("default")

from haystack import Document, Pipeline  # noqa: E402

from layertap.integrations.haystack import LayertapDocumentEmbedder, LayertapTextEmbedder  # noqa: E402


@pytest.fixture(autouse=True)
def _no_telemetry(monkeypatch):
    monkeypatch.setenv("HAYSTACK_TELEMETRY_ENABLED", "False")


@pytest.fixture(scope="module")
def embedder(folder) -> LayertapTextEmbedder:
    return LayertapTextEmbedder(str(folder), FEATURE)


def embeddings(documents: list[Document]) -> np.ndarray:
    return np.array([document.embedding for document in documents], np.float32)


def test_vectors_are_those_of_the_encoder_with_its_prompts(folder, embedder, encoder):
    result = embedder.run(TEXTS[0])
    assert type(result["embedding"]) is list
    assert type(result["embedding"][0]) is float
    assert result["meta"]["feature"] == FEATURE
    assert np.array_equal(np.array(result["embedding"], np.float32), encoder.encode_query(TEXTS[0]))
    documents = [Document(content=text) for text in TEXTS]
    embedded = LayertapDocumentEmbedder(str(folder), FEATURE).run(documents)["documents"]
    assert np.array_equal(embeddings(embedded), encoder.encode_document(TEXTS))
    assert [document.embedding for document in documents] == [None] * 4  # the inputs stay as they are


def test_prefix_suffix_and_fields_become_part_of_the_text(folder, encoder):
    embedder = LayertapDocumentEmbedder(
        str(folder), FEATURE, prefix="a ", suffix=" film", meta_fields_to_embed=["title", "absent"], truncate_dim=6
    )
    documents = [Document(content="good", meta={"title": "dull", "absent": None}), Document(content=None)]
    expected = encoder.encode(["a dull\ngood film", "a  film"], prompt="", truncate_dim=6)
    assert np.array_equal(embeddings(embedder.run(documents)["documents"]), expected)
    assert np.array_equal(
        LayertapTextEmbedder(str(folder), FEATURE, prefix="").run("dull")["embedding"],
        encoder.encode("dull", prompt="").tolist(),
    )


def test_empty_inputs_asynchronous_calls_and_threads(folder, embedder):
    documents = LayertapDocumentEmbedder(str(folder), FEATURE)
    assert documents.run([])["documents"] == []
    assert asyncio.run(documents.run_async([Document(content="")])) == documents.run([Document(content="")])
    assert np.isfinite(embedder.run("")["embedding"]).all()
    expected = [embedder.run(text) for text in TEXTS]
    assert asyncio.run(embedder.run_async(TEXTS[1])) == expected[1]
    fresh = LayertapTextEmbedder(str(folder), FEATURE)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(fresh.run, TEXTS * 4)) == expected * 4


def test_inputs_of_another_kind_are_refused(folder, embedder, encoder):
    with pytest.raises(InputError, match="LayertapDocumentEmbedder documents"):
        embedder.run([Document(content="a")])
    with pytest.raises(InputError, match="takes a list of documents"):
        LayertapDocumentEmbedder(str(folder)).run("a")
    with pytest.raises(OptionError, match="name it"):
        LayertapTextEmbedder(encoder)
    with pytest.raises(OptionError, match="did you mean 'threads'"):
        LayertapTextEmbedder(str(folder), thread=1).warm_up()


def test_a_pipeline_that_is_written_and_read_back_finds_the_nearest_document(minilm_folder):
    from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
    from haystack.document_stores.in_memory import InMemoryDocumentStore

    feature = "hidden_states[4].mean.normalize"
    texts = ["Paris is the capital of France.", "Bread is baked in an oven.", "The bank is by the river."]
    store = InMemoryDocumentStore(embedding_similarity_function="cosine")
    embedder = LayertapDocumentEmbedder(str(minilm_folder), feature, threads=1)
    store.write_documents(embedder.run([Document(content=text) for text in texts])["documents"])
    pipeline = Pipeline()
    pipeline.add_component("embedder", LayertapTextEmbedder(str(minilm_folder), feature, threads=1))
    pipeline.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=1))
    pipeline.connect("embedder.embedding", "retriever.query_embedding")
    question = {"embedder": {"text": "Which city is the French capital?"}}
    (nearest,) = pipeline.run(question)["retriever"]["documents"]
    assert nearest.content == texts[0]

    alone = Pipeline()
    alone.add_component("embedder", LayertapTextEmbedder(str(minilm_folder), feature, threads=1))
    try:
        again = Pipeline.loads(alone.dumps(), allowed_modules=["layertap.*"])
    except TypeError:  # releases that know no list of modules
        again = Pipeline.loads(alone.dumps())
    component = again.get_component("embedder")
    assert (component.feature, component.options) == (feature, {"threads": 1})
    assert again.run(question) == alone.run(question)
