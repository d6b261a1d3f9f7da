"""Routes of text-embeddings-inference, with its JSON, codes and headers, as its version 1.9.3 has them.

What may surprise: `/predict` takes a list of two strings as one pair; `/tokenize` counts offsets in bytes of UTF-8;
`/rerank` puts the later of two equal scores first; texts and batches that are wrong have the status 422, which was 413
before version 1.9; an empty text is refused with 400.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
from pydantic import Field
from starlette.responses import Response

from layertap.features.expr import Expr
from layertap.features.parse import parse
from layertap.features.sources import sentence_embedding
from layertap.records import Array, Ragged, Record
from layertap.server.answer import Answer
from layertap.server.body import Body, read
from layertap.server.inputs import cosines, vectors_of
from layertap.server.model import ServedHead, ServedModel, TextOptions
from layertap.server.predictions import HeadInputs, run_heads
from layertap.server.refusals import Refusal
from layertap.server.routes import Route
from layertap.server.state import Call
from layertap.server.tokenizing import THREADS
from layertap.server.wire import json_of, list_pieces, row_of
from layertap.version import __version__

Direction = Literal["left", "right", "Left", "Right"]
TRUNCATE = "true or false"
DIRECTION = "'left' or 'right'"
PROMPT = "the name of a prompt of the model's folder"
TEXTS = "a text, or a list of texts"


class EmbedBody(Body):
    """Body of a request to `/embed`."""

    inputs: str | list[str] = Field(description=TEXTS)
    truncate: bool | None = Field(default=None, description=TRUNCATE)
    truncation_direction: Direction = Field(default="right", description=DIRECTION)
    prompt_name: str | None = Field(default=None, description=PROMPT)
    normalize: bool | None = Field(default=None, description="true (the default) or false")
    dimensions: int | None = Field(default=None, ge=1, description="a whole number of at least 1")


class EmbedAllBody(Body):
    """Body of a request to `/embed_all`; `layer` is an addition."""

    inputs: str | list[str] = Field(description=TEXTS)
    truncate: bool | None = Field(default=None, description=TRUNCATE)
    truncation_direction: Direction = Field(default="right", description=DIRECTION)
    layer: int | None = Field(
        default=None, ge=-1_000, le=1_000, description="the number of a hidden state, 0 the embeddings, -1 the last"
    )


class Sentences(Body):
    """Sentence and those that it is compared with."""

    source_sentence: str = Field(description="a text")
    sentences: list[str] = Field(description="a list of texts")


class SimilarityParameters(Body):
    """Parameters of a request to `/similarity`."""

    truncate: bool | None = Field(default=None, description=TRUNCATE)
    truncation_direction: Direction = Field(default="right", description=DIRECTION)
    prompt_name: str | None = Field(default=None, description=PROMPT)


class SimilarityBody(Body):
    """Body of a request to `/similarity`."""

    inputs: Sentences = Field(description="an object with the text source_sentence and the list sentences")
    parameters: SimilarityParameters | None = Field(
        default=None, description="an object with truncate, truncation_direction and prompt_name"
    )


class PredictBody(Body):
    """Body of a request to `/predict`."""

    inputs: str | list[str] | list[list[str]] = Field(
        description="a text, a pair as a list of two texts, or a list of lists of one text or a pair each"
    )
    truncate: bool | None = Field(default=None, description=TRUNCATE)
    truncation_direction: Direction = Field(default="right", description=DIRECTION)
    raw_scores: bool = Field(default=False, description="true or false")


class RerankBody(Body):
    """Body of a request to `/rerank`."""

    query: str = Field(description="a text")
    texts: list[str] = Field(description="a list of texts")
    truncate: bool | None = Field(default=None, description=TRUNCATE)
    truncation_direction: Direction = Field(default="right", description=DIRECTION)
    raw_scores: bool = Field(default=False, description="true or false")
    return_text: bool = Field(default=False, description="true or false")


class TokenizeBody(Body):
    """Body of a request to `/tokenize`."""

    inputs: str | list[str] = Field(description=TEXTS)
    add_special_tokens: bool = Field(default=True, description="true or false")
    prompt_name: str | None = Field(default=None, description=PROMPT)


class DecodeBody(Body):
    """Body of a request to `/decode`."""

    ids: list[int] | list[list[int]] = Field(description="a list of token ids, or a list of such lists")
    skip_special_tokens: bool = Field(default=True, description="true or false")


class RootBody(Body):
    """Body of a request to `/`: that of the route for the kind of model, or of `/similarity`."""

    inputs: Any = Field(default=None, description="what /embed, /similarity or /predict takes")
    query: Any = Field(default=None, description="what /rerank takes")
    texts: Any = Field(default=None, description="what /rerank takes")


async def embed(call: Call) -> Response:
    """Compute one vector per text; always a list of lists."""
    asked = read(EmbedBody, refuse_ids(call.value))
    model = call.state.model
    feature = prompted(model, asked.prompt_name)
    normalize = asked.normalize is not False
    if asked.dimensions is not None:
        feature = model.raw(feature).truncate(asked.dimensions)
    feature = model.normalized(feature) if normalize else model.raw(feature)
    vectors = await embedded(call, feature, filled(asked.inputs), options_of(model, asked))
    return await answered(call, list_pieces(list(vectors)), size=vectors.size * 12)


async def embed_all(call: Call) -> Response:
    """Compute one vector per token, of the last layer or of another one."""
    asked = read(EmbedAllBody, refuse_ids(call.value))
    model = call.state.model
    feature = parse("last_hidden_state" if asked.layer is None else f"hidden_states[{asked.layer}]")
    run = model.run_of({"tokens": feature}, options=options_of(model, asked))
    tokens = (await call.compute(run, records_of(filled(asked.inputs))))["tokens"]
    assert isinstance(tokens, Ragged)
    return await answered(
        call, list_pieces(row_of(tokens, i) for i in range(len(tokens))), size=tokens.values.size * 12
    )


async def similarity(call: Call) -> Response:
    """Compare a sentence with others by the cosine of their vectors."""
    asked = read(SimilarityBody, call.value)
    parameters = asked.parameters or SimilarityParameters()
    texts = [asked.inputs.source_sentence, *filled(asked.inputs.sentences, "inputs.sentences")]
    feature = prompted(call.state.model, parameters.prompt_name)
    vectors = await embedded(call, feature, filled(texts), options_of(call.state.model, parameters))
    return await answered(call, [json_of(cosines(vectors[0], vectors[1:]))], size=len(texts) * 12)


async def predict(call: Call) -> Response:
    """Score the labels of texts or pairs with the head of the model."""
    asked = read(PredictBody, call.value)
    single, records = sequences(asked.inputs)
    head = classifier(call.state.model)
    (inputs,) = await run_heads(call, [head], records, options_of(call.state.model, asked))
    scores = inputs.logits if asked.raw_scores else inputs.scores
    rows = [ranked(head.head.labels, row) for row in scores]
    return await answered(call, [json_of(rows[0] if single else rows)], size=scores.size * 50)


async def rerank(call: Call) -> Response:
    """Score texts against a query with a cross-encoder, the best first."""
    asked = read(RerankBody, call.value)
    texts = filled(asked.texts, "texts", each=False)
    if not asked.query and not all(texts):
        raise Refusal("empty", "query and texts are empty")
    inputs = await cross_encoded(call, asked.query, texts, options_of(call.state.model, asked))
    scores = (inputs.logits if asked.raw_scores else inputs.scores)[:, 0]
    order = np.argsort(scores, kind="stable")[::-1]  # of equal scores the later comes first
    ranks = [{"index": int(i), **({"text": texts[i]} if asked.return_text else {}), "score": scores[i]} for i in order]
    return await answered(call, [json_of(ranks)], size=len(ranks) * 50)


async def root(call: Call) -> Response:
    """Answer as the route that fits the model; `inputs` with a source sentence is a request for similarities."""
    if isinstance(call.value.get("inputs"), dict):
        return await similarity(call)
    model = call.state.model
    if model.reranker is not None:
        return await rerank(call)
    return await (predict if model.id in model.heads else embed)(call)


async def tokenize(call: Call) -> Response:
    """Cut texts into tokens; offsets count bytes of UTF-8."""
    asked = read(TokenizeBody, call.value)
    state = call.state
    prompt = prompt_text(state.model, asked.prompt_name)
    texts = [prompt + text for text in checked_count(call, filled(asked.inputs))]
    tokenizer = state.model.extractor.tokenizer.backend

    def tokens() -> bytes:
        encodings = tokenizer.encode_batch(texts, add_special_tokens=asked.add_special_tokens)
        return json_of([tokens_of(encoding, text) for encoding, text in zip(encodings, texts, strict=True)])

    return await answered(call, [await state.tokenizing.call(tokens)], size=0)


async def decode(call: Call) -> Response:
    """Turn token ids back into texts."""
    asked = read(DecodeBody, call.value)
    given: list[Any] = list(asked.ids)
    lists: list[list[int]] = [given] if not given or isinstance(given[0], int) else given
    if any(not ids for ids in lists):
        raise Refusal("empty", "ids: a list is empty; send at least one token id", param="ids")
    tokenizer = call.state.model.extractor.tokenizer.backend
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    wrong = next((i for ids in checked_count(call, lists) for i in ids if not 0 <= i < size), None)
    if wrong is not None:
        raise Refusal("invalid", f"ids: {wrong} is out of range; token ids are 0 to {size - 1}", param="ids")
    decoded = await call.state.tokenizing.call(
        partial(tokenizer.decode_batch, lists, skip_special_tokens=asked.skip_special_tokens)
    )
    return await answered(call, [json_of(decoded)], size=0)


async def info(call: Call) -> Response:
    """Describe the model and the limits of the server."""
    state, model = call.state, call.state.model
    files, limits = model.extractor.files, state.limits
    value = {
        "model_id": model.id,
        "model_sha": files.checkpoint.commit,
        "model_dtype": model.extractor.semantics.precision,
        "served_model_name": model.id,
        "model_type": model_type(model),
        "max_concurrent_requests": None,
        "max_input_length": model.max_length,
        "max_batch_tokens": limits.run_tokens,
        "max_batch_requests": None,
        "max_client_batch_size": limits.texts,
        "auto_truncate": model.auto_truncate,
        "tokenization_workers": THREADS,
        "version": __version__,
        "sha": None,
        "docker_label": None,
    }
    return await call.answer([json_of(value)], size=0)


async def embedded(call: Call, feature: Expr, texts: Sequence[str], options: TextOptions) -> Array:
    """Return the vectors of texts, float32 [N, H]."""
    run = call.state.model.vector_of(feature, options=options)
    return vectors_of((await call.compute(run, records_of(texts)))["embedding"])


async def cross_encoded(call: Call, query: str, texts: Sequence[str], options: TextOptions) -> HeadInputs:
    """Run the cross-encoder on the pairs of a query and each text.

    Raises:
        Refusal: the model is none.
    """
    head = call.state.model.reranker
    if head is None:
        raise Refusal("backend", "the model is not a re-ranker: its checkpoint has no head with one label")
    records = [Record(row=i, text=query, pair=text) for i, text in enumerate(texts)]
    return (await run_heads(call, [head], records, options))[0]


async def answered(call: Call, pieces: Any, *, size: int) -> Answer:
    """Return an answer with the headers of text-embeddings-inference."""
    timing = call.timing
    total = f"{(time.perf_counter() - timing.begun) * 1e3:.0f}"
    headers = {
        "x-compute-type": call.state.model.extractor.runtime.device,
        "x-compute-time": total,
        "x-compute-characters": str(timing.characters),
        "x-compute-tokens": str(timing.tokens),
        "x-total-time": total,
        "x-tokenization-time": f"{timing.tokenizing * 1e3:.0f}",
        "x-queue-time": f"{timing.queueing * 1e3:.0f}",
        "x-inference-time": f"{timing.running * 1e3:.0f}",
    }
    return await call.answer(pieces, size=size, headers=headers)


def options_of(model: ServedModel, asked: Any) -> TextOptions:
    """Return the options for long texts: refused unless the request, or else the server, says to cut them."""
    truncate = model.auto_truncate if asked.truncate is None else asked.truncate
    side = asked.truncation_direction.lower()
    if truncate:
        return TextOptions(long="truncate", truncate_side=side)
    return TextOptions(long="error") if model.extractor.semantics.long == "truncate" else TextOptions()


def prompted(model: ServedModel, prompt_name: str | None) -> Expr:
    """Return the default feature, with one of the prompts of the model's folder where one is named."""
    return model.default if prompt_name is None else sentence_embedding(prompt=prompt_name)


def prompt_text(model: ServedModel, prompt_name: str | None) -> str:
    """Return the text of a prompt; without a name that of the default prompt, which mostly is empty."""
    plan = model.extractor.plan({"f0": prompted(model, prompt_name)})
    return plan.inputs[0].prompt


def filled(texts: str | list[str], name: str = "inputs", *, each: bool = True) -> list[str]:
    """Return texts as a list, none of them empty.

    Raises:
        Refusal: there is no text, or an empty one.
    """
    listed = [texts] if isinstance(texts, str) else texts
    if not listed or (each and not all(listed)):
        where = f"{name}: text {listed.index('')} is" if listed else f"{name}:"
        raise Refusal("empty", f"{where} empty; text-embeddings-inference takes no empty input", param=name)
    return listed


def checked_count(call: Call, items: list[Any]) -> list[Any]:
    """Return the items, or refuse more of them than a request may have."""
    limit = call.state.limits.texts
    if len(items) > limit:
        raise Refusal("too_many", f"{len(items):,} inputs; a request has at most {limit:,}")
    return items


def records_of(texts: Sequence[str]) -> list[Record]:
    """Return texts as records."""
    return [Record(row=i, text=text) for i, text in enumerate(texts)]


def refuse_ids(body: dict[str, Any]) -> dict[str, Any]:
    """Refuse token ids in words; return the body."""
    given = body.get("inputs")
    first = given[0] if isinstance(given, list) and given else None
    if isinstance(first, list | int) and not isinstance(first, bool):
        raise Refusal("invalid", "inputs: token ids are not taken; send texts", param="inputs")
    return body


def sequences(inputs: str | list[str] | list[list[str]]) -> tuple[bool, list[Record]]:
    """Return whether the inputs are one text or pair, and the records.

    Raises:
        Refusal: a list that is neither a text nor a pair.
    """
    if isinstance(inputs, str):
        inputs = [inputs]
    single = not inputs or isinstance(inputs[0], str)
    lists: list[Any] = [inputs] if single else list(inputs)
    for i, parts in enumerate(lists):
        if not 1 <= len(parts) <= 2:
            raise Refusal(
                "invalid",
                f"inputs: item {i} has {len(parts)} texts; a list of one text, or of the two of a pair, is expected. "
                "For several texts send a list of lists, as [['first'], ['second']]",
                param="inputs",
            )
        if not any(parts):
            raise Refusal("empty", f"inputs: text {i} is empty", param="inputs")
    return single, [
        Record(row=i, text=parts[0], pair=parts[1] if len(parts) == 2 else None) for i, parts in enumerate(lists)
    ]


def classifier(model: ServedModel) -> ServedHead:
    """Return the head of `/predict`: that of the checkpoint, else the first one that labels texts.

    Raises:
        Refusal: there is none.
    """
    head = next((head for head in model.heads.values() if head.head.task == "text"), None)
    if head is None:
        raise Refusal(
            "backend",
            "the model is not a classifier of texts: start the server with --head, or on a checkpoint with a head; "
            "tags of words are at /v1/predict",
        )
    return head


def ranked(labels: Sequence[str], scores: Array) -> list[dict[str, Any]]:
    """Return labels with their scores, the highest first."""
    order = np.argsort(scores, kind="stable")[::-1]
    return [{"score": scores[i], "label": labels[i]} for i in order]


def tokens_of(encoding: Any, text: str) -> list[dict[str, Any]]:
    """Return the tokens of a text as `/tokenize` has them."""
    sizes = np.zeros(len(text) + 1, dtype=np.int64)
    np.cumsum([len(character.encode("utf-8", "surrogatepass")) for character in text], out=sizes[1:])
    tokens: list[dict[str, Any]] = []
    for i, token, special, (begin, end) in zip(
        encoding.ids, encoding.tokens, encoding.special_tokens_mask, encoding.offsets, strict=True
    ):
        place = {"start": None, "stop": None} if special else {"start": int(sizes[begin]), "stop": int(sizes[end])}
        tokens.append({"id": i, "text": token if special else text[begin:end], "special": bool(special), **place})
    return tokens


def model_type(model: ServedModel) -> dict[str, Any]:
    """Return the kind of the model as `/info` has it."""
    head = model.heads.get(model.id)
    if head is None:
        declared = model.extractor.files.sentence_embedding
        poolings = "mean" if declared is None else "_".join(declared.poolings) or "mean"
        return {"embedding": {"pooling": poolings}}
    labels = {str(i): label for i, label in enumerate(head.head.labels)}
    values = {"id2label": labels, "label2id": {label: int(i) for i, label in labels.items()}}
    return {"reranker" if head.is_reranker else "classifier": values}


NUMBERS = {"type": "array", "items": {"type": "number"}}
VECTORS = {"type": "array", "items": NUMBERS}
STATUSES = (400, 413, 422, 424, 429)
LABELS = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["score", "label"],
        "properties": {"score": {"type": "number"}, "label": {"type": "string"}},
    },
}
RANKS = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["index", "score"],
        "properties": {"index": {"type": "integer"}, "score": {"type": "number"}, "text": {"type": "string"}},
    },
}
TOKENS = {"type": "array", "items": {"type": "array", "items": {"type": "object", "required": ["id", "text"]}}}
_POSTS: tuple[tuple[str, Any, type[Body], str, Any], ...] = (
    ("/embed", embed, EmbedBody, "Compute one vector per text", VECTORS),
    ("/embed_all", embed_all, EmbedAllBody, "Compute one vector per token", {"type": "array", "items": VECTORS}),
    ("/similarity", similarity, SimilarityBody, "Compare a sentence with others", NUMBERS),
    ("/predict", predict, PredictBody, "Score the labels of texts", {"anyOf": [LABELS, {"type": "array"}]}),
    ("/rerank", rerank, RerankBody, "Score texts against a query", RANKS),
    ("/tokenize", tokenize, TokenizeBody, "Cut texts into tokens", TOKENS),
    ("/decode", decode, DecodeBody, "Turn token ids back into texts", {"type": "array", "items": {"type": "string"}}),
    ("/", root, RootBody, "Answer as the route that fits the model", {"type": "array"}),
    ("/invocations", root, RootBody, "Answer as the route that fits the model", {"type": "array"}),
)
ROUTES = (
    *(
        Route(
            method="POST",
            path=path,
            handler=handler,
            dialect="tei",
            summary=summary,
            body=body,
            content={"application/json": schema},
            statuses=STATUSES,
            computes=handler not in (tokenize, decode),
        )
        for path, handler, body, summary, schema in _POSTS
    ),
    Route(
        method="GET",
        path="/info",
        handler=info,
        dialect="tei",
        summary="Describe the model and the limits of the server",
        content={"application/json": {"type": "object"}},
    ),
)
