"""Threads of the libraries of linear algebra that numpy, scipy and scikit-learn call."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def blas_threads(number: int) -> Iterator[None]:
    """Bound the threads of BLAS within a context, for the whole process.

    Threads of OpenBLAS wait for each other without giving up their processor. On a machine that does other work, too,
    a product of small matrices with many threads takes a hundred times as long as with one.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=number, user_api="blas"):
        yield


def idle_processors(most: int | None = None) -> int:
    """Return the number of processors that other work leaves free: at least 1, and at most `most`."""
    try:
        busy = os.getloadavg()[0]
        available = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # not on this system
        return 1
    free = max(1, round(available - busy))
    return free if most is None else min(free, most)
