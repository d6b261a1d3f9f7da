"""Routes as values: what a dialect offers, from which the application and its OpenAPI document are made."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from starlette.responses import Response

from layertap.server.body import Body
from layertap.server.refusals import Dialect
from layertap.server.state import Call

Handler: TypeAlias = Callable[[Call], Awaitable[Response]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Route of the server, with what its OpenAPI document says.

    Attributes:
        method: method of the request.
        path: its path, without parameters.
        handler: function that answers a request.
        dialect: form of error bodies.
        summary: what it does, in a line, for the OpenAPI document.
        body: model of the body, or None for a route without one.
        content: media types of answers with status 200 -> their JSON schema.
        statuses: statuses of refusals, for the OpenAPI document.
        public: whether it is answered without the key of the server.
        computes: whether it runs texts through the model, so that a full queue refuses it.
        challenge: header `WWW-Authenticate` of the answer to a request without the key.
    """

    method: Literal["GET", "POST"]
    path: str
    handler: Handler
    dialect: Dialect
    summary: str
    body: type[Body] | None = None
    content: Mapping[str, Any] = field(default_factory=lambda: {"application/json": {}})
    statuses: tuple[int, ...] = ()
    public: bool = False
    computes: bool = True
    challenge: str = "Bearer"
