from __future__ import annotations

import warnings

import numpy as np
import pytest

pytest.importorskip("torch")

from layertap.errors import OutputError
from layertap.files import system
from layertap.files.staging import Staging
from layertap.learn.fitting.buffers import vector_buffers


def test_what_does_not_fit_in_memory_is_in_a_folder_that_goes(tmp_path):
    with vector_buffers(tmp_path, 100) as buffers:
        assert not isinstance(buffers.allocate(1, 2, 3), np.memmap)
        large = buffers.allocate(2, 5, 3)
        assert isinstance(large, np.memmap)
        large[:] = 7
        assert [path.name.startswith(".layertap-vectors.") for path in tmp_path.iterdir()] == [True]
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_goes_too(tmp_path):
    left = Staging(tmp_path, "layertap-vectors")
    left.create("vectors0").write(b"half")
    left.leave()  # as a kill does
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with vector_buffers(tmp_path, 0):
            pass
    assert "4 bytes that a killed run left" in str(told[0].message)
    assert not list(tmp_path.iterdir())


def test_a_disk_without_room_is_reported(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(system, "allocate", full)
    with (
        vector_buffers(tmp_path, 0) as buffers,
        pytest.raises(OutputError, match="120 bytes of vectors: the disk is full"),
    ):
        buffers.allocate(2, 5, 3)
    assert not list(tmp_path.iterdir())
