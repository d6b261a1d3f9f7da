"""Tokenizing: a fixed pool of two threads, shared by requests in small portions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from layertap.engine.pipeline import Pipeline
from layertap.engine.preparing import PreparedText
from layertap.records import Record

THREADS = 2
PORTION_TEXTS = 32
PORTION_CHARACTERS = 1 << 16

Result = TypeVar("Result")


class TokenizingPool:
    """Pool of threads that turn records into prepared texts.

    A request has one portion of its records in the pool at a time, so that a large request does not hold up others. The
    threads of the tokenizers library are off (`TOKENIZERS_PARALLELISM`, set by the command).
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="layertap-tokenizer")

    async def prepare(self, pipeline: Pipeline, records: Sequence[Record]) -> list[PreparedText]:
        """Tokenize the records of a request.

        Raises:
            InputError: a record does not fit the plan.
        """
        prepared: list[PreparedText] = []
        for portion in portions(records):
            prepared += await self.call(partial(_prepared, pipeline, portion))
        return prepared

    async def call(self, function: Callable[[], Result]) -> Result:
        """Run a function on one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)

    def close(self) -> None:
        """Stop the threads; portions that have not begun are dropped."""
        self._threads.shutdown(wait=True, cancel_futures=True)


def _prepared(pipeline: Pipeline, records: Sequence[Record]) -> list[PreparedText]:
    return list(pipeline.preparation.prepare(records))


def portions(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    """Yield the records in portions of a bounded number of texts and characters, at least one text each."""
    begin = characters = 0
    for end, record in enumerate(records):
        size = len(record.text) + len(record.pair or "")
        if end > begin and (end - begin == PORTION_TEXTS or characters + size > PORTION_CHARACTERS):
            yield records[begin:end]
            begin, characters = end, 0
        characters += size
    if begin < len(records):
        yield records[begin:]
