"""The two compiled modules: one for users, one with the kernels on their own for tests."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

native = pytest.importorskip("layertap.backends.native._native", reason="the native kernels are not built")

SOURCES = Path(__file__).parents[3] / "src"


def test_the_kernels_on_their_own_are_built_in_the_source_tree():
    """Their tests skip where the second module is missing, which must not happen unnoticed."""
    if not Path(native.__file__).is_relative_to(SOURCES):
        pytest.skip("installed from a wheel, which goes without the kernels on their own")
    assert importlib.util.find_spec("layertap.backends.native._native_testing") is not None


def test_users_get_no_kernels_on_their_own():
    names = {name for name in dir(native) if not name.startswith("_")}
    functions = {"instruction_sets", "available_threads", "compiler", "precisions"}
    assert names == {"Encoder", "Capture", "Segments"} | functions
