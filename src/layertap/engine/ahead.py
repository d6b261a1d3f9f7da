"""Items of an iterator computed one ahead, in a thread."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T], Iterator[T]):
    """Iterator whose next item is computed in a thread while the current one is in use.

    At most one item waits to be taken. An error of the inner iterator is raised where its item would have been taken.
    `close` stops the thread after the item that it is computing, and does not wait for it: an iterator that reads a
    pipe may wait for input that never comes.
    """

    def __init__(self, items: Iterator[T]) -> None:
        self._items = items
        # Each entry is one item, or the error that ended the iterator, or neither at its end.
        self._computed: SimpleQueue[tuple[list[T], BaseException | None]] = SimpleQueue()
        self._wanted = threading.Semaphore(1)
        self._closed = self._ended = False
        run = contextvars.copy_context().run
        threading.Thread(target=run, args=(self._compute,), name="layertap-ahead", daemon=True).start()

    @property
    def is_ready(self) -> bool:
        """Whether `next` would return, or raise, at once."""
        return self._ended or not self._computed.empty()

    def __next__(self) -> T:
        if self._ended:
            raise StopIteration
        item, error = self._computed.get()
        if item:
            self._wanted.release()
            return item[0]
        self._ended = True
        if error is not None:
            raise error
        raise StopIteration

    def close(self) -> None:
        """Compute no further items."""
        self._closed = self._ended = True
        self._wanted.release()

    def _compute(self) -> None:
        while True:
            self._wanted.acquire()
            if self._closed:
                return
            try:
                item = next(self._items)
            except StopIteration:
                self._computed.put(([], None))
                return
            except BaseException as error:  # raised again in the thread that takes the items
                self._computed.put(([], error))
                return
            self._computed.put(([item], None))
