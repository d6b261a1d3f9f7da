"""`layertap --version`."""

from __future__ import annotations

from importlib.metadata import version

import pytest

import layertap
from layertap.backends import here
from layertap.cli import versions as module
from layertap.cli.versions import versions


def stated() -> dict[str, str]:
    """Return the lines below the first one, by name."""
    first, *lines = versions().split("\n")
    assert first == f"layertap {layertap.__version__}"
    return {line.split()[0]: line.split(maxsplit=1)[1] for line in lines}


def test_the_kernels_and_the_libraries_are_named():
    lines = stated()
    assert lines["numpy"] == version("numpy")
    if here.native_absence() is None:
        kernels = here.native_kernels()
        assert lines["native"] == f"{kernels.compiler()}; here {', '.join(kernels.instruction_sets())}"
    else:
        assert lines["native"].startswith("none: ")


def test_what_is_absent_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(here, "native_absence", lambda: "native needs a processor with AVX2")
    monkeypatch.setattr(module, "LIBRARIES", ("numpy", "no-such-library"))
    lines = stated()
    assert lines["native"] == "none: needs a processor with AVX2"
    assert lines["no-such-library"] == "not installed"
