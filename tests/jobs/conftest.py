"""Ray, for one test of this machine at a time."""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def one_ray_at_a_time() -> Iterator[None]:
    """Wait for the clusters that tests in other processes of pytest have started; each takes several processes."""
    with (Path(tempfile.gettempdir()) / "layertap-tests-of-ray.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
