"""Running the server: the socket, the first results, and its end under handlers of our own.

uvicorn raises a signal again after it has stopped, so that a process that was asked to end would exit with 143.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from layertap.engine.texts import as_records
from layertap.errors import LayertapError, UsageError
from layertap.server.batcher import PlannedRun
from layertap.server.state import State

BACKLOG = 2_048
MOST_FILES = 65_536
KEEP_ALIVE_SECONDS = 75
DRAIN_SECONDS = 60
"""Seconds that requests under way have to end after the first signal."""

CANARY = "The first text that a server runs shows that its model gives finite numbers."
MEASURED_TEXTS = 8


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that is bound and does not listen yet.

    Raises:
        UsageError: the address cannot be had.
    """
    if not 0 <= port <= 65_535:
        raise UsageError(f"--port {port}: expected a number from 0 to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise UsageError(f"--host {host!r}: {error.strerror or error}") from None
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise UsageError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; choose another with --port"
        ) from None
    return bound


def check_first_results(state: State) -> None:
    """Run a text through every feature and head of the server, and measure the rate of the engine.

    Raises:
        NonFiniteError: the model gives NaN or infinity.
        LayertapError: a weight or a feature that cannot be had.
    """
    model = state.model
    runs: list[tuple[str, PlannedRun]] = [(model.id, model.run_of({"f": model.default}).run)]
    runs += [(name, model.run_of({"f": feature}).run) for name, feature in model.features.items()]
    runs += [
        (name, model.run_of({"f": head.feature}, extractor=head.extractor).run) for name, head in model.heads.items()
    ]
    for name, run in runs:
        try:
            run.pipeline.run_chunk(list(run.pipeline.preparation.prepare(as_records([CANARY]))))
        except LayertapError as error:
            error.add_note(f"in the first results of {name!r}; the server is not started")
            raise
    first = runs[0][1]
    texts = list(first.pipeline.preparation.prepare(as_records([CANARY] * MEASURED_TEXTS)))
    begun = time.perf_counter()
    first.pipeline.run_chunk(texts)
    state.admission.measured(sum(map(first.cost, texts)), time.perf_counter() - begun)


class QuietServer(uvicorn.Server):
    """uvicorn's server without signal handlers, which closes connections that send no whole request for a time.

    uvicorn itself waits for ever for the rest of a request's head.
    """

    def __init__(self, config: uvicorn.Config, idle_seconds: float) -> None:
        super().__init__(config)
        self._idle_seconds = idle_seconds
        self._idle_since: dict[int, tuple[int, float]] = {}
        self._closing: set[int] = set()

    async def on_tick(self, counter: int) -> bool:
        """Close idle connections once in a second; uvicorn calls this ten times a second."""
        if counter % 10 == 0:
            self._close_idle(time.monotonic())
            self._abort_closing()
        return await super().on_tick(counter)

    def _close_idle(self, now: float) -> None:
        since: dict[int, tuple[int, float]] = {}
        for connection in list(self.server_state.connections):
            cycle: Any = getattr(connection, "cycle", None)
            if cycle is not None and not cycle.response_complete:
                continue
            # A request in between makes a new cycle, and its end a new time.
            last, begun = self._idle_since.get(id(connection), (id(cycle), now))
            begun = begun if last == id(cycle) else now
            since[id(connection)] = (id(cycle), begun)
            transport: Any = getattr(connection, "transport", None)
            if now - begun > self._idle_seconds and transport is not None:
                transport.close()
        self._idle_since = since

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the caller."""
        yield

    def _abort_closing(self) -> None:
        """Drop connections that were being closed a second ago: their clients do not take what was sent before."""
        closing: set[int] = set()
        for connection in list(self.server_state.connections):
            transport: Any = getattr(connection, "transport", None)
            if transport is not None and transport.is_closing():
                closing.add(id(connection))
                if id(connection) in self._closing:
                    transport.abort()
        self._closing = closing


def serve(app: ASGIApp, state: State, bound: socket.socket, *, on_ready: Callable[[], None]) -> None:
    """Answer requests until a signal asks the server to end.

    The first SIGTERM or SIGINT lets requests under way end; a second one ends the process at once.

    Args:
        app: the application.
        state: its state.
        bound: socket that is bound.
        on_ready: function called once the server listens.
    """
    _allow_many_connections()
    # Errors of requests are logged by the application, without texts; uvicorn's log adds tracebacks of lost clients.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    state.batcher.start()
    asyncio.run(_serve(server_of(app), state, bound, on_ready))
    state.close()


def _allow_many_connections() -> None:
    """Raise the limit of open files to what the system allows; each connection takes one, idle ones, too."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def server_of(app: ASGIApp, *, idle_seconds: float = KEEP_ALIVE_SECONDS) -> QuietServer:
    """Return uvicorn's server of the application; connections without a request are closed after `idle_seconds`."""
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    return QuietServer(config, idle_seconds)


async def _serve(server: QuietServer, state: State, bound: socket.socket, on_ready: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()

    def stop(number: int) -> None:
        if state.draining:
            os._exit(128 + number)
        state.draining = True
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    serving = asyncio.ensure_future(server.serve(sockets=[bound]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.005)
    if server.started:
        on_ready()
    try:
        await serving
    except OSError as error:  # another process has begun to listen on the port meanwhile
        raise UsageError(f"cannot listen: {error.strerror or error}; choose another port with --port") from None
