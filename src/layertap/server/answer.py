"""Answers: bytes that are sent in pieces, each within a time, and accounted for until the last one is sent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

LOG = logging.getLogger("layertap.server")

SMALL = 1 << 16
"""Bytes up to which JSON is read and written on the event loop; larger ones go to a thread."""

STREAMED = 4 << 20
"""Bytes from which an answer is not put together before it is sent, but written piece by piece."""

SENT_BYTES = 1 << 18
"""Bytes that are handed to the connection at once."""


SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}
"""Headers of every answer; a page states a policy of its own."""


class Answer(Response):
    """Response whose body comes in pieces.

    Args:
        pieces: the body.
        status: status code.
        media_type: content type.
        headers: further headers.
        length: bytes of the whole body, or None: the client is not told before the end.
        threads: threads that make the pieces, or None: they are made where they are sent.
        send_seconds: time in which the client must take a part of `SENT_BYTES`.
        on_sent: function called once, with the status, when the last piece is sent or the client has gone.
    """

    def __init__(
        self,
        pieces: Iterable[bytes],
        *,
        status: int = 200,
        media_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
        length: int | None = None,
        threads: Executor | None = None,
        send_seconds: float = 60.0,
        on_sent: Callable[[int], None] | None = None,
    ) -> None:
        self.status_code = status
        self.background = None
        self._pieces: Iterator[bytes] = iter(pieces)
        self._threads = threads
        self._send_seconds = send_seconds
        self._on_sent = on_sent
        named = {"content-type": media_type, **SECURITY_HEADERS, **(headers or {})}
        if length is not None:
            named["content-length"] = str(length)
        self.raw_headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in named.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - of the interface
        """Send the answer; a client that does not take it in time is cut off."""
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            while (piece := await self._next()) is not None:
                for begin in range(0, len(piece), SENT_BYTES):
                    part = piece[begin : begin + SENT_BYTES]
                    async with asyncio.timeout(self._send_seconds):
                        await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            LOG.warning("a client did not take its answer within %g seconds, and was cut off", self._send_seconds)
            raise
        finally:
            if self._on_sent is not None:
                self._on_sent(self.status_code)

    async def _next(self) -> bytes | None:
        if self._threads is None:
            return next(self._pieces, None)
        return await asyncio.get_running_loop().run_in_executor(self._threads, next, self._pieces, None)
