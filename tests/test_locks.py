from __future__ import annotations

import os
import signal
import threading

import pytest

from layertap.locks import ForkSafeLock


def test_one_thread_at_a_time():
    lock, inside, entered = ForkSafeLock(), threading.Event(), []

    def other():
        inside.set()
        with lock:
            entered.append("other")

    with lock:
        thread = threading.Thread(target=other)
        thread.start()
        assert inside.wait(60)
        entered.append("first")
    thread.join(60)
    assert entered == ["first", "other"]


def test_an_error_releases_it():
    lock = ForkSafeLock()
    with pytest.raises(KeyError), lock:
        raise KeyError
    with lock:
        pass


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_it_is_free_in_a_child_whatever_holds_it_in_the_parent():
    lock, held, release = ForkSafeLock(), threading.Event(), threading.Event()

    def holder():
        with lock:
            held.set()
            release.wait(120)

    thread = threading.Thread(target=holder)
    thread.start()
    assert held.wait(60)
    process = os.fork()
    if process == 0:
        signal.alarm(60)
        with lock:
            os._exit(0)
    assert os.waitpid(process, 0)[1] == 0
    release.set()
    thread.join(60)
