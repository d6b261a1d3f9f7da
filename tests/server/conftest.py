"""Servers in this process, on a thread each, with real sockets: what clients see is what users get."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from layertap import Extractor
from layertap.features.parse import parse
from layertap.server.app import create_app
from layertap.server.heads import heads_of
from layertap.server.limits import Limits
from layertap.server.model import ServedModel
from layertap.server.run import bind, check_first_results, server_of
from layertap.server.state import State


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A running server.

    Attributes:
        url: where it is, without a slash at the end.
        state: its state, to look into.
        extractor: the model, to compare with.
        client: a client of it that raises nothing.
    """

    url: str
    state: State
    extractor: Extractor
    client: httpx.Client

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        return self.client.post(path, json=body, headers=headers)

    def until_idle(self) -> None:
        """Wait until nothing is reserved any more."""
        admission = self.state.admission
        for _ in range(400):
            if not (admission.body or admission.cost or admission.answer):
                return
            threading.Event().wait(0.01)
        raise AssertionError((admission.body, admission.cost, admission.answer))


@contextmanager
def running(state: State, **options: Any) -> Iterator[str]:
    """Run a server on a thread, and give its URL."""
    bound = bind("127.0.0.1", 0)
    port = bound.getsockname()[1]
    server = server_of(create_app(state, **options))
    state.batcher.start()
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[bound])))
    thread.start()
    try:
        while not server.started:
            threading.Event().wait(0.005)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
        state.close()


@pytest.fixture(scope="module")
def serve() -> Iterator[Callable[..., Served]]:
    """`serve(folder, features={"v": "hidden_states[1].mean"}, limits=Limits(...))`: starts a server."""
    with ExitStack() as stack:

        def start(
            model: str | Path | None,
            *,
            features: dict[str, str] | None = None,
            heads: list[str] | None = None,
            limits: Limits | None = None,
            api_key: str | None = None,
            auto_truncate: bool = False,
            name: str | None = None,
            options: dict[str, Any] | None = None,
            **app_options: Any,
        ) -> Served:
            extractor = Extractor.from_pretrained(model, **(options or {}))
            name = name or Path(extractor.files.checkpoint.name).name
            served = ServedModel(
                id=name,
                extractor=extractor,
                features={name: parse(text) for name, text in (features or {}).items()},
                heads=heads_of(extractor, heads or [], name),
                auto_truncate=auto_truncate,
            )
            state = State(model=served, limits=limits or Limits(), api_key=api_key)
            check_first_results(state)
            url = stack.enter_context(running(state, **app_options))
            client = stack.enter_context(httpx.Client(base_url=url, timeout=60))
            return Served(url=url, state=state, extractor=extractor, client=client)

        yield start


FEATURES = {"v": "hidden_states[2].mean.normalize", "words": "last_hidden_state.words(mean)"}


@pytest.fixture(scope="module")
def minilm(serve: Callable[..., Served], minilm_folder: Path) -> Served:
    """The real model, with two named features."""
    return serve(None, features=FEATURES)


@pytest.fixture(scope="module")
def tiny(
    serve: Callable[..., Served], make_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Served:
    """A small random model called `tiny`, with two named features."""
    folder = make_checkpoint(tmp_path_factory.mktemp("served") / "tiny")
    return serve(folder, features=FEATURES)
