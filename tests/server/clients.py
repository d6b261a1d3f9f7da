"""Clients of other projects, as their documentation uses them, against a running server: `.ci/clients` runs this.

It imports nothing of layertap. Every client must give the vectors that plain requests give.
"""

from __future__ import annotations

import asyncio
import json
import sys
import urllib.request
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np

TEXTS = ["A cat sat on the mat.", "Stock markets fell sharply.", "The kitten slept on a rug."]
MODEL = "all-MiniLM-L6-v2"


def post(url: str, body: dict[str, Any]) -> Any:
    data = json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def vectors(url: str, model: str = MODEL) -> np.ndarray:
    answer = post(f"{url}/v1/embeddings", {"input": TEXTS, "model": model})
    return np.float32([item["embedding"] for item in answer["data"]])


def close(given: Any, expected: np.ndarray) -> None:
    np.testing.assert_allclose(np.asarray(given, dtype=np.float32), expected, atol=1e-6)


def llama_index(url: str) -> None:
    from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference

    model = TextEmbeddingsInference(model_name=MODEL, base_url=url, truncate_text=True)
    close(model.get_text_embedding_batch(TEXTS), vectors(url))
    close(model.get_query_embedding(TEXTS[0]), vectors(url)[0])
    close(asyncio.run(model.aget_text_embedding(TEXTS[1])), vectors(url)[1])


def haystack(url: str) -> None:
    from haystack import Document
    from haystack.components.embedders import OpenAIDocumentEmbedder, OpenAITextEmbedder
    from haystack.utils import Secret
    from haystack_integrations.components.embedders.huggingface_api import (
        HuggingFaceAPIDocumentEmbedder,
        HuggingFaceAPITextEmbedder,
    )

    # Its default is to send `normalize: false`, which gives the vectors before the model's own normalization.
    served = {"api_type": "text_embeddings_inference", "api_params": {"url": url}}
    raw = post(f"{url}/embed", {"inputs": TEXTS[0], "normalize": False})[0]
    close(HuggingFaceAPITextEmbedder(**served).run(TEXTS[0])["embedding"], np.float32(raw))
    served |= {"normalize": True}
    close(HuggingFaceAPITextEmbedder(**served).run(TEXTS[0])["embedding"], vectors(url)[0])
    documents = [Document(content=text) for text in TEXTS]
    embedded = HuggingFaceAPIDocumentEmbedder(**served).run(documents)["documents"]
    close([document.embedding for document in embedded], vectors(url))
    key = {"api_key": Secret.from_token("none"), "api_base_url": f"{url}/v1"}
    layer = f"{MODEL}@hidden_states[2].mean"
    close(OpenAITextEmbedder(model=layer, **key).run(TEXTS[0])["embedding"], vectors(url, layer)[0])
    embedded = OpenAIDocumentEmbedder(model="v", **key).run(documents)["documents"]
    close([document.embedding for document in embedded], vectors(url, "v"))


def langchain_openai(url: str) -> None:
    from langchain_openai import OpenAIEmbeddings
    from openai import BadRequestError

    options = {"base_url": f"{url}/v1", "api_key": "none"}
    model = OpenAIEmbeddings(model="v", check_embedding_ctx_length=False, **options)
    close(model.embed_documents(TEXTS), vectors(url, "v"))
    close(asyncio.run(model.aembed_query(TEXTS[0])), vectors(url, "v")[0])
    # With the check on it sends ids of another tokenizer (or asks the network for one): refused in words.
    try:
        import tiktoken

        tiktoken.encoding_for_model("text-embedding-3-small")
    except Exception as error:
        print(f"  the check of lengths needs the network, not tried: {type(error).__name__}")
        return
    try:
        OpenAIEmbeddings(model="v", **options).embed_documents(TEXTS)
    except BadRequestError as error:
        assert "check_embedding_ctx_length=False" in str(error)
    else:
        raise AssertionError("token ids were taken")


def mteb(url: str) -> None:
    from mteb.models.openai_wrappers import (
        OpenAIAPIEncodeWrapper,
        OpenAIAPIRerankWrapper,
        OpenAIAPITokenEmbedWrapper,
    )

    encoder = OpenAIAPIEncodeWrapper(url, MODEL, modalities=["text"], use_chat_template=False)
    close(encoder._get_embeddings(TEXTS), vectors(url))
    reranker = OpenAIAPIRerankWrapper(url, MODEL)
    query, *others = vectors(url)
    close(reranker._rerank(TEXTS[0], TEXTS[1:]), np.array([query @ other for other in others]))
    tokens = OpenAIAPITokenEmbedWrapper(url, MODEL, modalities=["text"], use_chat_template=False)
    expected = post(f"{url}/embed_all", {"inputs": TEXTS})
    for own, other in zip(tokens._encode_texts(TEXTS), expected, strict=True):
        close(own, np.float32(other))
    try:
        OpenAIAPITokenEmbedWrapper(url, MODEL)._encode_item("a text", None, None, None)
    except Exception as error:
        assert "use_chat_template=False" in str(error), error
    else:
        raise AssertionError("messages were taken")


def huggingface_hub(url: str) -> None:
    from huggingface_hub import AsyncInferenceClient, InferenceClient

    close(InferenceClient(url).feature_extraction(TEXTS), vectors(url))
    close(asyncio.run(AsyncInferenceClient(url).feature_extraction(TEXTS[0])), vectors(url)[:1])
    assert InferenceClient(url).sentence_similarity(TEXTS[0], other_sentences=[TEXTS[0]])[0] > 0.999


CLIENTS: dict[Callable[[str], None], str] = {
    llama_index: "llama-index-embeddings-text-embeddings-inference",
    haystack: "haystack-ai",
    langchain_openai: "langchain-openai",
    mteb: "mteb",
    huggingface_hub: "huggingface_hub",
}


def main(url: str) -> int:
    failed = 0
    for run, package in CLIENTS.items():
        try:
            run(url)
            print(f"{package} {version(package)}: ok")
        except Exception as error:
            failed += 1
            print(f"{package}: {type(error).__name__}: {error}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
