"""Items computed one ahead: order, bound, errors, and an end that waits for nobody."""

from __future__ import annotations

import threading

import pytest

from layertap.engine.ahead import Ahead


def test_items_come_in_order_and_at_most_one_is_computed_ahead():
    taken = []
    computed = threading.Semaphore(0)

    def items():
        for i in range(5):
            taken.append(i)
            yield i
            computed.release()

    ahead = Ahead(items())
    assert next(ahead) == 0
    assert computed.acquire(timeout=60)  # item 0 is done with, and item 1 computed
    while not ahead.is_ready:
        pass
    assert taken == [0, 1]
    assert list(ahead) == [1, 2, 3, 4]
    assert ahead.is_ready
    with pytest.raises(StopIteration):
        next(ahead)


def test_an_error_comes_where_its_item_would_have_come():
    def items():
        yield 1
        raise KeyError("broken")

    ahead = Ahead(items())
    assert next(ahead) == 1
    with pytest.raises(KeyError, match="broken"):
        next(ahead)
    assert list(ahead) == []


def test_closing_does_not_wait_for_an_item_that_never_comes():
    never = threading.Event()
    asked = threading.Event()

    def items():
        yield 1
        asked.set()
        never.wait(300)
        yield 2

    ahead = Ahead(items())
    assert next(ahead) == 1
    assert asked.wait(60)
    ahead.close()  # this test would take minutes if it waited
    assert list(ahead) == []
    never.set()
