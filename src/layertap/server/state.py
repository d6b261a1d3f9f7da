"""State of a running server, and the course of one request through it."""

from __future__ import annotations

import asyncio
import base64
import hmac
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson
from starlette.requests import ClientDisconnect, Request

from layertap.engine.forecast import result_bytes
from layertap.errors import NonFiniteError
from layertap.records import Feature, Record
from layertap.server.admission import Admission, Ticket
from layertap.server.answer import SMALL, STREAMED, Answer
from layertap.server.batcher import Batcher, Job
from layertap.server.limits import Limits
from layertap.server.metrics import Metrics
from layertap.server.model import FeatureRun, ServedModel
from layertap.server.refusals import Dialect, Refusal
from layertap.server.tokenizing import TokenizingPool

WIRE_THREADS = 2
"""Threads that read and write large JSON."""

Result = TypeVar("Result")


@dataclass(kw_only=True, eq=False)
class State:
    """Everything that requests share.

    Attributes:
        model: the model.
        limits: what is allowed.
        api_key: key that clients must send, or None.
        admission: totals of what is under way.
        metrics: counters.
        batcher: queue and engine thread.
        tokenizing: threads that tokenize.
        wire: threads that read and write large JSON.
        draining: whether the server is about to end.
        started: time at which the server was started, seconds since 1970.
    """

    model: ServedModel
    limits: Limits = field(default_factory=Limits)
    api_key: str | None = None
    admission: Admission = field(init=False)
    metrics: Metrics = field(init=False)
    batcher: Batcher = field(init=False)
    tokenizing: TokenizingPool = field(default_factory=TokenizingPool)
    wire: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(WIRE_THREADS, thread_name_prefix="layertap-wire")
    )
    draining: bool = False
    started: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self.admission = Admission(self.limits, self.model.blocks)
        self.metrics = Metrics(self.model.id)
        self.batcher = Batcher(self.limits.run_tokens, self._on_run)

    def close(self) -> None:
        """Stop all threads of the server."""
        self.batcher.close()
        self.tokenizing.close()
        self.wire.shutdown(wait=True, cancel_futures=True)

    def check_key(self, authorization: str | None, challenge: str = "Bearer") -> None:
        """Refuse a request without the key of the server; the time does not depend on where keys differ.

        Browsers that were asked for a name and a password send the key as the password.

        Raises:
            Refusal: the key is missing or wrong.
        """
        if self.api_key is None:
            return
        given = given_key(authorization or "")
        if given is None or not hmac.compare_digest(given.encode(), self.api_key.encode()):
            raise Refusal(
                "unauthorized",
                "this server asks for its key; send the header 'Authorization: Bearer KEY' (api_key=... of clients)",
                challenge=challenge,
            )

    def _on_run(self, texts: int, tokens: int, cost: float, seconds: float) -> None:
        # On the engine thread: plain assignments and counters with locks of their own.
        self.admission.measured(cost, seconds)
        self.metrics.ran(texts, tokens, seconds)


@dataclass(slots=True, kw_only=True)
class Timing:
    """Cost of a request in tokens and seconds, for headers and usage.

    Attributes:
        begun: clock time of the first byte.
        characters, tokens, texts: numbers of each.
        tokenizing, queueing, running: seconds of each step.
    """

    begun: float = field(default_factory=time.perf_counter)
    characters: int = 0
    tokens: int = 0
    texts: int = 0
    tokenizing: float = 0.0
    queueing: float = 0.0
    running: float = 0.0


@dataclass(kw_only=True, eq=False)
class Call:
    """One request on its way: its body, what it reserved, and its answer.

    Attributes:
        state: the server.
        request: the request.
        route: path template of the route, the label in metrics.
        dialect: form of error bodies.
        value: the parsed body, once `load` has read it.
        timing: what it cost.
    """

    state: State
    request: Request
    route: str
    dialect: Dialect
    value: dict[str, Any] = field(default_factory=dict)
    timing: Timing = field(default_factory=Timing)
    _ticket: Ticket = field(default_factory=Ticket)
    _read: bool = False

    async def load(self, *, computes: bool = True) -> None:
        """Read the body, within the limits of bytes and time, and parse it.

        Args:
            computes: whether the request will run texts through the model, for which the queue must have room.

        Raises:
            Refusal: another content type than JSON, a body too large or too slow, or no valid JSON.
        """
        self._check_type()
        self.state.admission.check_size(self.request.headers.get("content-length", ""))
        data = bytearray()
        try:
            async with asyncio.timeout(self.state.limits.read_seconds):
                async for piece in self.request.stream():
                    self.state.admission.read(self._ticket, len(piece))
                    data += piece
        except TimeoutError:
            raise Refusal("timeout", "the body did not arrive in time") from None
        except ClientDisconnect:
            raise Refusal("gone", "the client has gone") from None
        self._read = True
        if computes:
            self.state.admission.check_room(len(data))
        if not data.strip():
            raise Refusal("syntax", "the body is empty; send a JSON object")
        try:
            value = await self.aside(lambda: orjson.loads(data), size=len(data))
        except orjson.JSONDecodeError as error:
            raise Refusal("syntax", f"the body is no valid JSON: {error}") from None
        if not isinstance(value, dict):
            raise Refusal("syntax", f"the body is {_json_name(value)}; expected a JSON object")
        self.value = value

    async def aside(self, function: Callable[[], Result], *, size: int) -> Result:
        """Call a function that works on `size` bytes: small ones here, large ones on a thread."""
        if size <= SMALL:
            return function()
        return await asyncio.get_running_loop().run_in_executor(self.state.wire, function)

    async def compute(self, run: FeatureRun, records: Sequence[Record]) -> dict[str, Feature]:
        """Tokenize texts, queue them, and wait for their results.

        Returns:
            Results of all texts in their order, by the names of the request; the values are finite.

        Raises:
            Refusal: too many texts, too much work, or a full queue.
            LayertapError: a text or a result that cannot be had.
        """
        state, admission = self.state, self.state.admission
        if len(records) > state.limits.texts:
            raise Refusal(
                "too_many",
                f"{len(records):,} texts; a request has at most {state.limits.texts:,}. Send them in several requests",
            )
        size = sum(len(record.text) + len(record.pair or "") for record in records)
        admission.estimate(self._ticket, size, run.run.blocks)
        begun = time.perf_counter()
        texts = await state.tokenizing.prepare(run.run.pipeline, records)
        self.timing.tokenizing += time.perf_counter() - begun
        self.timing.characters += size
        self.timing.texts += len(texts)
        self.timing.tokens += sum(text.longest for text in texts)
        schemas = run.run.pipeline.schemas
        admission.admit(
            self._ticket,
            sum(run.run.cost(text) for text in texts),
            sum(result_bytes(schemas, text.longest) for text in texts),
        )
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Job] = loop.create_future()

        def on_done(job: Job) -> None:
            loop.call_soon_threadsafe(_resolve, done, job)

        def on_cost(cost: float) -> None:
            loop.call_soon_threadsafe(admission.computed, self._ticket, cost)

        job = Job.of(run.run, texts, on_done, on_cost)
        state.batcher.submit(job)
        try:
            await done
        except asyncio.CancelledError:
            state.batcher.cancel(job)
            raise
        if isinstance(job.error, NonFiniteError):
            raise NonFiniteError(
                str(job.error), what=run.names.get(job.error.what, job.error.what), rows=job.error.rows
            )
        if job.error is not None:
            raise job.error
        waited = (job.started or job.queued) - job.queued
        state.metrics.waited(waited)
        self.timing.queueing += waited
        self.timing.running += job.running
        return run.renamed(job.results.features())

    async def answer(
        self,
        pieces: Iterable[bytes],
        *,
        size: int,
        media_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
        length: int | None = None,
    ) -> Answer:
        """Return the answer of the request.

        Args:
            pieces: the body.
            size: its approximate size in bytes, which decides where it is written.
            media_type, headers: as in `Answer`.
            length: exact size in bytes, where it is known.
        """
        streamed = size > STREAMED
        if not streamed:
            whole = await self.aside(lambda: b"".join(pieces), size=size)
            pieces, length = [whole], len(whole)
        return Answer(
            pieces,
            media_type=media_type,
            headers=headers,
            length=length,
            threads=self.state.wire if streamed else None,
            send_seconds=self.state.limits.send_seconds,
            on_sent=self.finish,
        )

    def refuse(self, refusal: Refusal) -> Answer:
        """Return the answer that refuses the request, in the dialect of its route."""
        body = refusal.body(self.dialect)
        self.state.metrics.refused(refusal.kind)
        headers = dict(refusal.headers)
        if self.request.method == "POST" and not self._read:
            headers["connection"] = "close"  # the rest of the body is not read
        return Answer(
            [body], status=refusal.status(self.dialect), headers=headers, length=len(body), on_sent=self.finish
        )

    def finish(self, status: int) -> None:
        """Release what the request reserved, and count it."""
        self.state.admission.release(self._ticket)
        self.state.metrics.answered(self.route, status, time.perf_counter() - self.timing.begun)

    def _check_type(self) -> None:
        given = self.request.headers.get("content-type", "")
        if given.partition(";")[0].strip().lower() != "application/json":
            raise Refusal(
                "media_type",
                f"the content type is {given!r:.80}; send JSON with the header 'Content-Type: application/json'",
            )
        encoding = self.request.headers.get("content-encoding", "identity")
        if encoding.lower() != "identity":
            raise Refusal("media_type", f"bodies are not taken in content encoding {encoding!r:.40}; send plain JSON")


def given_key(authorization: str) -> str | None:
    """Return the key in a header `Authorization`: that of a bearer, or the password of a browser."""
    scheme, _, given = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return given.strip()
    if scheme.lower() != "basic":
        return None
    try:
        _, colon, password = base64.b64decode(given.strip(), validate=True).decode().partition(":")
    except ValueError:
        return None
    return password if colon else None


def _resolve(done: asyncio.Future[Job], job: Job) -> None:
    if not done.done():
        done.set_result(job)


def _json_name(value: object) -> str:
    if value is None or isinstance(value, bool):
        return orjson.dumps(value).decode()
    return {list: "a list", str: "a string", int: "a number", float: "a number"}.get(type(value), "something else")
