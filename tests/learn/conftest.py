"""Small models, and a count of what runs through them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed (extra: learn)")


@dataclass
class Runs:
    """What the backend was asked for."""

    stops: list[int] = field(default_factory=list)
    sequences: int = 0


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed (extra: torch)")
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory, make_checkpoint: Callable[..., Path]) -> str:
    """A random BERT of 3 layers, hidden size 32, 64 tokens at most."""
    return str(make_checkpoint(tmp_path_factory.mktemp("learn") / "tiny-bert"))


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    """Counts sequences that run through any backend of this process from here on."""
    from layertap.backends.torch.backend import TorchBackend

    count = Runs()
    inner = TorchBackend.run

    def run(self: Any, program: Any, batch: Any, segments: Any) -> Any:
        count.stops.append(program.stop)
        count.sequences += len(batch.cu_seqlens) - 1
        return inner(self, program, batch, segments)

    monkeypatch.setattr(TorchBackend, "run", run)
    return count
