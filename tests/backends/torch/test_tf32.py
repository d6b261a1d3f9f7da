"""The process's setting for float32 products: replaced while a model runs, restored afterwards, shared by threads."""

from __future__ import annotations

import threading

import pytest

torch = pytest.importorskip("torch")

from layertap.backends.torch.tf32 import float32_products  # noqa: E402 - needs torch


@pytest.fixture(autouse=True)
def _restored():
    matmul = torch.backends.cuda.matmul
    yield
    torch.set_float32_matmul_precision("highest")
    matmul.fp32_precision = "none"


def legacy(value: str):
    return lambda: torch.set_float32_matmul_precision(value)


def newer(value: str):
    def set_it() -> None:
        torch.backends.cuda.matmul.fp32_precision = value

    return set_it


@pytest.mark.parametrize("tf32", [True, False])
@pytest.mark.parametrize(
    "users", [legacy("highest"), legacy("high"), legacy("medium"), newer("tf32"), newer("ieee"), lambda: None]
)
def test_whatever_the_process_has_set_is_replaced_and_restored(users, tf32):
    users()
    before = state()
    with float32_products(tf32=tf32):
        assert torch.backends.cuda.matmul.fp32_precision == ("tf32" if tf32 else "ieee")
        assert torch.get_float32_matmul_precision() == ("high" if tf32 else "highest")
    assert state() == before


def state() -> tuple[str | None, str]:
    try:
        one: str | None = torch.get_float32_matmul_precision()
    except RuntimeError:
        one = None
    return one, torch.backends.cuda.matmul.fp32_precision


def test_it_is_restored_after_an_error():
    before = state()
    with pytest.raises(KeyError), float32_products(tf32=True):
        raise KeyError
    assert state() == before


def test_threads_that_want_the_same_share_it_and_others_wait():
    together = threading.Barrier(2)
    seen: list[str] = []

    def share() -> None:
        with float32_products(tf32=True):
            together.wait(60)  # both are inside at once
            seen.append(torch.backends.cuda.matmul.fp32_precision)

    def other() -> None:
        with float32_products(tf32=False):
            seen.append(torch.backends.cuda.matmul.fp32_precision)

    with float32_products(tf32=True):
        waiting = threading.Thread(target=other)
        waiting.start()
        first, second = threading.Thread(target=share), threading.Thread(target=share)
        first.start()
        second.start()
        first.join(60)
        second.join(60)
        assert seen == ["tf32", "tf32"]
        assert waiting.is_alive()
    waiting.join(60)
    assert seen == ["tf32", "tf32", "ieee"]
