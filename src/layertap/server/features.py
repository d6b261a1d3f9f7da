"""Route `/v1/features`: any features of texts, pairs, words and spans, as JSON or in binary formats."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import Field
from starlette.responses import Response

from layertap.data.writers.base import values_of
from layertap.engine.details import checked_names
from layertap.features.expr import Expr
from layertap.features.naming import parsed
from layertap.features.parse import parse_named
from layertap.records import Feature
from layertap.server.body import read
from layertap.server.model import (
    FeatureRun,
    ServedModel,
    checked_count,
    checked_depth,
    checked_expression,
    checked_size,
)
from layertap.server.records import RecordsBody
from layertap.server.refusals import Refusal
from layertap.server.routes import Route
from layertap.server.state import Call
from layertap.server.wire import (
    ARROW,
    BINARY_TYPES,
    JSON,
    NPZ,
    SAFETENSORS,
    arrow_pieces,
    json_of,
    list_pieces,
    npz_pieces,
    row_of,
    safetensors_pieces,
)

MEDIA_TYPES = (JSON, *BINARY_TYPES)


class FeaturesBody(RecordsBody):
    """Body of a request to `/v1/features`."""

    features: dict[str, str] | list[str] | str | None = Field(
        default=None, description="an object of names and expressions, a list of expressions, or one expression"
    )
    details: bool | list[str] = Field(default=False, description="true, or a list of names of details")


async def features(call: Call) -> Response:
    """Compute features; the header `Accept` selects the format of the answer."""
    media_type = accepted(call.request.headers.get("accept"))
    asked = read(FeaturesBody, call.value)
    model = call.state.model
    named = features_of(model, asked)
    details = checked_names(asked.details)
    clash = next((name for name in details if name in named), None)
    if clash is not None:
        raise Refusal("invalid", f"details: {clash!r} is the name of a feature; give the feature another")
    run = model.run_of(named, options=asked.options, details=details)
    strings = next((schema.name for schema in run.schemas if schema.dtype == "str"), None)
    if strings is not None and media_type in (SAFETENSORS, NPZ):
        raise Refusal(
            "invalid",
            f"details: {strings} are strings, and {media_type} holds numbers; leave them out, or accept JSON or an "
            "Arrow stream",
            param="details",
        )
    records = asked.records()
    results = await call.compute(run, records)
    return await _answer(call, run, named, results, len(records), media_type)


def features_of(model: ServedModel, asked: FeaturesBody) -> Mapping[str, Expr]:
    """Return the features of a request by name; without any, the feature that the model's name stands for.

    A text may be a name that the server was started with.

    Raises:
        Refusal, FeatureError: too many features, a name twice, an expression that does not parse.
    """
    default = model.feature_of(asked.model)
    if asked.features is None:
        return {"embedding": default}
    if isinstance(asked.features, dict):
        checked_count(list(asked.features))
        return parsed({name: _feature(model, text) for name, text in asked.features.items()})
    listed = [asked.features] if isinstance(asked.features, str) else asked.features
    checked_count(listed)
    named: dict[str, Expr] = {}
    for text in listed:
        name, feature = (text, model.features[text]) if text in model.features else _named(text)
        if name in named:
            raise Refusal("invalid", f"features: {name!r:.200} is there twice; give one another name", param="features")
        named[name] = feature
    if not named:
        raise Refusal("empty", "features: none is named; leave the field out for the default", param="features")
    return named


def accepted(header: str | None) -> str:
    """Return the media type of the answer: the first of the highest quality that the client accepts.

    Raises:
        Refusal: it accepts none that there is.
    """
    wishes: list[tuple[float, int, str]] = []
    for place, part in enumerate((header or JSON).split(",")):
        media, *parameters = (text.strip().lower() for text in part.split(";"))
        quality = next((text[2:] for text in parameters if text.startswith("q=")), "1")
        try:
            wishes.append((-float(quality), place, media))
        except ValueError:
            continue
    for negative, _, media in sorted(wishes):
        if negative < 0 and media in MEDIA_TYPES:
            return media
        if negative < 0 and media in ("*/*", "application/*"):
            return JSON
    raise Refusal("not_acceptable", f"accept: {header!r:.80}; there are {', '.join(MEDIA_TYPES)}")


async def _answer(
    call: Call, run: FeatureRun, named: Mapping[str, Expr], results: Mapping[str, Feature], count: int, media_type: str
) -> Response:
    schemas = run.schemas
    usage = {"prompt_tokens": call.timing.tokens, "total_tokens": call.timing.tokens}
    described = [
        {
            "name": schema.name,
            "feature": str(named[stem]) if (stem := schema.name.removesuffix(".scale")) in named else None,
            "dtype": schema.dtype,
            "shape": list(schema.shape),
            "axes": list(schema.axes),
            "unit": run.unit_of(schema),
        }
        for schema in schemas
    ]
    metadata: dict[str, Any] = {"model": call.state.model.id, "features": described, "usage": usage}
    size = sum(values_of(feature).nbytes for feature in results.values())
    length = None
    if media_type == SAFETENSORS:
        length, pieces = safetensors_pieces(schemas, results, metadata)
    elif media_type == NPZ:
        pieces = npz_pieces(schemas, results, metadata)
    elif media_type == ARROW:
        pieces = arrow_pieces(schemas, results, metadata, num_records=count)
    else:
        pieces, size = _json_pieces(results, count, metadata), size * 3
    return await call.answer(pieces, size=size, media_type=media_type, length=length)


def _json_pieces(results: Mapping[str, Feature], count: int, metadata: Mapping[str, Any]) -> Iterator[bytes]:
    yield b'{"object":"list","data":'
    yield from list_pieces(
        {"index": i, "features": {name: row_of(feature, i) for name, feature in results.items()}} for i in range(count)
    )
    yield b"," + json_of(metadata)[1:]


def _feature(model: ServedModel, text: str) -> Expr:
    return model.features[text] if text in model.features else checked_expression(text)


def _named(text: str) -> tuple[str, Expr]:
    """Return name and feature of `name = expression`, or of an expression, within the limits of the server."""
    name, feature = parse_named(checked_size(text))
    return name, checked_depth(feature)


ROUTES = (
    Route(
        method="POST",
        path="/v1/features",
        handler=features,
        dialect="openai",
        summary="Compute any features of texts, pairs, words or spans",
        body=FeaturesBody,
        content={
            JSON: {
                "type": "object",
                "required": ["object", "data", "model", "features", "usage"],
                "properties": {"data": {"type": "array", "items": {"type": "object"}}},
            },
            **{media: {"type": "string", "format": "binary"} for media in BINARY_TYPES},
        },
        statuses=(400, 404, 406, 413, 424, 429),
    ),
)
