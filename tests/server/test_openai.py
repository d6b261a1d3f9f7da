"""OpenAI's routes, through OpenAI's own client where that is what people use."""

from __future__ import annotations

import asyncio
import base64

import numpy as np
import openai
import pytest

TEXTS = ["Hello world", "", "The quick brown fox jumps over the lazy dog.", "naïve \U0001f600 日本語"]


@pytest.fixture(scope="module")
def client(minilm):
    with openai.OpenAI(base_url=f"{minilm.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_models(client, minilm):
    models = client.models.list().data
    assert [model.id for model in models] == ["all-MiniLM-L6-v2", "v", "words"]
    assert [model.max_model_len for model in models] == [256, 512, 512]
    assert "/" not in models[0].root


@pytest.mark.parametrize("encoding", ["float", "base64", openai.NOT_GIVEN])
def test_vectors_have_the_bits_of_extract(client, minilm, encoding):
    answer = client.embeddings.create(model="all-MiniLM-L6-v2", input=TEXTS, encoding_format=encoding)
    expected = minilm.extractor.extract(TEXTS)
    for i, item in enumerate(answer.data):
        assert item.index == i
        own = item.embedding
        given = np.frombuffer(base64.b64decode(own), "<f4") if isinstance(own, str) else np.array(own, np.float32)
        np.testing.assert_array_equal(given, expected[i])
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > len(TEXTS) * 2
    assert answer.model == "all-MiniLM-L6-v2"


def test_floats_are_the_shortest_that_read_back(minilm):
    answer = minilm.post("/v1/embeddings", {"input": "Hello"})
    expected = minilm.extractor.extract(["Hello"])[0]
    written = answer.text.partition('"embedding":[')[2].partition("]")[0].split(",")
    assert [np.float32(text) for text in written] == expected.tolist()
    assert max(map(len, written)) <= 17
    assert any(len(text) < len(repr(float(value))) - 5 for text, value in zip(written, expected, strict=True))


@pytest.mark.parametrize(
    ("model", "feature"),
    [
        ("v", "hidden_states[2].mean.normalize"),
        ("all-MiniLM-L6-v2@hidden_states[-4:].layer_mean.mean", "hidden_states[-4:].layer_mean.mean"),
        ("sentence-transformers/all-MiniLM-L6-v2@last_hidden_state.cls", "last_hidden_state.cls"),
        ("v@last_hidden_state.max", "last_hidden_state.max"),
        ("sentence-transformers/all-MiniLM-L6-v2", None),
    ],
)
def test_the_name_of_the_model_selects_the_feature(client, minilm, model, feature):
    answer = client.embeddings.create(model=model, input=TEXTS[2], encoding_format="float")
    np.testing.assert_array_equal(
        np.array(answer.data[0].embedding, np.float32), minilm.extractor.extract([TEXTS[2]], feature)[0]
    )
    assert answer.model == model


def test_dimensions_cut_and_then_normalize(client, minilm):
    answer = client.embeddings.create(model="all-MiniLM-L6-v2", input=TEXTS[:1], dimensions=32)
    vector = np.array(answer.data[0].embedding, np.float32)
    assert vector.shape == (32,)
    np.testing.assert_array_equal(
        vector, minilm.extractor.extract(TEXTS[:1], "sentence_embedding.truncate(32).normalize")[0]
    )
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)


def test_truncate_prompt_tokens_lowers_the_limit_only(minilm):
    long = "word " * 300
    expected = minilm.extractor.extract([long])[0]
    for tokens in (-1, 512, 256, None):
        answer = minilm.post("/v1/embeddings", {"input": long, "truncate_prompt_tokens": tokens}).json()
        np.testing.assert_array_equal(np.float32(answer["data"][0]["embedding"]), expected)
        assert answer["usage"]["total_tokens"] == 256
    answer = minilm.post("/v1/embeddings", {"input": long, "truncate_prompt_tokens": 16}).json()
    assert answer["usage"]["total_tokens"] == 16


def test_the_async_client_and_many_requests_at_once(minilm):
    async def all_at_once():
        async with openai.AsyncOpenAI(base_url=f"{minilm.url}/v1", api_key="none", max_retries=0) as client:
            return await asyncio.gather(
                *(client.embeddings.create(model="v", input=[text, text[::-1]]) for text in TEXTS * 4)
            )

    for text, answer in zip(TEXTS * 4, asyncio.run(all_at_once()), strict=True):
        np.testing.assert_array_equal(
            np.array([item.embedding for item in answer.data], np.float32),
            minilm.extractor.extract([text, text[::-1]], "hidden_states[2].mean.normalize"),
        )


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"model": "minilm", "input": "x"}, 404, "all-MiniLM-L6-v2"),
        ({"model": "all-minilm-L6-v2@last_hidden_state.mean", "input": "x"}, 404, "did you mean"),
        ({"model": "v@hidden_states[40].mean", "input": "x"}, 400, "out of range"),
        ({"model": "v@hidden_state[4].mean", "input": "x"}, 400, "hidden_states[i]"),
        ({"model": "v@pooler_outptu", "input": "x"}, 400, "pooler_output"),
        ({"model": "words", "input": "x"}, 400, "one vector per word"),
        ({"model": "v@hidden_states[:].mean", "input": "x"}, 400, "fold the layers"),
        ({"model": "v@attentions[0]", "input": "x"}, 400, "attention maps"),
        ({"model": "v@last_hidden_state.mean.astype(int8)", "input": "x"}, 400, "int8 codes"),
        ({"model": "v@" + "(" * 1999, "input": "x"}, 400, ""),
        ({"model": "v@" + "x" * 2001, "input": "x"}, 400, "2,000 characters"),
        ({"model": "v@last_hidden_state.mean" + ".normalize" * 40, "input": "x"}, 400, ""),
        ({"model": "v", "input": "x", "dimensions": 0}, 400, "found 0"),
        ({"model": "v", "input": ["x", 1]}, 400, "found 1"),
        ({"model": "v", "input": "x", "dimensions": 385}, 400, "385"),
        ({"model": "v", "input": "x", "encoding_format": "int8"}, 400, "'float' or 'base64'"),
        ({"model": "v", "input": []}, 400, "empty"),
        ({"model": "v", "input": [1, 2, 3]}, 400, "check_embedding_ctx_length=False"),
        ({"model": "v", "input": [[1, 2, 3]]}, 400, "check_embedding_ctx_length=False"),
        ({"model": "v", "input": ["x", 3]}, 400, "input[1]: expected a text"),
        ({"model": "v", "input": None}, 400, "input: expected a text"),
        ({"model": "v", "input": True}, 400, "input: expected a text"),
        ({"model": "v"}, 400, "missing"),
        ({"model": 3, "input": "x"}, 400, "model: expected"),
        ({"model": "v", "messages": []}, 400, "use_chat_template=False"),
        ({"model": "v", "input": "x", "dimension": 3}, 400, "did you mean 'dimensions'"),
        ({"model": "v", "input": ["x"] * 2049}, 413, "at most 2,048"),
        ({"model": "v", "input": "x", "truncate_prompt_tokens": 0}, 400, "truncate_prompt_tokens"),
        ({"model": "v", "input": "x", "truncate_prompt_tokens": 1}, 400, ""),
        ([], 400, "a list; expected a JSON object"),
        ("text", 400, "expected a JSON object"),
        (False, 400, "false; expected a JSON object"),
    ],
)  # fmt: skip
def test_refusals(minilm, body, status, message):
    answer = minilm.post("/v1/embeddings", body)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert message in error["message"]
    minilm.until_idle()


def test_what_the_client_raises(client):
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt'") as caught:
        client.embeddings.create(model="gpt", input="x")
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="out of range"):
        client.embeddings.create(model="v@hidden_states[9].mean", input="x")
