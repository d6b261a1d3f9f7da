"""The table of backends, against what the backends themselves do."""

from __future__ import annotations

import pytest

from layertap.backends.facts import ROWS, only_backend_with, row_of
from layertap.errors import OptionError


def test_devices_of_one_kind_have_one_row():
    assert row_of("torch", "cuda:1") is row_of("torch", "cuda")
    assert row_of("torch", "cpu") is not row_of("torch", "cuda")
    with pytest.raises(OptionError, match=r"^device 'cuda:0': the native backend runs on cpu only$"):
        row_of("native", "cuda:0")


def test_precisions_of_one_backend():
    names = ("int8", "float32-high", "float16")
    assert [only_backend_with(name, "cpu") for name in names] == ["native", "native", "torch"]
    assert [only_backend_with(name, "cuda:1") for name in names] == ["native", "torch", "torch"]
    assert only_backend_with("float32", "cpu") is only_backend_with("fp32", "cpu") is None


def test_the_native_row_is_what_the_kernels_have():
    native = pytest.importorskip("layertap.backends.native._native", reason="the native module is not built")
    row = row_of("native", "cpu")
    for name in native.instruction_sets():
        assert set(native.precisions(name)) <= set(row.precisions)


def test_torch_takes_the_precisions_of_its_row_and_no_other(tiny_spec):
    backend = pytest.importorskip("layertap.backends.torch.backend", reason="torch is not installed")
    for precision in {name for row in ROWS for name in row.precisions}:
        if precision in row_of("torch", "cpu").precisions:
            opened = backend.TorchBackend(tiny_spec, dict, precision=precision)
            assert opened.batch_tokens == row_of("torch", "cpu").batch_tokens
        else:
            with pytest.raises(OptionError):
                backend.TorchBackend(tiny_spec, dict, precision=precision)
