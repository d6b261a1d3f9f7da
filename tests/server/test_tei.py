"""Routes of text-embeddings-inference: its recorded vectors, its JSON, codes and headers, and clients of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

from layertap.learn.heads.classifier import Classifier

RECORDED = Path(__file__).parents[2].parent / "shared/judges/tei/recorded.json"
QUESTIONS = ["What is Deep Learning?", "Deep Learning is...", "What is Deep Learning?"]


@pytest.fixture(scope="module")
def client(minilm):
    return InferenceClient(minilm.url)


def cosine(one, other):
    return float((one * other).sum() / np.linalg.norm(one) / np.linalg.norm(other))


@pytest.mark.parametrize(
    ("what", "path", "body"),
    [
        ("last hidden state, mean over tokens, one row a text", "/embed", {"normalize": False}),
        ("last hidden state, mean over tokens, one row a text", "/embed", {}),
        ("last hidden state, one row a token of the three texts in turn", "/embed_all", {}),
        ("last hidden state, one row a token, special ones included", "/embed_all", {"layer": 6}),
        ("POST /embed with dimensions 128: mean, cut to 128, normalised", "/embed", {"dimensions": 128}),
    ],
)
def test_recorded_vectors(minilm, what, path, body):
    if not RECORDED.exists():
        pytest.skip("shared/judges is absent")
    entries = json.loads(RECORDED.read_text())
    mine = [own for own in entries.values() if own["what"] == what and own["model"].endswith("all-MiniLM-L6-v2")]
    assert mine
    for entry in mine:
        answer = minilm.post(path, {"inputs": entry["texts"], **body}).json()
        rows = [row for text in answer for row in (text if path == "/embed_all" else [text])]
        assert len(rows) == len(entry["values"])
        for row, expected in zip(np.float32(rows), np.float32(entry["values"]), strict=True):
            assert row.shape == expected.shape
            assert cosine(row, expected) > 0.9999


def test_vectors_have_the_bits_of_extract(minilm):
    one = minilm.post("/embed", {"inputs": QUESTIONS[0]}).json()
    assert np.shape(one) == (1, 384)  # a single text has a list of lists, too
    np.testing.assert_array_equal(np.float32(one), minilm.extractor.extract(QUESTIONS[:1]))
    many = minilm.post("/embed", {"inputs": QUESTIONS}).json()
    np.testing.assert_array_equal(np.float32(many), minilm.extractor.extract(QUESTIONS))
    raw = minilm.post("/embed", {"inputs": QUESTIONS, "normalize": False}).json()
    np.testing.assert_array_equal(np.float32(raw), minilm.extractor.extract(QUESTIONS, "last_hidden_state.mean"))
    for layer in (0, 3, -1):
        states = minilm.post("/embed_all", {"inputs": QUESTIONS, "layer": layer}).json()
        for own, expected in zip(states, minilm.extractor.extract(QUESTIONS, f"hidden_states[{layer}]"), strict=True):
            np.testing.assert_array_equal(np.float32(own), expected)


def test_headers(minilm):
    answer = minilm.post("/embed", {"inputs": QUESTIONS})
    assert answer.headers["x-compute-type"] == "cpu"
    assert answer.headers["x-compute-characters"] == str(sum(map(len, QUESTIONS)))
    assert answer.headers["x-compute-tokens"] == "22"
    for name in ("compute", "total", "tokenization", "queue", "inference"):
        assert int(answer.headers[f"x-{name}-time"]) >= 0


def test_inference_client(client, minilm):
    vector = client.feature_extraction(QUESTIONS[0])
    np.testing.assert_array_equal(vector, minilm.extractor.extract(QUESTIONS[:1]))
    options = {"normalize": True, "truncate": True, "truncation_direction": "left", "dimensions": 8}
    assert client.feature_extraction("word " * 600, **options).shape == (1, 8)
    scores = client.sentence_similarity(QUESTIONS[0], other_sentences=QUESTIONS[1:])
    assert scores[1] == pytest.approx(1, abs=1e-6)
    assert 0.3 < scores[0] < 0.95
    with pytest.raises(HfHubHTTPError, match="prompt"):
        client.feature_extraction("x", prompt_name="query")


def test_long_texts_are_refused_unless_they_are_to_be_cut(minilm):
    long = "word " * 300
    refused = minilm.post("/embed", {"inputs": [QUESTIONS[0], long]})
    assert refused.status_code == 422
    assert refused.json() == {"error": refused.json()["error"], "error_type": "Validation"}
    assert "302 tokens, and the limit is 256" in refused.json()["error"]
    cut = minilm.post("/embed", {"inputs": long, "truncate": True})
    assert cut.headers["x-compute-tokens"] == "256"
    np.testing.assert_array_equal(np.float32(cut.json()), minilm.extractor.extract([long]))
    left = minilm.post("/embed", {"inputs": "first " + long, "truncate": True, "truncation_direction": "Left"})
    np.testing.assert_array_equal(np.float32(left.json()), np.float32(cut.json()))


def test_tokenize_and_decode(minilm):
    text = "naïve \U0001f600 worlds"
    (tokens,) = minilm.post("/tokenize", {"inputs": text}).json()
    assert tokens[0] == {"id": 101, "text": "[CLS]", "special": True, "start": None, "stop": None}
    data = text.encode()
    for token in tokens[1:-1]:  # offsets count bytes
        assert data[token["start"] : token["stop"]].decode() == token["text"]
    bare = minilm.post("/tokenize", {"inputs": [text, "x"], "add_special_tokens": False}).json()
    assert [token["id"] for token in bare[0]] == [token["id"] for token in tokens[1:-1]]
    ids = [token["id"] for token in minilm.post("/tokenize", {"inputs": "hello world"}).json()[0]]
    assert minilm.post("/decode", {"ids": ids}).json() == ["hello world"]
    assert minilm.post("/decode", {"ids": [ids, ids], "skip_special_tokens": False}).json()[1].startswith("[CLS]")


def test_info(minilm, moods, reranker):
    info = minilm.client.get("/info").json()
    assert info["model_type"] == {"embedding": {"pooling": "mean"}}
    assert (info["model_id"], info["max_input_length"]) == ("all-MiniLM-L6-v2", 256)
    assert moods.client.get("/info").json()["model_type"]["classifier"]["label2id"] == {"good": 0, "bad": 1, "none": 2}
    assert set(reranker.client.get("/info").json()["model_type"]) == {"reranker"}


def test_predict(moods):
    classifier = Classifier.from_pretrained(moods.extractor.reference.name)
    expected = classifier.predict(["the good bank"])
    answer = moods.post("/predict", {"inputs": "the good bank"}).json()
    assert [item["score"] for item in answer] == sorted((item["score"] for item in answer), reverse=True)
    scores = {item["label"]: item["score"] for item in answer}
    np.testing.assert_array_equal(np.float32([scores[label] for label in classifier.labels]), expected.scores[0])
    many = moods.post("/predict", {"inputs": [["the good bank"], ["the", "bank"]]}).json()
    assert many[0] == answer
    # A list of two strings is a pair, and not two texts.
    assert moods.post("/predict", {"inputs": ["the", "bank"]}).json() == many[1]
    raw = {item["label"]: item["score"] for item in moods.post("/", {"inputs": "the", "raw_scores": True}).json()}
    np.testing.assert_array_equal(
        np.float32([raw[label] for label in classifier.labels]), classifier.logits(["the"])[0]
    )


def test_rerank(reranker):
    texts = ["the bank", "good", "the bank"]
    answer = reranker.post("/rerank", {"query": "the good bank", "texts": texts, "return_text": True}).json()
    assert [item["score"] for item in answer] == sorted((item["score"] for item in answer), reverse=True)
    assert [item["text"] for item in answer] == [texts[item["index"]] for item in answer]
    same = [item["index"] for item in answer if item["index"] != 1]
    assert same == [2, 0]  # of equal scores the later comes first
    raw = reranker.post("/", {"query": "the good bank", "texts": texts, "raw_scores": True}).json()
    for scored, item in zip(answer, raw, strict=True):
        assert scored["score"] == pytest.approx(1 / (1 + np.exp(-item["score"])), abs=1e-6)


@pytest.mark.parametrize(
    ("path", "body", "status", "kind", "message"),
    [
        ("/embed", {"inputs": ""}, 400, "Empty", "empty"),
        ("/embed", {"inputs": ["x", ""]}, 400, "Empty", "text 1"),
        ("/embed", {"inputs": []}, 400, "Empty", "empty"),
        ("/embed", {}, 422, "Validation", "missing"),
        ("/embed", {"inputs": None}, 422, "Validation", "a text, or a list of texts"),
        ("/embed", {"inputs": [1, 2]}, 422, "Validation", "token ids"),
        ("/embed", {"inputs": ["x", 2]}, 422, "Validation", "inputs[1]"),
        ("/embed", {"inputs": "x", "dimensions": 0}, 422, "Validation", "dimensions"),
        ("/embed", {"inputs": "x", "dimensions": 1000}, 422, "Validation", "1000"),
        ("/embed", {"inputs": "x", "truncation_direction": "up"}, 422, "Validation", "'left' or 'right'"),
        ("/embed", {"inputs": "x", "normalise": True}, 422, "Validation", "did you mean 'normalize'"),
        ("/embed", {"inputs": ["x"] * 2049}, 422, "Validation", "at most 2,048"),
        ("/embed_all", {"inputs": "x", "layer": 7}, 422, "Validation", "out of range"),
        ("/embed_all", {"inputs": "x", "layer": "7"}, 422, "Validation", "hidden state"),
        ("/similarity", {"inputs": {"source_sentence": "x", "sentences": []}}, 400, "Empty", "sentences"),
        ("/similarity", {"inputs": "x"}, 422, "Validation", "source_sentence"),
        ("/predict", {"inputs": "x"}, 424, "Backend", "not a classifier"),
        ("/rerank", {"query": "x", "texts": ["y"]}, 424, "Backend", "not a re-ranker"),
        ("/rerank", {"query": "x", "texts": []}, 400, "Empty", "texts"),
        ("/tokenize", {"inputs": [""]}, 400, "Empty", "empty"),
        ("/decode", {"ids": []}, 400, "Empty", "empty"),
        ("/decode", {"ids": [[1], []]}, 400, "Empty", "empty"),
        ("/decode", {"ids": [10**9]}, 422, "Validation", "out of range"),
        ("/decode", {"ids": [-1]}, 422, "Validation", "out of range"),
        ("/", [], 400, "Validation", "expected a JSON object"),
        ("/embed_sparse", {"inputs": "x"}, 404, "Validation", "no route"),
    ],
)  # fmt: skip
def test_refusals(minilm, path, body, status, kind, message):
    answer = minilm.post(path, body)
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error", "error_type"}
    assert answer.json()["error_type"] == kind
    assert message in answer.json()["error"]
    minilm.until_idle()


def test_predict_refuses_what_is_no_text_and_no_pair(moods):
    answer = moods.post("/predict", {"inputs": ["a", "b", "c"]})
    assert (answer.status_code, answer.json()["error_type"]) == (422, "Validation")
    assert "[['first'], ['second']]" in answer.json()["error"]
    assert moods.post("/predict", {"inputs": [[""]]}).status_code == 400


def test_a_server_that_cuts_long_texts(tiny_with, tiny):
    long = "the good bank " * 60
    served = tiny_with(auto_truncate=True)
    assert served.client.get("/info").json()["auto_truncate"] is True
    cut = served.post("/embed", {"inputs": long, "normalize": False})
    np.testing.assert_array_equal(np.float32(cut.json()), tiny.extractor.extract([long]))
    assert served.post("/embed", {"inputs": long, "truncate": False}).status_code == 422
    windowed = tiny_with(options={"long": "window"})  # a server that runs windows refuses no text for its length
    answer = windowed.post("/embed", {"inputs": long, "normalize": False})
    np.testing.assert_array_equal(np.float32(answer.json()), windowed.extractor.extract([long]))
