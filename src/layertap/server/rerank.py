"""Route `/v1/rerank` in the shape of Cohere's: documents by their relevance for a query.

A cross-encoder scores pairs, with the sigmoid of its number; any other model compares the vectors of its default
feature by their cosine.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field
from starlette.responses import Response

from layertap.records import Array, Record
from layertap.server.body import Body, read
from layertap.server.inputs import cosines, token_limit, vectors_of
from layertap.server.predictions import run_heads
from layertap.server.refusals import Refusal
from layertap.server.routes import Route
from layertap.server.state import Call
from layertap.server.wire import json_of


class Document(Body):
    """Document as an object."""

    text: str = Field(description="a text")


class RerankBody(Body):
    """Body of a request to `/v1/rerank`."""

    query: str = Field(description="a text")
    documents: list[str | Document] = Field(description="a list of texts, or of objects with a text")
    model: str | None = Field(default=None, description="the name of a model")
    top_n: int | None = Field(default=None, ge=1, description="a whole number of at least 1")
    return_documents: bool = Field(default=False, description="true or false")
    user: str | None = Field(default=None, description="a text that names the end user, which changes nothing")
    truncate_prompt_tokens: int | None = Field(
        default=None, ge=-1, description="a number of tokens, or -1 for the limit of the model"
    )


async def rerank(call: Call) -> Response:
    """Score documents against a query, the most relevant first."""
    asked = read(RerankBody, call.value)
    texts = [document if isinstance(document, str) else document.text for document in asked.documents]
    if not texts:
        raise Refusal("empty", "documents: the list is empty; send at least one text", param="documents")
    scores = await _scores(call, asked, texts)
    order = np.argsort(-scores, kind="stable")[: asked.top_n]
    results: list[dict[str, Any]] = []
    for i in order.tolist():
        document = {"document": {"text": texts[i]}} if asked.return_documents else {}
        results.append({"index": i, "relevance_score": scores[i], **document})
    value = {
        "model": asked.model or call.state.model.id,
        "results": results,
        "usage": {"prompt_tokens": call.timing.tokens, "total_tokens": call.timing.tokens},
    }
    return await call.answer([json_of(value)], size=len(results) * 60)


async def _scores(call: Call, asked: RerankBody, texts: list[str]) -> Array:
    model = call.state.model
    feature = model.feature_of(asked.model)
    head = model.reranker
    if head is not None and feature == model.default:
        records = [Record(row=i, text=asked.query, pair=text) for i, text in enumerate(texts)]
        options = token_limit(model, head.feature, asked.truncate_prompt_tokens, extractor=head.extractor)
        scores: Array = (await run_heads(call, [head], records, options))[0].scores[:, 0]
        return scores
    run = model.vector_of(feature, options=token_limit(model, feature, asked.truncate_prompt_tokens))
    records = [Record(row=i, text=text) for i, text in enumerate([asked.query, *texts])]
    vectors = vectors_of((await call.compute(run, records))["embedding"])
    return cosines(vectors[0], vectors[1:])


ROUTES = tuple(
    Route(
        method="POST",
        path=path,
        handler=rerank,
        dialect="openai",
        summary="Score documents against a query, as Cohere's API does",
        body=RerankBody,
        content={
            "application/json": {
                "type": "object",
                "required": ["results", "model", "usage"],
                "properties": {
                    "results": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["index", "relevance_score"],
                            "properties": {"index": {"type": "integer"}, "relevance_score": {"type": "number"}},
                        },
                    }
                },
            }
        },
        statuses=(400, 404, 413, 424, 429),
    )
    for path in ("/v1/rerank", "/v2/rerank")
)
