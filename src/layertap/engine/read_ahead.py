"""Texts prepared in a thread while others run, from records that are read in the caller's thread."""

from __future__ import annotations

import contextvars
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias

from layertap.engine.preparing import Preparation, PreparedText, characters_of, groups_of
from layertap.records import Record

Prepared: TypeAlias = tuple[list[PreparedText], Exception | None]
"""Prepared texts of a group of records, and the error at the record after them."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Group:
    """Records that have been read; `prepared` is None where the thread was not given them."""

    records: list[Record]
    characters: int
    prepared: Future[Prepared] | None


class ReadAhead:
    """Prepared texts of records in their order; `read` lets a thread prepare those that come next.

    The records are read in the thread that calls `read` or iterates over `texts`, as an iterator of a user requires.
    An error, of a record or of reading, is raised where its text would have come. A process that was forked in between
    prepares the texts itself.

    Args:
        preparation: conversion of records to texts.
        records: the records.
    """

    def __init__(self, preparation: Preparation, records: Iterable[Record]) -> None:
        self._preparation = preparation
        self._groups = groups_of(records)
        self._read: deque[_Group] = deque()
        self._characters = 0  # of the groups in `_read`
        self._error: Exception | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._process = os.getpid()

    def read(self, characters: int) -> None:
        """Read records until those whose texts have not been taken hold this many characters, or none is left."""
        while self._characters < characters:
            records = self._next_group()
            if records is None:
                return
            own = sum(map(characters_of, records))
            self._read.append(_Group(records=records, characters=own, prepared=self._start(records)))
            self._characters += own

    def texts(self) -> Iterator[PreparedText]:
        """Yield the texts; those whose records have not been read are prepared here.

        Raises:
            InputError: as `Preparation.prepare`.
        """
        while True:
            if self._read:
                group = self._read.popleft()
                self._characters -= group.characters
                if group.prepared is not None and os.getpid() == self._process:
                    texts, error = group.prepared.result()
                else:
                    texts, error = self._prepare(group.records)
                yield from texts
                if error is not None:
                    raise error
            else:
                records = self._next_group()
                if records is None:
                    break
                yield from self._preparation.prepare_group(records)
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Prepare no further texts; the group that the thread is working on is not waited for."""
        self._read.clear()
        if self._thread is not None and os.getpid() == self._process:
            self._thread.shutdown(wait=False, cancel_futures=True)

    def _next_group(self) -> list[Record] | None:
        """Read some records; None at their end, and at an error of reading, which is kept."""
        if self._error is not None:
            return None
        try:
            return next(self._groups, None)
        except Exception as error:
            self._error = error
            return None

    def _start(self, records: list[Record]) -> Future[Prepared] | None:
        if os.getpid() != self._process:
            return None
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="layertap-prepare")
        try:
            return self._thread.submit(contextvars.copy_context().run, self._prepare, records)
        except RuntimeError:  # no thread can be started: too many, or the interpreter is ending
            return None

    def _prepare(self, records: list[Record]) -> Prepared:
        texts: list[PreparedText] = []
        try:
            for text in self._preparation.prepare_group(records):
                texts.append(text)  # noqa: PERF402 - those before an error are kept
        except Exception as error:
            return texts, error
        return texts, None
