"""The application: all routes on one state, the checks before each of them, and refusals in each dialect."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Callable, Iterable
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from layertap.server import features, health, openai, pooling, predict, rerank, tei
from layertap.server.refusals import Refusal, dialect_of, refusal_of
from layertap.server.routes import Route
from layertap.server.state import Call, State
from layertap.version import __version__

LOG = logging.getLogger("layertap.server")

OTHER = "other"
"""Label of requests without a route in metrics."""

ROUTES: tuple[Route, ...] = (
    *openai.ROUTES,
    *features.ROUTES,
    *predict.ROUTES,
    *pooling.ROUTES,
    *rerank.ROUTES,
    *tei.ROUTES,
    *health.ROUTES,
)
"""All routes of the server, but that of `/`."""

ERROR_SCHEMAS: dict[str, dict[str, Any]] = {
    "openai": {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type", "param", "code"],
                "properties": {
                    "message": {"type": "string"},
                    "type": {"type": "string"},
                    "param": {"type": ["string", "null"]},
                    "code": {"type": ["string", "null"]},
                },
            }
        },
    },
    "tei": {
        "type": "object",
        "required": ["error", "error_type"],
        "properties": {"error": {"type": "string"}, "error_type": {"type": "string"}},
    },
}

COMMON_STATUSES = (400, 401, 405, 408, 413, 415, 421, 422, 429, 500, 503)
"""Statuses that any route may answer with, whatever it does."""


def create_app(
    state: State, *, hosts: Iterable[str] | None = None, pages: Iterable[Route] = (), routes: Iterable[Route] = ROUTES
) -> ASGIApp:
    """Return the ASGI application of a server.

    Args:
        state: the model and all that requests share.
        hosts: names that a request may give as its host, or None: any.
        pages: routes of pages; one of `/` replaces the JSON that stands there otherwise.
        routes: all other routes.
    """
    app = FastAPI(
        title="layertap",
        version=__version__,
        description="Any layer of a text encoder as features.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    mounted = [*pages, *routes]
    if not any(route.path == "/" and route.method == "GET" for route in mounted):
        mounted.append(health.ABOUT)
    for route in mounted:
        app.add_api_route(
            route.path,
            _endpoint(state, route),
            methods=[route.method],
            summary=route.summary,
            operation_id=f"{route.method.lower()}_{route.path.strip('/').replace('/', '_') or 'root'}",
            response_class=Response,
            responses=_responses(route),
            openapi_extra=_request_body(route),
        )
    app.add_exception_handler(HTTPException, _no_route(state))
    return Gate(app, state, None if hosts is None else frozenset(host.lower() for host in hosts))


class Gate:
    """First check of every request: the name of the host, against pages that resolve a name of theirs to this machine.

    A browser sends such requests with the name of the page as host (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, state: State, hosts: frozenset[str] | None) -> None:
        self.app = app
        self._state = state
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "http" and self._hosts is not None:
            given = next((value for name, value in scope["headers"] if name == b"host"), b"").decode("latin-1")
            if host_name(given) not in self._hosts:
                request = Request(scope, receive)
                call = Call(state=self._state, request=request, route=OTHER, dialect=dialect_of(scope["path"]))
                refusal = Refusal(
                    "wrong_host",
                    f"the request is for the host {given!r:.80}, which is not a name of this server; start it with "
                    "--allowed-host NAME to answer to another name",
                )
                await call.refuse(refusal)(scope, receive, send)
                return
        await self.app(scope, receive, send)


def host_name(header: str) -> str:
    """Return the name in a `Host` header, without the port, in lower case."""
    header = header.strip().lower()
    if header.startswith("["):
        return header.partition("]")[0] + "]"
    return header.partition(":")[0].rstrip(".")


def _endpoint(state: State, route: Route) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        call = Call(state=state, request=request, route=route.path, dialect=route.dialect)
        try:
            if not route.public:
                state.check_key(request.headers.get("authorization"), route.challenge)
            return await _until_gone(request, route, call)
        except asyncio.CancelledError:
            call.finish(499)
            raise
        except Exception as error:
            refusal = refusal_of(error)
            if refusal.kind == "internal":
                # Without the message of the error, which may quote a text.
                frames = "".join(traceback.format_tb(error.__traceback__))
                LOG.error("%s %s: %s\n%s", route.method, route.path, type(error).__name__, frames)
            return call.refuse(refusal)

    return endpoint


async def _until_gone(request: Request, route: Route, call: Call) -> Response:
    """Run the handler of a route; where the client goes away meanwhile, stop it and drop what is queued."""
    if route.body is None:
        return await route.handler(call)
    await call.load(computes=route.computes)
    work = asyncio.ensure_future(route.handler(call))
    gone = asyncio.ensure_future(_disconnected(request.receive))
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            work.cancel()
            await asyncio.wait({work})
            raise Refusal("gone", "the client has gone")
        return work.result()
    except asyncio.CancelledError:
        work.cancel()
        await asyncio.wait({work})
        raise
    finally:
        gone.cancel()


async def _disconnected(receive: Receive) -> None:
    message: Message = {}
    while message.get("type") != "http.disconnect":
        message = await receive()


def _no_route(state: State) -> Callable[[Request, Exception], Any]:
    async def refuse(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        path = request.url.path
        call = Call(state=state, request=request, route=OTHER, dialect=dialect_of(path))
        if error.status_code == 405:
            allowed = (error.headers or {}).get("Allow", "another")
            answer = call.refuse(
                Refusal("wrong_method", f"{path:.80} does not take the method {request.method:.20}; it takes {allowed}")
            )
            answer.raw_headers.append((b"allow", allowed.encode("latin-1", "replace")))
            return answer
        return call.refuse(Refusal("not_found", f"there is no route {path:.80}; /openapi.json lists all routes"))

    return refuse


def _request_body(route: Route) -> dict[str, Any] | None:
    if route.body is None:
        return None
    schema = route.body.model_json_schema()
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _responses(route: Route) -> dict[int | str, dict[str, Any]]:
    content = {media: {"schema": schema} for media, schema in route.content.items()}
    error = {"application/json": {"schema": ERROR_SCHEMAS[route.dialect]}}
    responses: dict[int | str, dict[str, Any]] = {200: {"description": "Results", "content": content}}
    for status in sorted({*route.statuses, *COMMON_STATUSES}):
        responses[status] = {"description": "Refusal", "content": error}
    return responses
