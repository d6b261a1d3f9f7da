"""Copies of results: beside the computation on CUDA, with fakes in place of its streams."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from layertap.backends.torch import fetch as fetch_module  # noqa: E402 - needs torch
from layertap.features.program import Capture  # noqa: E402

CUDA = torch.device("cuda", 0)


def test_results_are_copied_beside_the_computation(monkeypatch):
    """The order of what CUDA is told: each copy waits for its result, and the results for the last copy."""
    told: list[str] = []
    pinned: list[bool] = []

    class Stream:
        def wait_stream(self, _other):
            told.append("copies wait for the computation so far")

    class Event:
        def __init__(self, *, blocking):
            assert blocking

        def record(self, stream):
            assert isinstance(stream, Stream)
            told.append("end")

        def synchronize(self):
            told.append("the caller waits")

    class On:
        def __init__(self, _stream):
            pass

        def __enter__(self):
            told.append("copy")

        def __exit__(self, *_error):
            pass

    empty = torch.empty
    monkeypatch.setattr(
        torch, "empty", lambda *size, **options: pinned.append(options.pop("pin_memory")) or empty(*size, **options)
    )
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda *_: told.append("memory is kept until then"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: "computation")
    monkeypatch.setattr(torch.cuda, "stream", On)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(fetch_module, "_copy_stream", lambda _: Stream())
    fetch = fetch_module.Fetch(CUDA)
    first, second = Capture(layers=(1,)), Capture(layers=(2,))
    fetch.take(first, torch.ones(2, 3, dtype=torch.bfloat16))
    fetch.take(second, torch.zeros(4, 3))
    fetch.end()
    assert told == ["copies wait for the computation so far", "copy", "memory is kept until then"] * 2 + ["end"]
    assert pinned == [True, True]
    results = fetch.results()
    assert told[-1] == "the caller waits"
    assert [results[capture].dtype for capture in (first, second)] == [np.float32] * 2
    np.testing.assert_array_equal(results[first], np.ones((2, 3)))
