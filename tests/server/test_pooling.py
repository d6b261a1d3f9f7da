"""Token vectors in vLLM's form."""

from __future__ import annotations

import base64

import numpy as np
import pytest

TEXTS = ["Hello world", "The quick brown fox", ""]


def vectors(answer, index):
    return np.float32(answer.json()["data"][index]["data"])


@pytest.mark.parametrize(
    ("body", "feature"),
    [
        ({}, "last_hidden_state"),
        ({"model": "all-MiniLM-L6-v2", "use_activation": False}, "last_hidden_state"),
        ({"use_activation": True}, "last_hidden_state.tokens.normalize"),
        ({"model": "all-MiniLM-L6-v2@hidden_states[3]"}, "hidden_states[3]"),
        ({"model": "words"}, "last_hidden_state.words(mean)"),
        ({"model": "v"}, "hidden_states[2].mean.normalize"),
    ],
)
def test_token_vectors_have_the_bits_of_extract(minilm, body, feature):
    answer = minilm.post("/pooling", {"input": TEXTS, **body})
    assert [(item["index"], item["object"]) for item in answer.json()["data"]] == [(i, "pooling") for i in range(3)]
    for i, expected in enumerate(minilm.extractor.extract(TEXTS, feature)):
        np.testing.assert_array_equal(vectors(answer, i), expected.reshape(vectors(answer, i).shape))


def test_base64_and_limits(minilm):
    answer = minilm.post("/pooling", {"input": TEXTS[:1], "encoding_format": "base64", "truncate_prompt_tokens": 3})
    own = np.frombuffer(base64.b64decode(answer.json()["data"][0]["data"]), "<f4").reshape(-1, 384)
    assert own.shape == (3, 384)
    assert answer.json()["usage"] == {"prompt_tokens": 3, "total_tokens": 3}


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"input": "x", "model": "other"}, 404, "no model"),
        ({"input": "x", "model": "v@hidden_states[:]"}, 400, "fold the layers"),
        ({"input": "x", "model": "v@attentions[0]"}, 400, "/v1/features"),
        ({"messages": [{"role": "user"}], "model": "v"}, 400, "use_chat_template=False"),
        ({"input": "x", "task": "classify"}, 400, "'token_embed'"),
        ({"input": [[1]]}, 400, "token ids"),
    ],
)
def test_refusals(minilm, body, status, message):
    answer = minilm.post("/pooling", body)
    assert answer.status_code == status, answer.text
    assert message in answer.json()["error"]["message"]
