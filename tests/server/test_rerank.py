"""Reranking in Cohere's form, by a cross-encoder and by cosines."""

from __future__ import annotations

import numpy as np
import pytest

DOCUMENTS = ["A cat sat on the mat.", "Stock markets fell sharply.", "The kitten slept on a rug."]


def test_cosines_of_an_embedding_model(minilm):
    body = {"model": "all-MiniLM-L6-v2", "query": "a cat", "documents": DOCUMENTS, "return_documents": True}
    answer = minilm.post("/v1/rerank", body).json()
    query, *others = minilm.extractor.extract(["a cat", *DOCUMENTS])
    expected = {i: float(query @ other) for i, other in enumerate(others)}
    results = answer["results"]
    assert [item["index"] for item in results] == sorted(expected, key=lambda i: -expected[i])
    assert results[-1]["index"] == 1
    for item in results:
        assert item["relevance_score"] == pytest.approx(expected[item["index"]], abs=1e-6)
        assert item["document"] == {"text": DOCUMENTS[item["index"]]}
    best = minilm.post("/v2/rerank", {**body, "documents": [{"text": text} for text in DOCUMENTS], "top_n": 1}).json()
    assert best["results"] == results[:1]


def test_a_cross_encoder(reranker):
    documents = ["the bank", "good", "was the good bank good"]
    answer = reranker.post("/v1/rerank", {"query": "the good bank", "documents": documents}).json()
    pairs = [("the good bank", text) for text in documents]
    head = reranker.state.model.reranker
    vectors = head.extractor.extract(pairs, head.head.feature)
    logits = head.head.logits(vectors)[:, 0]
    for item in answer["results"]:
        assert item["relevance_score"] == pytest.approx(1 / (1 + np.exp(-logits[item["index"]])), abs=1e-6)
    full = answer["usage"]["total_tokens"]
    cut = reranker.post(
        "/v1/rerank", {"query": "the good bank", "documents": documents, "truncate_prompt_tokens": 5}
    ).json()
    assert cut["usage"]["total_tokens"] == 15 < full


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"query": "x", "documents": []}, 400, "empty"),
        ({"query": "x"}, 400, "documents"),
        ({"query": "x", "documents": ["a", 3]}, 400, "documents[1]"),
        ({"query": ["x"], "documents": ["a"]}, 400, "query"),
        ({"query": "x", "documents": ["a"], "top_n": 0}, 400, "top_n"),
        ({"query": "x", "documents": ["a"], "model": "gone"}, 404, "gone"),
    ],
)
def test_refusals(minilm, body, status, message):
    answer = minilm.post("/v1/rerank", body)
    assert answer.status_code == status, answer.text
    assert message in answer.json()["error"]["message"]
