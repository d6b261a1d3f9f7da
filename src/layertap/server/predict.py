"""Route `/v1/predict`: labels, scores, tags and entities of all heads of the server, in one pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from numpy import float32
from pydantic import Field
from starlette.responses import Response

from layertap.learn.heads.predictions import LabelSet, Prediction, TextPrediction
from layertap.records import Record
from layertap.server.body import read
from layertap.server.model import ServedHead, ServedModel
from layertap.server.predictions import HeadInputs, run_heads
from layertap.server.records import RecordsBody
from layertap.server.refusals import Refusal
from layertap.server.routes import Route
from layertap.server.state import Call
from layertap.server.wire import json_of, list_pieces


class PredictionsBody(RecordsBody):
    """Body of a request to `/v1/predict`."""

    heads: list[str] | None = Field(default=None, description="a list of names of heads; all without it")


async def predict(call: Call) -> Response:
    """Predict with the heads that the request names, or with all."""
    asked = read(PredictionsBody, call.value)
    if asked.spans is not None:
        raise Refusal("invalid", "spans: heads label texts and words, not spans", param="spans")
    model = call.state.model
    model.feature_of(asked.model)
    records = asked.records()
    heads = heads_of(model, asked.heads)
    inputs = await run_heads(call, heads, records, asked.options)
    columns = [(own.served.head.name, _predictions(own)) for own in inputs]
    described = [
        {
            "name": served.head.name,
            "task": served.head.task,
            "answer": served.head.answer,
            "labels": list(served.head.labels),
            "scheme": served.head.scheme,
            "feature": served.head.feature,
        }
        for served in heads
    ]
    usage = {"prompt_tokens": call.timing.tokens, "total_tokens": call.timing.tokens}
    tail = json_of({"model": model.id, "heads": described, "usage": usage})
    rows = [{"index": i, "predictions": {name: own[i] for name, own in columns}} for i in range(len(records))]
    pieces = [b'{"object":"list","data":', *list_pieces(rows), b"," + tail[1:]]
    return await call.answer(pieces, size=len(rows) * 100)


def heads_of(model: ServedModel, names: Sequence[str] | None) -> list[ServedHead]:
    """Return heads by their names, or all.

    Raises:
        Refusal: the server has no head, or none of such a name.
    """
    if not model.heads:
        raise Refusal(
            "backend", "the server has no heads; start it with --head, or on a checkpoint that has a head of its own"
        )
    for name in names or ():
        if name not in model.heads:
            near = get_close_matches(name, model.heads, n=1)
            did = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(model.heads)}"
            raise Refusal("invalid", f"heads: there is no head {name!r:.80}; {did}", param="heads")
    return [model.heads[name] for name in dict.fromkeys(names or model.heads)]


def _predictions(inputs: HeadInputs) -> list[dict[str, Any]]:
    if inputs.served.head.answer == "number":
        return [{"number": row[0]} for row in inputs.predictions().probabilities]
    return [_as_json(record, own) for record, own in zip(inputs.records, inputs.per_text(), strict=True)]


def _as_json(record: Record, prediction: TextPrediction) -> dict[str, Any]:
    if isinstance(prediction, Prediction):
        return {"label": prediction.label, "score": float32(prediction.score), "scores": _scores(prediction.scores)}
    if isinstance(prediction, LabelSet):
        return {"labels": list(prediction.labels), "scores": _scores(prediction.scores)}
    words = [
        {"begin": begin, "end": end, "text": record.text[begin:end], "tag": tag, "score": float32(score)}
        for (begin, end), tag, score in zip(prediction.words, prediction.tags, prediction.scores, strict=True)
    ]
    entities = [
        {"begin": own.begin, "end": own.end, "label": own.label, "text": own.text, "score": float32(own.score)}
        for own in prediction.entities
    ]
    return {"words": words, "entities": entities}


def _scores(scores: Mapping[str, float]) -> dict[str, float32]:
    return {label: float32(score) for label, score in scores.items()}


ROUTES = (
    Route(
        method="POST",
        path="/v1/predict",
        handler=predict,
        dialect="openai",
        summary="Predict labels, tags and entities with the heads of the server",
        body=PredictionsBody,
        content={
            "application/json": {
                "type": "object",
                "required": ["object", "data", "model", "heads", "usage"],
                "properties": {"data": {"type": "array", "items": {"type": "object"}}},
            }
        },
        statuses=(400, 404, 413, 424, 429),
    ),
)
