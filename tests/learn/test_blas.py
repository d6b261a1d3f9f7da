from __future__ import annotations

import os

import numpy as np
import pytest

from layertap.learn.blas import blas_threads, idle_processors

threadpoolctl = pytest.importorskip("threadpoolctl")


def threads() -> list[int]:
    return [pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]


def test_threads_are_bounded_within_the_context_only():
    assert np.ones((4, 4)) @ np.ones(4) is not None
    before = threads()
    if not before:
        pytest.skip("numpy's linear algebra has no threads that are known here")
    with blas_threads(1):
        assert set(threads()) == {1}
    assert threads() == before


@pytest.mark.parametrize(("load", "most", "expected"), [(0.0, None, 8), (6.2, None, 2), (50.0, None, 1), (0.0, 3, 3)])
def test_processors_that_are_busy_are_left_out(monkeypatch, load, most, expected):
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert idle_processors(most) == expected
