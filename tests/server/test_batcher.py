"""The queue: turns, budgets, equal plans, and errors that stay with their request."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from layertap import Extractor
from layertap.engine.texts import as_records
from layertap.server.batcher import Batcher, Job, PlannedRun

FEATURES = {"v": "last_hidden_state.mean", "t": "hidden_states[1]"}


@pytest.fixture(scope="module")
def extractor(make_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Extractor:
    return Extractor.from_pretrained(make_checkpoint(tmp_path_factory.mktemp("m") / "m"))


@pytest.fixture(scope="module")
def run(extractor) -> PlannedRun:
    return PlannedRun(pipeline=extractor.pipeline(extractor.plan(FEATURES)), blocks=3)


class Waiting:
    """Jobs that are submitted together before the engine thread starts, and the runs that were made of them."""

    def __init__(self, run_tokens: int) -> None:
        self.runs: list[int] = []
        self.ended: list[str] = []
        self._done = threading.Semaphore(0)
        self.batcher = Batcher(run_tokens, lambda texts, *_: self.runs.append(texts))
        self.costs: dict[str, float] = {}
        self._names: list[str] = []

    def submit(self, name: str, run: PlannedRun, texts: list[str]) -> Job:
        prepared = list(run.pipeline.preparation.prepare(as_records(texts)))

        def on_done(_: Job) -> None:
            self.ended.append(name)
            self._done.release()

        def on_cost(cost: float) -> None:
            self.costs[name] = self.costs.get(name, 0) + cost

        self._names.append(name)
        job = Job.of(run, prepared, on_done, on_cost)
        self.batcher.submit(job)
        return job

    def finish(self, jobs: int | None = None) -> None:
        self.batcher.start()
        for _ in range(len(self._names) if jobs is None else jobs):
            assert self._done.acquire(timeout=120)
        self.batcher.close()


def test_texts_of_all_requests_have_their_own_results(extractor, run):
    waiting = Waiting(run_tokens=40)
    texts = {
        "a": ["the bank", "good", "the good bank was good"],
        "b": [""],
        "c": ["was", "the", "bank", "good bank"] * 5,
    }
    jobs = {name: waiting.submit(name, run, own) for name, own in texts.items()}
    waiting.finish()
    assert len(waiting.runs) > 2
    for name, own in texts.items():
        expected = extractor.extract(own, FEATURES)
        results = jobs[name].results.features()
        np.testing.assert_array_equal(results["v"], expected["v"])
        np.testing.assert_array_equal(results["t"].values, expected["t"].values)
        np.testing.assert_array_equal(results["t"].offsets, expected["t"].offsets)
        tokens = sum(len(rows) for rows in expected["t"])
        assert waiting.costs[name] == pytest.approx(3 * tokens)


def test_a_large_request_does_not_hold_the_line(run):
    waiting = Waiting(run_tokens=32)
    waiting.submit("large", run, ["the good bank"] * 60)
    for name in ("x", "y", "z"):
        waiting.submit(name, run, ["good"])
    waiting.finish()
    assert waiting.ended[-1] == "large"
    assert sorted(waiting.ended[:3]) == ["x", "y", "z"]
    assert waiting.runs[0] >= 4  # one text of each in the first run


def test_only_equal_plans_share_a_run(extractor, run):
    other = PlannedRun(pipeline=extractor.pipeline(extractor.plan({"v": "hidden_states[0].mean"})), blocks=1)
    waiting = Waiting(run_tokens=1000)
    waiting.submit("a", run, ["good"])
    waiting.submit("b", other, ["good"])
    waiting.submit("c", run, ["bank"])
    waiting.finish()
    assert waiting.runs == [2, 1]


def test_an_error_is_its_requests_alone(run, monkeypatch):
    inner = type(run.pipeline).run_chunk

    def failing(self, texts, on_batch=None):
        if any("was" in text.record.text for text in texts):
            raise MemoryError
        return inner(self, texts, on_batch)

    monkeypatch.setattr(type(run.pipeline), "run_chunk", failing)
    waiting = Waiting(run_tokens=1000)
    jobs = [waiting.submit(text, run, [text, "good"]) for text in ("the", "was", "bank")]
    waiting.finish()
    assert [type(job.error) for job in jobs] == [type(None), MemoryError, type(None)]
    assert jobs[0].results.features()["v"].shape == (2, 32)
    assert set(waiting.costs) == {"the", "was", "bank"}


def test_a_cancelled_request_is_not_run(run):
    waiting = Waiting(run_tokens=8)
    gone = waiting.submit("gone", run, ["good bank"] * 50)
    waiting.submit("stays", run, ["good"])
    waiting.batcher.cancel(gone)
    waiting.finish(jobs=1)
    assert waiting.ended == ["stays"]
    assert sum(waiting.runs) == 1
