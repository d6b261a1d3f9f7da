"""Routes of OpenAI's embeddings: `/v1/models` and `/v1/embeddings`; the name of the model selects the feature."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field
from starlette.responses import Response

from layertap.features.expr import Expr
from layertap.records import Array, Record
from layertap.server.body import Body, read
from layertap.server.inputs import refuse_other_inputs, texts_of, token_limit, vectors_of
from layertap.server.routes import Route
from layertap.server.state import Call
from layertap.server.wire import base64_of, json_of

ROWS_AT_ONCE = 64
"""Vectors that are written in one piece."""

FLOAT_CHARACTERS = 12
"""Characters of a float32 in JSON, roughly."""


class EmbeddingsBody(Body):
    """Body of a request to `/v1/embeddings`."""

    input: str | list[str] = Field(description="a text, or a list of texts")
    model: str | None = Field(
        default=None, description="the name of a model: its id, a name given with -f, or id@expression"
    )
    encoding_format: Literal["float", "base64"] | None = Field(default=None, description="'float' or 'base64'")
    dimensions: int | None = Field(default=None, ge=1, description="a whole number of at least 1")
    user: str | None = Field(default=None, description="a text that names the end user, which changes nothing")
    truncate_prompt_tokens: int | None = Field(
        default=None, ge=-1, description="a number of tokens, or -1 for the limit of the model"
    )


async def models(call: Call) -> Response:
    """List the model, and the features that the server was started with."""
    state, model = call.state, call.state.model
    entries: list[dict[str, Any]] = [
        {
            "id": name,
            "object": "model",
            "created": state.started,
            "owned_by": "layertap",
            "root": model.id,
            "max_model_len": model.limit_of(feature),
            "feature": str(feature),
        }
        for name, feature in [(model.id, model.default), *model.features.items()]
    ]
    return await call.answer([json_of({"object": "list", "data": entries})], size=0)


async def embeddings(call: Call) -> Response:
    """Compute one vector per text."""
    asked = read(EmbeddingsBody, refuse_other_inputs(call.value))
    model = call.state.model
    feature = cut_to(model.feature_of(asked.model), asked.dimensions)
    texts = texts_of(asked.input, "input")
    run = model.vector_of(feature, options=token_limit(model, feature, asked.truncate_prompt_tokens))
    results = await call.compute(run, [Record(row=i, text=text) for i, text in enumerate(texts)])
    vectors = vectors_of(results["embedding"])
    usage = {"prompt_tokens": call.timing.tokens, "total_tokens": call.timing.tokens}
    tail = json_of({"model": asked.model or model.id, "usage": usage})
    return await call.answer(
        embedding_pieces(vectors, tail, base64=asked.encoding_format == "base64"),
        size=vectors.size * FLOAT_CHARACTERS,
    )


def embedding_pieces(vectors: Array, tail: bytes, *, base64: bool) -> Iterator[bytes]:
    """Yield a list of embeddings as JSON; `tail` is an object with the fields after `data`."""
    yield b'{"object":"list","data":['
    for begin in range(0, len(vectors), ROWS_AT_ONCE):
        rows = [
            {"object": "embedding", "index": i, "embedding": base64_of(vectors[i]) if base64 else vectors[i]}
            for i in range(begin, min(begin + ROWS_AT_ONCE, len(vectors)))
        ]
        yield (b"," if begin else b"") + json_of(rows)[1:-1]
    yield b"]," + tail[1:]


def cut_to(feature: Expr, dimensions: int | None) -> Expr:
    """Return a feature with its first `dimensions` numbers, normalized after that; None leaves it as it is."""
    return feature if dimensions is None else feature.truncate(dimensions).normalize


VECTOR = {"oneOf": [{"type": "array", "items": {"type": "number"}}, {"type": "string", "contentEncoding": "base64"}]}
USAGE = {
    "type": "object",
    "properties": {"prompt_tokens": {"type": "integer"}, "total_tokens": {"type": "integer"}},
}
ROUTES = (
    Route(
        method="GET",
        path="/v1/models",
        handler=models,
        dialect="openai",
        summary="List the model and its named features",
        content={
            "application/json": {
                "type": "object",
                "required": ["object", "data"],
                "properties": {"object": {"const": "list"}, "data": {"type": "array", "items": {"type": "object"}}},
            }
        },
    ),
    *(
        Route(
            method="POST",
            path=path,
            handler=embeddings,
            dialect="openai",
            summary="Compute one vector per text, as OpenAI's API does",
            body=EmbeddingsBody,
            content={
                "application/json": {
                    "type": "object",
                    "required": ["object", "data", "model", "usage"],
                    "properties": {
                        "object": {"const": "list"},
                        "data": {
                            "type": "array",
                            "items": {
                                "type": "object",
                                "required": ["object", "index", "embedding"],
                                "properties": {"index": {"type": "integer"}, "embedding": VECTOR},
                            },
                        },
                        "model": {"type": "string"},
                        "usage": USAGE,
                    },
                }
            },
            statuses=(400, 404, 413, 424, 429),
        )
        for path in ("/v1/embeddings", "/embeddings")
    ),
)
