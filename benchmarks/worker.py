"""Run each row in its own process, kept alive and used in turn, so that thread pools do not compete."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.peers import ROWS, Row, Settings, Variant
from benchmarks.peers.batches import FloatArray
from benchmarks.peers.row import Embed
from benchmarks.workload import Workload

# Threads of a pool spin for up to 200 ms after their work before they sleep.
_SETTLE_SECONDS = 0.25
_TUNING_TEXTS = 100
_TUNING_TRIES = 2


class RowFailedError(Exception):
    """Raised when a row cannot run: its library is missing, or does not support the model or the processor."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tuned:
    """Fastest variant of a row on a workload, and its vectors, float32 [N, H]."""

    variant: Variant
    vectors: FloatArray


def limit_threads(threads: int) -> None:
    """Limit the threads of pools that read the environment, in this process and its children."""
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"):
        os.environ[variable] = str(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "true"


def peak_memory_bytes() -> int:
    """Return the peak resident memory of this process (VmHWM; unlike ru_maxrss not inherited from a parent)."""
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RowFailedError("peak memory is read from /proc/self/status, which this system does not have")


def find_row(name: str) -> Row:
    """Find a row by its name."""
    return next(row for row in ROWS if row.name == name)


class _Loaded:
    """State of the worker's process: one set-up of one row at a time."""

    def __init__(self, row: Row, settings: Settings) -> None:
        self._row = row
        self._settings = settings
        self._setup = ""
        self._embed: Embed | None = None

    def _embedder(self, setup: str) -> Embed:
        if self._embed is None or self._setup != setup:
            self._embed = None  # free the old one first
            self._embed = self._row.load(self._settings, setup)
            self._setup = setup
        return self._embed

    def prepare(self) -> None:
        if self._row.prepare is not None:
            self._row.prepare(self._settings)

    def tune(self, workload: Workload) -> Tuned:
        """Choose the fastest variant for a workload, and warm it up on the whole workload."""
        variants = self._row.variants_on(self._settings.device)
        variant = variants[0]
        if len(variants) > 1:
            step = -(-len(workload.texts) // _TUNING_TEXTS)
            sample = workload.texts[::step]
            variant = min(variants, key=lambda each: self._tuning_seconds(each, sample))
        vectors = self._embedder(variant.setup)(workload.texts, variant.batch_size)
        return Tuned(variant=variant, vectors=vectors)

    def run(self, workload: Workload, variant: Variant) -> float:
        """Time the workload once, in seconds."""
        embed = self._embedder(variant.setup)
        start = time.perf_counter()
        for _ in range(workload.repeats):
            embed(workload.texts, variant.batch_size)
        return (time.perf_counter() - start) / workload.repeats

    def latencies(self, workload: Workload, variant: Variant, calls: int) -> list[float]:
        """Time single calls on the workload, in seconds."""
        embed = self._embedder(variant.setup)
        seconds = []
        for _ in range(calls):
            start = time.perf_counter()
            embed(workload.texts, variant.batch_size)
            seconds.append(time.perf_counter() - start)
        return seconds

    def peak_memory(self, workload: Workload) -> int:
        """Return the peak memory in bytes of loading the default variant and running the workload once."""
        variant = self._row.variants_on(self._settings.device)[0]
        self._embedder(variant.setup)(workload.texts, variant.batch_size)
        return peak_memory_bytes()

    def _tuning_seconds(self, variant: Variant, texts: Sequence[str]) -> float:
        embed = self._embedder(variant.setup)
        embed(texts[:8], variant.batch_size)
        seconds = []
        for _ in range(_TUNING_TRIES):
            start = time.perf_counter()
            embed(texts, variant.batch_size)
            seconds.append(time.perf_counter() - start)
        return min(seconds)


def _serve(connection: Connection, row_name: str, settings: Settings) -> None:
    loaded = _Loaded(find_row(row_name), settings)
    while (message := connection.recv()) is not None:
        method, arguments = message
        try:
            answer = getattr(loaded, method)(*arguments)
        except Exception as error:  # whatever a library raises is the row's reason not to run
            connection.send(RowFailedError(_reason(error, settings)))
        else:
            connection.send(answer)


def _reason(error: Exception, settings: Settings) -> str:
    """Shorten an error to one line without folders of this machine, for the report."""
    line = f"{type(error).__name__}: {error}".splitlines()[0]
    return line.replace(str(settings.cache), "CACHE").replace(str(settings.folder), "MODEL")


class Worker:
    """A row in its own process, which ends with the block when used as a context manager."""

    def __init__(self, row: Row, settings: Settings) -> None:
        self.row = row
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process: BaseProcess = context.Process(target=_serve, args=(theirs, row.name, settings), daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the process of the worker."""
        if self._process.is_alive():
            self._connection.send(None)
            self._process.join(timeout=10)
            if self._process.is_alive():
                self._process.kill()
        self._connection.close()

    @property
    def pid(self) -> int:
        """Process id of the worker."""
        assert self._process.pid is not None
        return self._process.pid

    def prepare(self) -> None:
        """Convert the model for this row into the cache."""
        self._ask("prepare")

    def tune(self, workload: Workload) -> Tuned:
        """Choose the row's fastest variant for the workload, and leave it warm."""
        answer = self._ask("tune", workload)
        assert isinstance(answer, Tuned)
        return answer

    def run(self, workload: Workload, variant: Variant) -> float:
        """Time the workload once, in seconds, after the thread pools of the previous row have gone to sleep."""
        time.sleep(_SETTLE_SECONDS)
        return float(self._ask("run", workload, variant))

    def latencies(self, workload: Workload, variant: Variant, calls: int) -> list[float]:
        """Time single calls on the workload, in seconds, after the pools of the previous row have gone to sleep."""
        time.sleep(_SETTLE_SECONDS)
        return [float(seconds) for seconds in self._ask("latencies", workload, variant, calls)]

    def peak_memory(self, workload: Workload) -> int:
        """Return the peak memory in bytes of a fresh process that loads the row and runs the workload once."""
        return int(self._ask("peak_memory", workload))

    def _ask(self, method: str, *arguments: object) -> Any:
        try:
            self._connection.send((method, arguments))
            answer = self._connection.recv()
        except (EOFError, BrokenPipeError) as error:
            raise RowFailedError(f"its process ended (exit code {self._process.exitcode})") from error
        if isinstance(answer, RowFailedError):
            raise answer
        return answer


def prepare_all(rows: Sequence[Row], settings: Settings, say: Callable[[str], None]) -> dict[str, str]:
    """Convert the model for every row that needs it, and return the rows that failed with the reason."""
    failed: dict[str, str] = {}
    for row in rows:
        if row.prepare is None:
            continue
        say(f"{row.name}: converting")
        with Worker(row, settings) as worker:
            try:
                worker.prepare()
            except RowFailedError as error:
                failed[row.name] = str(error)
    return failed
