from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.machinery import ModuleSpec

import pytest

from layertap.backends import here
from layertap.errors import BackendError

torch = pytest.importorskip("torch")


@pytest.fixture
def threads() -> Iterator[int]:
    before = torch.get_num_threads()
    yield before
    torch.set_num_threads(before)


def nothing_installed(_: str) -> ModuleSpec | None:
    return None


def test_what_torch_has_here() -> None:
    facts = {facts.name: facts for facts in here.installed()}["torch"]
    assert (facts.name, facts.version) == ("torch", torch.__version__)
    assert facts.threads == torch.get_num_threads()
    assert facts.instruction_sets == (torch.backends.cpu.get_cpu_capability(),)
    assert facts.precisions == ("float32", "bfloat16")
    assert list(facts.devices) == ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]


def test_what_the_kernels_have_here() -> None:
    native = pytest.importorskip("layertap.backends.native._native", reason="the native module is not built")
    facts = {facts.name: facts for facts in here.installed()}["native"]
    assert facts.devices == {"cpu": "the processor"}
    assert facts.instruction_sets == tuple(native.instruction_sets())
    assert "avx2" in facts.instruction_sets
    assert facts.precisions[:2] == ("float32", "float32-high")
    for name in facts.instruction_sets:
        assert ("int8" in native.precisions(name)) == (name not in ("avx2", "avx512"))
        assert ("bfloat16" in native.precisions(name)) == ("bf16" in name or "amx" in name)
    assert facts.threads == len(os.sched_getaffinity(0))
    with pytest.raises(ValueError, match="no instruction set 'sse'"):
        native.precisions("sse")


def test_threads_are_set_for_the_process(threads: int) -> None:
    here.set_num_threads(threads + 1)
    assert torch.get_num_threads() == threads + 1


def test_without_torch(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    monkeypatch.setattr(here, "find_spec", nothing_installed)
    assert here.installed() == ()
    here.set_num_threads(threads + 1)  # nothing to set
    assert torch.get_num_threads() == threads
    with pytest.raises(BackendError, match=r"no backend is installed .*: pip install 'layertap\[torch\]'"):
        here.require_torch()
    with pytest.raises(BackendError, match="reading a pickle file needs torch"):
        here.require_torch("reading a pickle file needs torch")


def test_with_torch_nothing_is_refused() -> None:
    here.require_torch()
