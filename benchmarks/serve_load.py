"""Load on an embeddings server: capacity, latency at a share of it, behaviour beyond it; requests in an open loop.

    python -m benchmarks.serve_load --seconds 20                        # starts `layertap serve` by itself
    python -m benchmarks.serve_load --url http://127.0.0.1:9000 --path /v1/embeddings   # any server that runs

An open loop sends requests at fixed times, whether earlier ones are answered or not, as independent clients do; a slow
server does not slow its load down. The generator is niced, uses one core at most, and never repeats a request.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import resource
import subprocess
import sys
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlparse

WORDS = (
    "the",
    "of",
    "a",
    "to",
    "in",
    "film",
    "good",
    "bank",
    "river",
    "was",
    "not",
    "and",
    "on",
    "it",
    "is",
    "for",
    "with",
)
SHARE = 0.8
OVERLOAD = 10


@dataclass(slots=True)
class Outcome:
    """Answers of one phase.

    Attributes:
        statuses: number of answers by status; 0 stands for a connection that failed.
        seconds: time of each answer with status 200.
        texts: number of texts in such answers.
        elapsed: seconds of the phase.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    texts: int = 0
    elapsed: float = 0.0

    def quantile(self, share: float) -> float:
        """Return a quantile of the times in milliseconds."""
        ordered = sorted(self.seconds)
        return 1e3 * ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")

    def __str__(self) -> str:
        counts = ", ".join(f"{count} x {status}" for status, count in sorted(self.statuses.items()))
        return (
            f"{self.texts / self.elapsed:8,.0f} texts/s   p50 {self.quantile(0.5):8.1f} ms   "
            f"p99 {self.quantile(0.99):8.1f} ms   {counts}"
        )


class Client:
    """Minimal HTTP/1.1 client with a pool of connections; its own cost must not limit the server."""

    def __init__(self, url: str, path: str) -> None:
        parsed = urlparse(url)
        self._host, self._port = parsed.hostname or "127.0.0.1", parsed.port or 80
        self._path = path
        self._idle: deque[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = deque()

    async def post(self, body: bytes) -> int:
        """Send a request, and return the status of the answer; 0: the connection failed."""
        head = (
            f"POST {self._path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        try:
            reader, writer = (
                self._idle.pop() if self._idle else await asyncio.open_connection(self._host, self._port, limit=1 << 24)
            )
            writer.write(head.encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: *(\d+)", answer, re.IGNORECASE)
            await reader.readexactly(int(length[1]) if length else 0)
        except (OSError, asyncio.IncompleteReadError):
            return 0
        self._idle.append((reader, writer))
        return int(answer[9:12])

    def close(self) -> None:
        """Close all idle connections."""
        while self._idle:
            self._idle.pop()[1].close()


def bodies(texts: int, words: int, count: int = 64) -> list[bytes]:
    """Return different request bodies, each with as many texts of as many words."""
    made = []
    for number in range(count):
        listed = [
            " ".join(WORDS[(number * 7 + i * 3 + k * (1 + i % 5)) % len(WORDS)] for k in range(words))
            + f" {number} {i}"
            for i in range(texts)
        ]
        made.append(json.dumps({"input": listed, "model": None, "encoding_format": "base64"}).encode())
    return made


async def closed_loop(client: Client, sent: list[bytes], texts: int, clients: int, seconds: float) -> Outcome:
    """Let clients ask one request after the other, and return what they got: the capacity of the server."""
    outcome, begun = Outcome(), time.perf_counter()
    number = 0

    async def ask() -> None:
        nonlocal number
        while time.perf_counter() - begun < seconds:
            number += 1
            await _timed(client, sent[number % len(sent)], texts, outcome)

    await asyncio.gather(*(ask() for _ in range(clients)))
    outcome.elapsed = time.perf_counter() - begun
    return outcome


async def open_loop(client: Client, sent: list[bytes], texts: int, rate: float, seconds: float) -> Outcome:
    """Send requests at a fixed rate, whatever becomes of earlier ones."""
    outcome, begun = Outcome(), time.perf_counter()
    tasks: set[asyncio.Task[None]] = set()
    for number in range(max(1, int(rate * seconds))):
        await asyncio.sleep(max(0.0, begun + number / rate - time.perf_counter()))
        task = asyncio.ensure_future(_timed(client, sent[number % len(sent)], texts, outcome))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    outcome.elapsed = time.perf_counter() - begun
    return outcome


async def _timed(client: Client, body: bytes, texts: int, outcome: Outcome) -> None:
    begun = time.perf_counter()
    status = await client.post(body)
    outcome.statuses[status] += 1
    if status == 200:
        outcome.seconds.append(time.perf_counter() - begun)
        outcome.texts += texts


def resident(process: int) -> float:
    """Return the resident memory of a process in MB."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


async def measure(arguments: argparse.Namespace, url: str, process: int | None) -> None:
    """Run all phases and print them."""
    client = Client(url, arguments.path)
    sent = bodies(arguments.texts, arguments.words)
    await closed_loop(client, sent, arguments.texts, 1, 1.0)
    for clients in (1, 8, 64):
        outcome = await closed_loop(client, sent, arguments.texts, clients, arguments.seconds / 2)
        print(f"closed loop, {clients:2} clients   {outcome}", flush=True)
        if clients == 8:
            capacity = outcome.statuses[200] / outcome.elapsed
    short = await closed_loop(client, bodies(1, 8), 1, 1, arguments.seconds / 2)
    print(f"one short text             {short}", flush=True)
    calm = await open_loop(client, sent, arguments.texts, SHARE * capacity, arguments.seconds)
    print(f"open loop, {SHARE} of {capacity:.1f}/s   {calm}", flush=True)
    before = resident(process) if process else 0.0
    full = await open_loop(client, sent, arguments.texts, OVERLOAD * capacity, arguments.seconds)
    print(f"open loop, {OVERLOAD} times that    {full}")
    if process:
        print(f"memory: {before:.0f} MB before the overload, {resident(process):.0f} MB after it")
    begun = time.perf_counter()
    while await client.post(sent[0]) != 200:
        await asyncio.sleep(0.02)
    ratio = full.quantile(0.99) / calm.quantile(0.99)
    print(f"recovered after {time.perf_counter() - begun:.2f} s; p99 {ratio:.2f} times that at {SHARE} of the capacity")
    client.close()


def main() -> None:
    """Measure a server that runs, or start one."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", help="server that runs (default: start `layertap serve` with the default model)")
    parser.add_argument("--path", default="/v1/embeddings", help="route that takes OpenAI's body")
    parser.add_argument("--texts", type=int, default=32, help="texts a request")
    parser.add_argument("--words", type=int, default=20, help="words a text")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of each phase")
    arguments = parser.parse_args()
    if arguments.url is not None:
        os.nice(10)
        asyncio.run(measure(arguments, arguments.url, None))
        return
    process = subprocess.Popen(
        [sys.executable, "-m", "layertap", "serve", "--port", "0"], stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        match = re.search(r"http://\S+:\d+", process.stderr.readline())
        assert match is not None
        os.nice(10)
        asyncio.run(measure(arguments, match[0], process.pid))
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
