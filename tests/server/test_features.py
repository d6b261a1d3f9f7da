"""Our own route: any features, in JSON and binary formats."""

from __future__ import annotations

import io
import json

import numpy as np
import pyarrow as pa
import pytest
from safetensors.numpy import load

from layertap import AttentionMaps, Ragged, Record
from layertap.server import state, wire

TEXTS = ["the good bank", "", "was the bank good"]
FEATURES = {
    "v": "last_hidden_state.mean",
    "states": "hidden_states[:]",
    "words": "hidden_states[1].words(first)",
    "codes": "last_hidden_state.mean.astype(int8)",
    "half": "last_hidden_state.astype(float16)",
    "maps": "attentions[0]",
}
SAFETENSORS, ARROW, NPZ = "application/vnd.safetensors", "application/vnd.apache.arrow.stream", "application/x-npz"


def assert_rows(given, expected):
    assert len(given) == len(expected)
    for own, other in zip(given, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(own, dtype=other.dtype).reshape(other.shape), other)


@pytest.fixture(scope="module")
def expected(tiny):
    return tiny.extractor.extract(TEXTS, FEATURES)


def test_json(tiny, expected):
    answer = tiny.post("/v1/features", {"texts": TEXTS, "features": FEATURES}).json()
    for name, values in expected.items():
        assert_rows([item["features"][name] for item in answer["data"]], values)
    described = {own["name"]: own for own in answer["features"]}
    assert described["states"]["axes"] == ["token", "layer", "dim"]
    assert described["words"]["unit"] == "word"
    assert described["codes.scale"]["feature"] == FEATURES["codes"]
    assert answer["usage"]["total_tokens"] == sum(len(rows) for rows in expected["states"])


@pytest.mark.parametrize("media", [SAFETENSORS, NPZ])
def test_arrays(tiny, expected, media):
    answer = tiny.post("/v1/features", {"texts": TEXTS, "features": FEATURES}, accept=media)
    assert answer.headers["content-type"] == media
    if media == SAFETENSORS:
        arrays = load(answer.content)
        header = json.loads(answer.content[8 : 8 + int.from_bytes(answer.content[:8], "little")])
        metadata = json.loads(header["__metadata__"]["layertap"])
    else:
        arrays = dict(np.load(io.BytesIO(answer.content)))
        metadata = json.loads(str(arrays.pop("metadata")))
    assert metadata["model"] == "tiny"
    assert [own["name"] for own in metadata["features"]] == list(expected)
    for name, values in expected.items():
        flat = values.values if isinstance(values, Ragged | AttentionMaps) else values
        np.testing.assert_array_equal(arrays[name], flat)
        if not isinstance(values, np.ndarray):
            np.testing.assert_array_equal(arrays[f"{name}.offsets"], values.offsets)
    assert arrays["maps.shapes"].tolist() == [list(own.shape) for own in expected["maps"]]


def test_arrow(tiny, expected):
    body = {"texts": TEXTS, "features": FEATURES, "details": ["token_strings", "cut_tokens"]}
    answer = tiny.post("/v1/features", body, accept=ARROW)
    table = pa.ipc.open_stream(answer.content).read_all()
    for name, values in expected.items():
        assert_rows(table[name].to_pylist(), values)
    assert table["token_strings"][0].as_py()[0] == "[CLS]"
    assert json.loads(table.schema.metadata[b"layertap"])["model"] == "tiny"


@pytest.mark.parametrize("media", ["application/json", SAFETENSORS, NPZ, ARROW])
def test_large_answers_are_streamed(tiny, media, monkeypatch):
    monkeypatch.setattr(state, "STREAMED", 10_000)
    monkeypatch.setattr(wire, "PIECE_BYTES", 3_000)
    body = {"texts": TEXTS * 20, "features": {"states": "hidden_states[:]"}}
    answer = tiny.post("/v1/features", body, accept=media)
    assert ("content-length" in answer.headers) == (media == SAFETENSORS)
    expected = tiny.extractor.extract(TEXTS * 20, "hidden_states[:]")
    if media == "application/json":
        assert_rows([item["features"]["states"] for item in answer.json()["data"]], expected)
    elif media == ARROW:
        assert len(list(pa.ipc.open_stream(answer.content))) > 3
        assert_rows(pa.ipc.open_stream(answer.content).read_all()["states"].to_pylist(), expected)
    else:
        arrays = load(answer.content) if media == SAFETENSORS else np.load(io.BytesIO(answer.content))
        np.testing.assert_array_equal(arrays["states"], expected.values)
    tiny.until_idle()


def test_pairs_words_spans_and_details(tiny):
    pair = tiny.post("/v1/features", {"pairs": [["the bank", "good"]], "features": "last_hidden_state.mean"}).json()
    expected = tiny.extractor.extract([("the bank", "good")], "last_hidden_state.mean")
    assert_rows([pair["data"][0]["features"]["last_hidden_state.mean"]], expected)
    words = tiny.post("/v1/features", {"words": [["the", "bank"]], "features": ["words"], "details": True}).json()
    own = words["data"][0]["features"]
    assert_rows([own["words"]], tiny.extractor.extract([["the", "bank"]], "last_hidden_state.words(mean)"))
    assert own["word_texts"] == ["the", "bank"]
    assert own["word_offsets"] == [[0, 3], [4, 8]]
    assert (own["token_special"][0], own["token_strings"][0], own["num_windows"]) == (True, "[CLS]", 1)
    spans = tiny.post(
        "/v1/features",
        {"texts": ["the good bank"], "spans": [[[4, 8], [0, 3]]], "features": {"s": "last_hidden_state.spans(mean)"}},
    ).json()
    record = Record(row=0, text="the good bank", spans=((4, 8), (0, 3)))
    assert_rows([spans["data"][0]["features"]["s"]], tiny.extractor.extract([record], "last_hidden_state.spans(mean)"))


def test_long_texts(tiny):
    text = "the good bank was good " * 30
    windowed = type(tiny.extractor).from_pretrained(tiny.extractor.reference.name, long="window", window=16)
    body = {"texts": text, "features": {"m": "last_hidden_state.mean"}, "long": "window", "window": 16}
    answer = tiny.post("/v1/features", body).json()
    assert_rows([answer["data"][0]["features"]["m"]], windowed.extract([text], "last_hidden_state.mean"))
    refused = tiny.post("/v1/features", {"texts": text, "long": "error"})
    assert (refused.status_code, "tokens" in refused.text) == (400, True)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({}, 400, "one of texts, pairs and words; found none"),
        ({"texts": "x", "words": [["x"]]}, 400, "found texts and words"),
        ({"texts": []}, 400, "empty"),
        ({"pairs": [["x"]]}, 400, "pairs[0]"),
        ({"texts": ["x"], "spans": [[[0, 1]], []]}, 400, "found 2 lists"),
        ({"texts": ["x"], "spans": [[[0]]]}, 400, "[begin, end)"),
        ({"texts": ["x"], "spans": [[[5, 9]]], "features": ["last_hidden_state.spans(mean)"]}, 400, "row 0"),
        ({"pairs": [["x", "y"]], "features": ["words"]}, 400, "pair"),
        ({"texts": "x", "features": []}, 400, "none is named"),
        ({"texts": "x", "features": ["v", "v = last_hidden_state.cls"]}, 400, "twice"),
        ({"texts": "x", "features": {"a b": "last_hidden_state"}}, 400, "a b"),
        ({"texts": "x", "features": {"a": "last_hiden_state"}}, 400, "last_hidden_state"),
        ({"texts": "x", "features": [f"f{i} = last_hidden_state.mean" for i in range(65)]}, 413, "at most 64"),
        ({"texts": "x", "features": ["last_hidden_state.mean" + " " * 2000]}, 400, "2,000 characters"),
        ({"texts": "x", "features": {"a": "last_hidden_state.mean" + ".normalize" * 40}}, 400, "32 steps"),
        ({"texts": "x", "features": ["a = last_hidden_state.mean" + ".normalize" * 40]}, 400, "32 steps"),
        ({"texts": "x", "details": ["token_idz"]}, 400, "token_idz"),
        ({"texts": "x", "long": "cut"}, 400, "'truncate', 'window' or 'error'"),
        ({"texts": "x", "window": 8}, 400, "window"),
        ({"texts": "x", "long": "window", "window": 10**6}, 400, "out of range"),
        ({"texts": "x", "word_pattern": ".*"}, 400, "unknown field 'word_pattern'"),
        ({"texts": "x", "precision": "int8"}, 400, "unknown field 'precision'"),
        ({"texts": "x", "model": "/etc/passwd"}, 404, "no model"),
    ],
)  # fmt: skip
def test_refusals(tiny, body, status, message):
    answer = tiny.post("/v1/features", body)
    assert answer.status_code == status, answer.text
    assert message in answer.json()["error"]["message"]
    tiny.until_idle()


def test_accept(tiny):
    assert tiny.post("/v1/features", {"texts": "x"}, accept="text/html, */*;q=0.1").status_code == 200
    refused = tiny.post("/v1/features", {"texts": "x"}, accept="text/html")
    assert (refused.status_code, SAFETENSORS in refused.json()["error"]["message"]) == (406, True)
    chosen = tiny.post("/v1/features", {"texts": "x"}, accept=f"application/json;q=0.5, {NPZ}")
    assert chosen.headers["content-type"] == NPZ
    strings = tiny.post("/v1/features", {"texts": "x", "details": True}, accept=NPZ)
    assert (strings.status_code, "token_strings" in strings.text) == (400, True)
