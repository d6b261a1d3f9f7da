"""Lock that stays usable in a forked child process."""

from __future__ import annotations

import os
from threading import Lock
from types import TracebackType
from weakref import WeakSet


class ForkSafeLock:
    """Mutual exclusion among the threads of one process, free again in every forked child.

    A fork copies the calling thread only. A plain lock that another thread holds at that moment stays locked in the
    child for ever, since the thread that would release it does not exist there. What such a lock guards must be
    consistent at every moment, because the child continues from whatever the fork has copied: objects are finished
    first and published with one assignment.
    """

    __slots__ = ("__weakref__", "_lock")

    def __init__(self) -> None:
        self._lock = Lock()
        _LOCKS.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lock.release()

    def renew(self) -> None:
        """Replace the lock by a free one; called in a forked child, whose only thread is the caller."""
        self._lock = Lock()


_LOCKS: WeakSet[ForkSafeLock] = WeakSet()


def _renew_all() -> None:
    for lock in list(_LOCKS):
        lock.renew()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_renew_all)
