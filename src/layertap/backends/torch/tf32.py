"""TF32 in float32 products on CUDA, which torch knows as a setting of the whole process only."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_CHANGED = threading.Condition()
_users = 0
_tf32 = False
_before: tuple[str | None, str] = ("highest", "none")


@contextmanager
def float32_products(*, tf32: bool) -> Iterator[None]:
    """Have float32 products on CUDA use TF32 or not, whatever the process has set, and restore that afterwards.

    Torch reads the setting when it starts a product. Threads that want the same share it; a thread that wants the other
    waits until they have left. Code outside layertap that starts products in the meantime sees this setting.
    """
    _enter(tf32)
    try:
        yield
    finally:
        _leave()


def _enter(tf32: bool) -> None:
    global _users, _tf32, _before
    with _CHANGED:
        _CHANGED.wait_for(lambda: not _users or _tf32 == tf32)
        if not _users:
            _before, _tf32 = _setting(), tf32
            # This function sets both of torch's names for it, which must agree.
            torch.set_float32_matmul_precision("high" if tf32 else "highest")
        _users += 1


def _leave() -> None:
    global _users
    with _CHANGED:
        _users -= 1
        if not _users:
            legacy, precision = _before
            # Where the two names disagreed, torch does not tell the older one; it was the opposite of the newer.
            torch.set_float32_matmul_precision(legacy or ("highest" if precision == "tf32" else "high"))
            torch.backends.cuda.matmul.fp32_precision = precision
            _CHANGED.notify_all()


def _setting() -> tuple[str | None, str]:
    """Return the process's setting by torch's two names; the older one is None where torch refuses to tell it."""
    precision: str = torch.backends.cuda.matmul.fp32_precision
    try:
        return torch.get_float32_matmul_precision(), precision
    except RuntimeError:
        return None, precision
