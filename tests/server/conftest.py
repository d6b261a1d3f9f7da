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
from layertap.server.run import QuietServer, bind, check_first_results, server_of
from layertap.server.state import State
from tests.tiny_models import random_model, save_model, wordpiece_tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A running server.

    Attributes:
        url: where it is, without a slash at the end.
        state: its state, to look into.
        extractor: the model, to compare with.
        client: a client of it that raises nothing.
        server: uvicorn's object, to look into.
    """

    url: str
    state: State
    extractor: Extractor
    client: httpx.Client
    server: QuietServer

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        return self.client.post(path, json=body, headers=headers)

    def until_idle(self) -> None:
        """Wait until nothing is reserved any more."""
        admission = self.state.admission
        for _ in range(12_000):
            if not (admission.body or admission.cost or admission.answer):
                return
            threading.Event().wait(0.01)
        raise AssertionError((admission.body, admission.cost, admission.answer))


@contextmanager
def running(state: State, *, idle_seconds: float = 75, **options: Any) -> Iterator[tuple[str, QuietServer]]:
    """Run a server on a thread, and give its URL and uvicorn's object."""
    bound = bind("127.0.0.1", 0)
    port = bound.getsockname()[1]
    server = server_of(create_app(state, **options), idle_seconds=idle_seconds)
    state.batcher.start()
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[bound])))
    thread.start()
    try:
        while not server.started:
            threading.Event().wait(0.001)
        yield f"http://127.0.0.1:{port}", server
    finally:
        server.should_exit = True
        thread.join(120)
        assert not thread.is_alive()
        state.close()


@contextmanager
def starting() -> Iterator[Callable[..., Served]]:
    """Give a function that starts servers, which end together."""
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
            url, server = stack.enter_context(running(state, **app_options))
            client = stack.enter_context(httpx.Client(base_url=url, timeout=120))
            return Served(url=url, state=state, extractor=extractor, client=client, server=server)

        yield start


@pytest.fixture(scope="module")
def serve() -> Iterator[Callable[..., Served]]:
    """`serve(folder, features={"v": "hidden_states[1].mean"}, limits=Limits(...))`: starts a server."""
    with starting() as start:
        yield start


@pytest.fixture(scope="session")
def serve_for_all() -> Iterator[Callable[..., Served]]:
    """Start servers that all modules share."""
    with starting() as start:
        yield start


FEATURES = {"v": "hidden_states[2].mean.normalize", "words": "last_hidden_state.words(mean)"}


@pytest.fixture(scope="session")
def minilm(serve_for_all: Callable[..., Served], minilm_folder: Path) -> Served:
    """The real model, with two named features."""
    return serve_for_all(None, features=FEATURES)


@pytest.fixture(scope="session")
def tiny(
    serve_for_all: Callable[..., Served], make_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Served:
    """A small random model called `tiny`, with two named features."""
    folder = make_checkpoint(tmp_path_factory.mktemp("served") / "tiny")
    return serve_for_all(folder, features=FEATURES)


def save_classifier(folder: Path, end: str, **fields: Any) -> Path:
    """Write a small random BERT of transformers with a head."""
    pytest.importorskip("torch", reason="torch is not installed (extra: torch)")
    size = {
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
    }
    tokenizer = wordpiece_tokenizer()
    module = random_model("Bert", size | fields | {"vocab_size": tokenizer.get_vocab_size()}, end=end)
    special = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    return save_model(folder, module, tokenizer, **special, model_max_length=48)


@pytest.fixture(scope="session")
def moods(serve_for_all: Callable[..., Served], tmp_path_factory: pytest.TempPathFactory) -> Served:
    """A classifier of texts called `moods`, with the labels good, bad and none."""
    labels = {0: "good", 1: "bad", 2: "none"}
    folder = save_classifier(
        tmp_path_factory.mktemp("served") / "moods",
        "ForSequenceClassification",
        id2label=labels,
        label2id={label: i for i, label in labels.items()},
    )
    return serve_for_all(folder)


@pytest.fixture(scope="session")
def reranker(serve_for_all: Callable[..., Served], tmp_path_factory: pytest.TempPathFactory) -> Served:
    """A cross-encoder."""
    folder = tmp_path_factory.mktemp("served") / "reranker"
    return serve_for_all(save_classifier(folder, "ForSequenceClassification", num_labels=1))


@pytest.fixture(scope="session")
def tagger(serve_for_all: Callable[..., Served], tmp_path_factory: pytest.TempPathFactory) -> Served:
    """A classifier of words."""
    labels = {0: "O", 1: "B-PER", 2: "I-PER"}
    folder = save_classifier(
        tmp_path_factory.mktemp("served") / "tagger",
        "ForTokenClassification",
        id2label=labels,
        label2id={label: i for i, label in labels.items()},
    )
    return serve_for_all(folder)


@pytest.fixture
def tiny_with(serve: Callable[..., Served], tiny: Served) -> Callable[..., Served]:
    """`tiny_with(auto_truncate=True)`: a server of the same model with other options."""

    def start(**options: Any) -> Served:
        return serve(tiny.extractor.reference.name, **options)

    return start
