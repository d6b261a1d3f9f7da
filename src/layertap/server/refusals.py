"""Refusals: every answer that is not a result, and its status and JSON body in the dialect of a route."""

from __future__ import annotations

from typing import Literal, TypeAlias

import orjson

from layertap.errors import (
    BackendError,
    CheckpointError,
    LayertapError,
    NonFiniteError,
    UntrainedPoolerError,
)

Dialect: TypeAlias = Literal["openai", "tei"]
"""Form of error bodies: an object `error` (OpenAI, vLLM, Cohere's clients), or `error` and `error_type` (TEI)."""

Kind: TypeAlias = Literal[
    "syntax",
    "invalid",
    "empty",
    "too_many",
    "too_large",
    "unknown_model",
    "not_found",
    "unauthorized",
    "wrong_method",
    "media_type",
    "not_acceptable",
    "wrong_host",
    "timeout",
    "gone",
    "overloaded",
    "backend",
    "unavailable",
    "internal",
]

STATUS: dict[Kind, int] = {
    "syntax": 400,
    "invalid": 400,
    "empty": 400,
    "too_many": 413,
    "too_large": 413,
    "unknown_model": 404,
    "not_found": 404,
    "unauthorized": 401,
    "wrong_method": 405,
    "media_type": 415,
    "not_acceptable": 406,
    "wrong_host": 421,
    "timeout": 408,
    "gone": 499,
    "overloaded": 429,
    "backend": 424,
    "unavailable": 503,
    "internal": 500,
}

TEI_STATUS: dict[Kind, int] = {"invalid": 422, "too_many": 422}
"""Statuses of text-embeddings-inference 1.9 that differ; it answered 413 instead of 422 before that version."""

TEI_TYPES: dict[Kind, str] = {
    "empty": "Empty",
    "overloaded": "Overloaded",
    "backend": "Backend",
    "internal": "Backend",
    "unavailable": "Unhealthy",
}
"""Values of `error_type`; all other kinds are `Validation`."""

OPENAI_TYPES: dict[Kind, str] = {
    "unauthorized": "authentication_error",
    "overloaded": "rate_limit_error",
    "backend": "model_error",
    "unavailable": "server_error",
    "internal": "server_error",
}
"""Values of `error.type`; all other kinds are `invalid_request_error`."""

OPENAI_CODES: dict[Kind, str] = {
    "unknown_model": "model_not_found",
    "unauthorized": "invalid_api_key",
    "overloaded": "rate_limit_exceeded",
}


class Refusal(Exception):  # noqa: N818 - an answer, which ends a request
    """Request that is not answered with a result.

    Attributes:
        kind: reason, which decides the status.
        message: explanation for the client: what is wrong, what is allowed, what to do.
        param: name of the field that is wrong, or None.
        retry_after: seconds after which the request may succeed, or None.
        challenge: how a client without the key may send it, as in the header `WWW-Authenticate`.
    """

    def __init__(
        self,
        kind: Kind,
        message: str,
        *,
        param: str | None = None,
        retry_after: float | None = None,
        challenge: str = "Bearer",
    ) -> None:
        self.kind: Kind = kind
        self.message = message
        self.param = param
        self.retry_after = retry_after
        self.challenge = challenge
        super().__init__(message)

    def status(self, dialect: Dialect) -> int:
        """Return the status code."""
        return TEI_STATUS.get(self.kind, STATUS[self.kind]) if dialect == "tei" else STATUS[self.kind]

    def body(self, dialect: Dialect) -> bytes:
        """Return the JSON body."""
        message = self.message.encode("utf-8", "replace").decode()  # orjson refuses lone surrogates
        if dialect == "tei":
            return orjson.dumps({"error": message, "error_type": TEI_TYPES.get(self.kind, "Validation")})
        error = {
            "message": message,
            "type": OPENAI_TYPES.get(self.kind, "invalid_request_error"),
            "param": self.param,
            "code": OPENAI_CODES.get(self.kind),
        }
        return orjson.dumps({"error": error})

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the answer beside its content type."""
        headers: dict[str, str] = {}
        if self.retry_after is not None:
            headers["retry-after"] = str(max(1, round(self.retry_after)))
        if self.kind == "unauthorized":
            headers["www-authenticate"] = self.challenge
        return headers


def refusal_of(error: BaseException) -> Refusal:
    """Return the refusal that an error in the course of a request stands for."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, NonFiniteError):
        texts = ", ".join(map(str, error.rows[:5])) + (f" and {len(error.rows) - 5} more" if error.rows[5:] else "")
        return Refusal(
            "backend", f"the model gives NaN or infinity for text {texts} ({error.what}); other texts can be asked for"
        )
    if isinstance(error, UntrainedPoolerError):
        return Refusal("invalid", str(error))
    if isinstance(error, CheckpointError | BackendError):
        return Refusal("backend", str(error))
    if isinstance(error, LayertapError):
        return Refusal("invalid", str(error))
    if isinstance(error, MemoryError):
        return Refusal("overloaded", "the server is out of memory for this request; send fewer texts", retry_after=1)
    return Refusal("internal", "an error inside the server; its log has more")


def dialect_of(path: str) -> Dialect:
    """Return the dialect of a path, whether there is a route or not."""
    return "openai" if path.startswith(("/v1/", "/v2/", "/pooling", "/embeddings")) else "tei"
