"""Routes for those who run the server: health, metrics, and what it is."""

from __future__ import annotations

from starlette.responses import Response

from layertap.server.refusals import Refusal
from layertap.server.routes import Route
from layertap.server.state import Call
from layertap.server.wire import json_of
from layertap.version import __version__

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


async def live(call: Call) -> Response:
    """Answer as long as the process runs."""
    return await call.answer([b'{"status":"live"}'], size=0)


async def ready(call: Call) -> Response:
    """Answer 200 while the server takes requests: after its first finite results, until it is asked to end."""
    if call.state.draining:
        raise Refusal("unavailable", "the server is about to end")
    return await call.answer([b'{"status":"ready"}'], size=0)


async def metrics(call: Call) -> Response:
    """Give the metrics in the format of Prometheus."""
    state = call.state
    text = state.metrics.render(state.admission, ready=not state.draining)
    return await call.answer([text], size=len(text), media_type=METRICS_TYPE)


async def about(call: Call) -> Response:
    """Say what this server is, where no page is mounted."""
    value = {"name": "layertap", "version": __version__, "model": call.state.model.id, "openapi": "/openapi.json"}
    return await call.answer([json_of(value)], size=0)


STATUS = {"application/json": {"type": "object", "properties": {"status": {"type": "string"}}}}
ROUTES = (
    Route(
        method="GET",
        path="/health/live",
        handler=live,
        dialect="tei",
        summary="Answer as long as the process runs",
        content=STATUS,
        public=True,
    ),
    *(
        Route(
            method="GET",
            path=path,
            handler=ready,
            dialect="tei",
            summary="Answer 200 while the server takes requests",
            content=STATUS,
            statuses=(503,),
            public=True,
        )
        for path in ("/health/ready", "/health", "/ping")
    ),
    Route(
        method="GET",
        path="/metrics",
        handler=metrics,
        dialect="tei",
        summary="Give the metrics in the format of Prometheus",
        content={"text/plain": {"type": "string"}},
        public=True,
    ),
)

ABOUT = Route(
    method="GET",
    path="/",
    handler=about,
    dialect="tei",
    summary="Say what this server is",
    content={"application/json": {"type": "object"}},
    public=True,
)
"""Route of `/` where no page is mounted there."""
