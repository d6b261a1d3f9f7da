"""Inputs that several dialects share: texts, limits in tokens, and the vectors that come of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from layertap.engine.extractor import Extractor
from layertap.features.expr import Expr
from layertap.records import Array, Feature
from layertap.server.model import ServedModel, TextOptions
from layertap.server.refusals import Refusal
from layertap.server.wire import float_array


def texts_of(value: str | list[str], name: str) -> list[str]:
    """Return one text or several as a list.

    Raises:
        Refusal: the list is empty.
    """
    if isinstance(value, str):
        return [value]
    if not value:
        raise Refusal("empty", f"{name}: the list is empty; send at least one text", param=name)
    return value


def token_limit(
    model: ServedModel, feature: Expr, tokens: int | None, *, extractor: Extractor | None = None
) -> TextOptions:
    """Return the options for `truncate_prompt_tokens`: it lowers the limit of a feature, and never raises it."""
    if tokens is None or tokens == -1 or tokens >= model.limit_of(feature, extractor):
        return TextOptions()
    if tokens == 0:
        raise Refusal("invalid", "truncate_prompt_tokens: expected at least 1, or -1", param="truncate_prompt_tokens")
    return TextOptions(max_length=tokens)


def vectors_of(feature: Feature) -> Array:
    """Return the vectors of a feature that gives one per text, float32 [N, H]."""
    assert isinstance(feature, np.ndarray)
    return float_array(feature)


def cosines(vector: Array, others: Array) -> Array:
    """Return the cosines of a vector [H] with others [N, H], float32 [N]; 0 with a vector of zeros."""
    lengths = np.linalg.norm(others.astype(np.float64), axis=1) * np.linalg.norm(vector.astype(np.float64))
    dots = others.astype(np.float64) @ vector.astype(np.float64)
    values: Array = np.divide(dots, lengths, out=np.zeros_like(dots), where=lengths > 0).astype(np.float32)
    return values


def refuse_other_inputs(body: dict[str, Any]) -> dict[str, Any]:
    """Refuse token ids and chat messages in words that say what to set in clients; return the body.

    Raises:
        Refusal: the body has them.
    """
    if "messages" in body:
        raise Refusal(
            "invalid",
            "messages: encoders have no chat template; send texts as 'input' (use_chat_template=False in mteb)",
            param="messages",
        )
    given = body.get("input")
    first = given[0] if isinstance(given, list) and given else None
    if isinstance(first, list | int) and not isinstance(first, bool):
        raise Refusal(
            "invalid",
            "input: token ids are not taken, since they are those of another tokenizer; send texts "
            "(check_embedding_ctx_length=False in langchain_openai)",
            param="input",
        )
    return body
