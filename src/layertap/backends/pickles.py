"""Reader of legacy pickled weights, which needs torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from layertap.backends.here import require_torch
from layertap.tensors import TensorView


def pickle_reader() -> Callable[[Path], Mapping[str, TensorView]]:
    """Return the function that reads a legacy `pytorch_model.bin`.

    Raises:
        BackendError: torch is not installed.
    """
    require_torch("reading a pickle file needs torch")
    from layertap.backends.torch.weights import read_pickle

    return read_pickle
