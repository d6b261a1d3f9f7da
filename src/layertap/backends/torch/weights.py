"""Conversion of stored weights to torch tensors, and the reader of the legacy pickled format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from layertap.errors import WeightsError
from layertap.git_lfs import LONGEST, pointer_in_place
from layertap.tensors import TensorView

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}


def to_tensor(stored: TensorView) -> Tensor:
    """Return a stored tensor in its dtype; it shares memory with a writable buffer and is a copy of a read-only one."""
    buffer = stored.buffer if not stored.buffer.readonly else bytearray(stored.buffer)
    return torch.frombuffer(buffer, dtype=DTYPES[stored.dtype]).view(stored.shape)


def read_pickle(file: Path) -> Mapping[str, TensorView]:
    """Read a `pytorch_model.bin` with torch's weights-only unpickler, which runs no code of the file.

    Raises:
        WeightsError: the file is damaged, or holds anything but tensors.
    """
    try:
        with file.open("rb") as opened:
            start = opened.read(LONGEST)
    except OSError as error:
        raise WeightsError(f"{file}: cannot be read: {error.strerror}") from error
    if pointer := pointer_in_place(file, start):
        raise WeightsError(pointer)
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling damaged bytes can raise nearly anything
        raise WeightsError(f"{file.name}: not a file of weights only: {str(error).splitlines()[0]}") from error
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise WeightsError(f"{file.name}: expected a mapping of names to tensors, found {type(loaded).__name__}")
    return {str(key): _view(value) for key, value in loaded.items()}


def _view(tensor: Tensor) -> TensorView:
    flat = tensor.detach().contiguous().reshape(-1)
    names = {dtype: name for name, dtype in DTYPES.items()}
    # A dtype outside the table is passed on by torch's name, for the loader to refuse if it is needed.
    return TensorView(
        names.get(tensor.dtype, str(tensor.dtype).removeprefix("torch.")),
        tuple(tensor.shape),
        flat.view(torch.uint8).numpy().data,
    )
