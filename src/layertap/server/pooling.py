"""Route `/pooling` of vLLM: token vectors, as its clients of late interaction ask for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field
from starlette.responses import Response

from layertap.data.writers.base import values_of
from layertap.features.sources import last_hidden_state
from layertap.records import Feature, Record
from layertap.server.body import Body, read
from layertap.server.inputs import refuse_other_inputs, texts_of, token_limit
from layertap.server.refusals import Refusal
from layertap.server.routes import Route
from layertap.server.state import Call
from layertap.server.wire import base64_of, json_of, list_pieces, row_of


class PoolingBody(Body):
    """Body of a request to `/pooling`."""

    input: str | list[str] = Field(description="a text, or a list of texts")
    model: str | None = Field(default=None, description="the name of a model: its id, or id@expression")
    task: Literal["token_embed", "encode"] | None = Field(default=None, description="'token_embed' or 'encode'")
    use_activation: bool | None = Field(default=None, description="true (vectors of length 1) or false (the default)")
    encoding_format: Literal["float", "base64"] | None = Field(default=None, description="'float' or 'base64'")
    user: str | None = Field(default=None, description="a text that names the end user, which changes nothing")
    truncate_prompt_tokens: int | None = Field(
        default=None, ge=-1, description="a number of tokens, or -1 for the limit of the model"
    )


async def pooling(call: Call) -> Response:
    """Compute one vector per token; the name of the model selects another layer, or words."""
    asked = read(PoolingBody, refuse_other_inputs(call.value))
    model = call.state.model
    named = asked.model is not None and asked.model not in model.aliases
    feature = model.feature_of(asked.model) if named else last_hidden_state
    model.feature_of(asked.model)
    options = token_limit(model, feature, asked.truncate_prompt_tokens)
    if asked.use_activation:
        feature = model.normalized(feature)
    run = model.run_of({"data": feature}, options=options)
    schema = run.schemas[0]
    if len(schema.shape) != 1 or schema.maps or schema.dtype not in ("float32", "float16"):
        raise Refusal(
            "invalid",
            f"{feature} gives {schema.described} per text, and /pooling gives vectors of floats; fold the layers, or "
            "use /v1/features",
            param="model",
        )
    records = [Record(row=i, text=text) for i, text in enumerate(texts_of(asked.input, "input"))]
    vectors = (await call.compute(run, records))["data"]
    usage = {"prompt_tokens": call.timing.tokens, "total_tokens": call.timing.tokens}
    tail = json_of({"model": asked.model or model.id, "usage": usage})
    rows = _rows(vectors, len(records), base64=asked.encoding_format == "base64")
    return await call.answer(_pieces(rows, tail, call.state.started), size=values_of(vectors).size * 12)


def _rows(vectors: Feature, count: int, *, base64: bool) -> Iterator[dict[str, Any]]:
    for i in range(count):
        row = row_of(vectors, i)
        yield {"index": i, "object": "pooling", "data": base64_of(row) if base64 else row}


def _pieces(rows: Iterator[dict[str, Any]], tail: bytes, created: int) -> Iterator[bytes]:
    yield b'{"object":"list","created":%d,"data":' % created
    yield from list_pieces(rows)
    yield b"," + tail[1:]


ROUTES = (
    Route(
        method="POST",
        path="/pooling",
        handler=pooling,
        dialect="openai",
        summary="Compute one vector per token, as vLLM does",
        body=PoolingBody,
        content={
            "application/json": {
                "type": "object",
                "required": ["object", "data", "model", "usage"],
                "properties": {"data": {"type": "array", "items": {"type": "object", "required": ["index", "data"]}}},
            }
        },
        statuses=(400, 404, 413, 424, 429),
    ),
)
