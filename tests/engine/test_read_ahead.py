"""Texts prepared ahead: order, who reads and who prepares, how much, errors in their places, and the end."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

from layertap.engine import preparing, read_ahead
from layertap.engine.read_ahead import ReadAhead
from layertap.errors import InputError
from layertap.records import Record

TEXT = "the film was good"


@pytest.fixture(autouse=True)
def _groups_of_four(monkeypatch):
    monkeypatch.setattr(preparing, "TEXTS_AT_ONCE", 4)


@pytest.fixture
def preparation(extractor):
    return extractor.pipeline(extractor.plan("last_hidden_state.mean")).preparation


def records_of(texts) -> list[Record]:
    return [Record(row=i, text=text) for i, text in enumerate(texts)]


def gated(preparation):
    """Return a preparation whose thread waits, and the event that lets it go on."""
    go_on = threading.Event()

    class Waiting:
        prepare_group = staticmethod(
            lambda records: (
                go_on.wait(300) and list(preparation.prepare_group(records))
                if threading.current_thread() is not threading.main_thread()
                else preparation.prepare_group(records)
            )
        )

    return Waiting(), go_on


@pytest.mark.parametrize("step", [0, 1, 10**6])
def test_texts_are_those_of_plain_preparation(preparation, random_texts, step):
    records = records_of(random_texts(50))
    ahead = ReadAhead(preparation, iter(records))
    found = []
    for text in ahead.texts():
        found.append(text)
        ahead.read(step)
    ahead.close()
    expected = list(preparation.prepare(records))
    assert [text.record for text in found] == records
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.texts[0].input_ids, other.texts[0].input_ids)


def test_records_are_read_by_the_caller_and_prepared_by_a_thread(preparation, monkeypatch):
    readers, preparers = set(), set()

    def records():
        for record in records_of([TEXT] * 40):
            readers.add(threading.current_thread())
            yield record

    kind = type(preparation)
    prepare = kind.prepare_group
    monkeypatch.setattr(
        kind,
        "prepare_group",
        lambda self, group: preparers.add(threading.current_thread().name) or prepare(self, group),
    )
    ahead = ReadAhead(preparation, records())
    ahead.read(10**6)
    assert len(list(ahead.texts())) == 40
    ahead.close()
    assert readers == {threading.main_thread()}
    assert len(preparers) == 1
    assert preparers.pop().startswith("layertap-prepare")


def test_no_more_is_read_than_asked_for_and_one_group_needs_no_thread(preparation):
    taken = []

    def records():
        for record in records_of([TEXT] * 20):
            taken.append(record)
            yield record

    ahead = ReadAhead(preparation, records())
    texts = ahead.texts()
    next(texts)
    assert len(taken) == 4
    threads = threading.active_count()
    ahead.read(0)
    assert len(taken) == 4
    assert threading.active_count() == threads
    ahead.read(len(TEXT) * 5)  # two groups of four
    ahead.read(len(TEXT) * 8)
    assert len(taken) == 12
    assert len(list(texts)) == 19
    ahead.close()


def test_errors_come_where_their_texts_would_have_come(preparation):
    strict = replace(preparation, length_policy=replace(preparation.length_policy, long="error"))

    def records():
        yield from records_of([TEXT] * 6 + ["good " * 100] + [TEXT] * 3)

    ahead = ReadAhead(strict, records())
    ahead.read(10**6)
    texts = ahead.texts()
    assert [next(texts).record.row for _ in range(6)] == list(range(6))
    with pytest.raises(InputError, match="row 6"):
        next(texts)
    ahead.close()


@pytest.mark.parametrize("characters", [0, 10**6])
def test_an_error_of_reading_comes_after_the_groups_before_it(preparation, characters):
    def records():
        yield from records_of([TEXT] * 9)
        raise InputError("line 10 is broken")

    ahead = ReadAhead(preparation, records())
    ahead.read(characters)
    texts = ahead.texts()
    assert [next(texts).record.row for _ in range(8)] == list(range(8))
    with pytest.raises(InputError, match="line 10"):
        next(texts)
    ahead.close()


def test_closing_does_not_wait_for_the_thread(preparation):
    waiting, go_on = gated(preparation)
    ahead = ReadAhead(waiting, records_of([TEXT] * 12))
    ahead.read(10**6)
    ahead.close()  # this test would take a minute if it waited
    assert list(ahead.texts()) == []
    go_on.set()


def test_a_forked_process_prepares_what_the_thread_was_given(preparation, monkeypatch):
    waiting, go_on = gated(preparation)
    ahead = ReadAhead(waiting, records_of([TEXT] * 12))
    ahead.read(len(TEXT) * 8)
    with monkeypatch.context() as child:
        child.setattr(read_ahead.os, "getpid", lambda: -1)
        assert [text.record.row for text in ahead.texts()] == list(range(12))
        ahead.close()
    go_on.set()
    ahead.close()


def test_where_no_thread_can_be_started_the_caller_prepares(preparation, monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    ahead = ReadAhead(preparation, records_of([TEXT] * 12))
    ahead.read(10**6)
    assert [text.record.row for text in ahead.texts()] == list(range(12))
    ahead.close()
