"""A device that works beside the processor: what overlaps, in which order, and what happens when its memory is full."""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import accumulate

import numpy as np
import pytest

from layertap.backends.base import Backend, OutOfMemoryError
from layertap.engine import pipeline as pipeline_module
from layertap.engine.extractor import Extractor
from layertap.engine.preparing import Preparation
from layertap.errors import BackendError, InputError
from layertap.records import Record


class Device(Backend):
    """A queue that works through batches one at a time; row r of every state is its token's id."""

    name = "device"
    instruction_set = "none"
    overlaps = True

    def __init__(self, hidden_size: int, *, seconds: float = 0.0, copy_seconds: float = 0.0) -> None:
        self.hidden_size, self.seconds, self.copy_seconds = hidden_size, seconds, copy_seconds
        self.queue = ThreadPoolExecutor(1)
        self.holds = 10**9
        self.in_flight = self.most_in_flight = 0
        self.sizes: list[int] = []
        self.worked: list[float] = []

    def work(self) -> None:
        begin = time.perf_counter()
        time.sleep(self.seconds)
        self.worked.append(time.perf_counter() - begin)

    def run(self, program, batch, segments):
        return self.start(program, batch, segments)()

    def start(self, program, batch, segments):
        if batch.num_tokens > self.holds - 1000 * self.in_flight:
            raise OutOfMemoryError("the device ran out of memory")
        self.sizes.append(batch.num_tokens)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        working = self.queue.submit(self.work)

        def fetch():
            working.result()
            self.in_flight -= 1
            time.sleep(self.copy_seconds)
            hidden = np.repeat(batch.input_ids[:, None], self.hidden_size, axis=1).astype(np.float32)
            found = {}
            for capture in program.captures:
                rows = None if capture.segments is None else segments[capture.segments]
                found[capture] = hidden if rows is None else hidden[rows.begin[rows.offsets[:-1]]]
            return found

        return fetch


@pytest.fixture
def make_pipeline(extractor, monkeypatch):
    monkeypatch.setattr(pipeline_module, "CHUNK_BATCHES", 4)

    def make(feature: str, *, batch_tokens: int = 60, **options):
        made = extractor.pipeline(extractor.plan(feature))
        device = Device(extractor.files.spec.hidden_size, **options)
        return replace(made, backend=device, batch_tokens=batch_tokens), device

    return make


def records_of(count: int) -> list[Record]:
    return [Record(row=row, text=f"the film {row}") for row in range(count)]


def in_slow_steps(monkeypatch, seconds: float) -> list[float]:
    """Preparing takes so long for every text; returns the seconds that it took, as they pass."""
    plain = Preparation.prepare
    took: list[float] = []

    def slow(self, records) -> Iterator:
        texts = plain(self, records)
        while True:
            begin = time.perf_counter()
            text = next(texts, None)
            if text is None:
                return
            time.sleep(seconds)
            took.append(time.perf_counter() - begin)
            yield text

    monkeypatch.setattr(Preparation, "prepare", slow)
    return took


def chunks_and_texts(pipeline) -> tuple[int, int]:
    chunks = list(pipeline.prepare(records_of(100)))
    return len(chunks[0]), sum(text.num_tokens for text in chunks[0])


def test_a_chunk_is_prepared_while_the_device_works_on_the_one_before(make_pipeline, monkeypatch):
    """Each waits for the other to have begun: where they took turns, one would wait in vain."""
    pipeline, device = make_pipeline("last_hidden_state.first")
    records = records_of(200)
    sizes = [len(chunk) for chunk in pipeline.prepare(records)]
    ends = list(accumulate(sizes))
    plain = Preparation.prepare
    changed = threading.Condition()
    prepared = worked = 0

    def prepare(self, records) -> Iterator:
        nonlocal prepared
        for text in plain(self, records):
            with changed:
                chunk = bisect_right(ends, prepared)
                prepared += 1
                changed.notify_all()
                # by its second text a chunk is under way: the first one ends the chunk before
                if chunk > 0 and prepared == ends[chunk - 1] + 2:
                    before = ends[chunk - 2] if chunk > 1 else 0
                    assert changed.wait_for(lambda least=before: worked > least, timeout=120), "the device stood still"
            yield text

    def work() -> None:
        nonlocal worked
        with changed:
            end = ends[bisect_right(ends, worked)]
            worked += 1
            changed.notify_all()
            enough = min(end + 2, len(records))
            assert changed.wait_for(lambda: prepared >= enough, timeout=120), "nothing was prepared"

    monkeypatch.setattr(Preparation, "prepare", prepare)
    monkeypatch.setattr(pipeline_module, "batches_of", lambda planned, **_: [[text] for text in planned])
    device.work = work
    batches = list(pipeline.run(records, pipeline.new_summary()))
    assert [len(batch) for batch in batches] == sizes
    assert len(sizes) > 3
    assert worked == prepared == len(records)
    assert device.most_in_flight == 2, "a batch is started before the results of the one before are fetched"


@pytest.mark.stress
@pytest.mark.parametrize("slower", ["device", "processor"])
def test_the_run_takes_as_long_as_the_slower_of_the_two(make_pipeline, monkeypatch, slower):
    """Preparing, computing, copying and writing at once; in turn they would take twice as long. Needs idle cores."""
    chunks, batch_seconds = 14, 0.012
    for _ in range(3):  # another process may have the processor
        pipeline, device = make_pipeline("last_hidden_state.first", seconds=batch_seconds, copy_seconds=0.002)
        texts, _ = chunks_and_texts(pipeline)
        chunk_seconds = 5 * batch_seconds if slower == "device" else 8 * batch_seconds
        with monkeypatch.context() as patch:
            preparing = in_slow_steps(patch, chunk_seconds / (2 if slower == "device" else 1) / texts)
            begin = time.perf_counter()
            for _ in pipeline.run(records_of(chunks * texts), summary := pipeline.new_summary()):
                time.sleep(chunk_seconds / 10)  # the caller writes
            seconds = time.perf_counter() - begin
        assert summary.records == chunks * texts
        slowest = max(sum(device.worked), sum(preparing))
        assert sum(device.worked) + sum(preparing) > 1.35 * slowest
        if seconds <= 1.1 * slowest:
            return
    raise AssertionError(f"{seconds:.2f} s for what the slower of the two does in {slowest:.2f} s")


def test_records_leave_in_order_with_their_own_numbers(make_pipeline, extractor):
    pipeline, device = make_pipeline("hidden_states[1]")
    batches = list(pipeline.run(records_of(130), summary := pipeline.new_summary()))
    assert len(batches) > 2
    assert [record.row for batch in batches for record in batch.records] == list(range(130))
    expected = [text.input_ids for text in extractor.tokenizer.encode([r.text for r in records_of(130)])]
    found = [batch.features["hidden_states[1]"][i] for batch in batches for i in range(len(batch))]
    for values, ids in zip(found, expected, strict=True):
        np.testing.assert_array_equal(values[:, 0], ids)
    assert summary.records == 130
    assert device.most_in_flight == 2


def test_an_error_in_the_input_comes_after_everything_before_it(make_pipeline):
    def broken() -> Iterator[Record]:
        yield from records_of(700)
        raise InputError("line 701 is broken")

    pipeline, device = make_pipeline("last_hidden_state.first")
    done: list[int] = []
    summary = pipeline.new_summary()
    with pytest.raises(InputError, match="line 701"):
        done.extend(len(batch) for batch in pipeline.run(broken(), summary))
    assert 0 < sum(done) == summary.records < 700
    device.overlaps = False
    in_turn: list[int] = []
    with pytest.raises(InputError, match="line 701"):
        in_turn.extend(len(batch) for batch in pipeline.run(broken(), pipeline.new_summary()))
    assert done == in_turn


def test_a_stream_that_is_left_early_stops_reading(make_pipeline):
    taken = 0

    def records() -> Iterator[Record]:
        nonlocal taken
        for row in range(10**6):
            taken += 1
            yield Record(row=row, text=f"the film {row}")

    pipeline, _ = make_pipeline("last_hidden_state.first")
    texts, _ = chunks_and_texts(pipeline)
    stream = pipeline.run(records(), pipeline.new_summary())
    next(stream)
    stream.close()
    time.sleep(0.05)
    seen = taken
    time.sleep(0.05)
    assert taken == seen < 100_000
    assert texts < 100


def test_batches_are_halved_until_they_fit_and_the_summary_says_so(make_pipeline):
    pipeline, device = make_pipeline("last_hidden_state.first", batch_tokens=64)
    device.holds = 1020  # 20 tokens beside another batch, or a whole one alone
    batches = list(pipeline.run(records_of(40), summary := pipeline.new_summary()))
    assert [record.row for batch in batches for record in batch.records] == list(range(40))
    assert summary.reduced_batch_tokens == 0, "a batch that fits alone is not halved"

    device.holds, device.sizes = 20, []
    batches = list(pipeline.run(records_of(40), summary := pipeline.new_summary()))
    assert [record.row for batch in batches for record in batch.records] == list(range(40))
    assert max(device.sizes) <= 20
    assert summary.records == 40
    assert any(f"batches reduced to {summary.reduced_batch_tokens} tokens" in note for note in summary.notes())


def test_a_text_that_never_fits_is_refused_in_words(make_pipeline):
    pipeline, device = make_pipeline("last_hidden_state.first")
    device.holds = 3
    with pytest.raises(BackendError, match=r"ran out of memory, and a single sequence of \d+ tokens does not fit"):
        list(pipeline.run(records_of(4), pipeline.new_summary()))


def test_a_long_text_is_run_fewer_windows_at_a_time(bert_folder, make_pipeline):
    windowed = Extractor.from_pretrained(bert_folder, long="window", window=10, overlap=2)
    _, device = make_pipeline("last_hidden_state.first")
    made = windowed.pipeline(windowed.plan("last_hidden_state.first"))
    pipeline = replace(made, backend=device, batch_tokens=200)
    device.holds = 25
    (batch,) = pipeline.run([Record(row=0, text="the film was good " * 20)], summary := pipeline.new_summary())
    assert len(batch) == 1
    assert max(device.sizes) <= 25
    assert 10 <= summary.reduced_batch_tokens <= 25
