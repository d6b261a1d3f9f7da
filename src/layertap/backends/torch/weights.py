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


NESTED = ("state_dict", "model_state_dict", "model", "module")
"""Entries of training checkpoints that hold the weights: of Lightning, plain loops, fairseq and DeepSpeed."""

WORDS = "embeddings.word_embeddings."
BASES = ("bert", "roberta", "distilbert", "electra", "albert", "mpnet", "deberta", "camembert")
"""Names that checkpoints with a head have before those of the encoder."""


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
        raise WeightsError(
            f"{file.name}: not a file of weights only: {str(error).splitlines()[0]}; of a training checkpoint that you "
            "trust, save the weights by themselves (its state_dict)"
        ) from error
    weights = _weights_in(loaded)
    if weights is None:
        raise WeightsError(
            f"{file.name}: expected a mapping of names to tensors, found {_described(loaded)}; of a training "
            "checkpoint, save the weights by themselves (its state_dict)"
        )
    return {key: _view(value) for key, value in weights.items()}


def _weights_in(loaded: object) -> dict[str, Tensor] | None:
    """Return the tensors of a pickled file by name, those of a training checkpoint included, or None."""
    if not isinstance(loaded, dict):
        return None
    if all(isinstance(value, Tensor) for value in loaded.values()):
        return {str(key): value for key, value in loaded.items()}
    nested = next((loaded[name] for name in NESTED if isinstance(loaded.get(name), dict)), None)
    if nested is None or not all(isinstance(value, Tensor) for value in nested.values()):
        return None
    wrapper = _wrapper_of(list(map(str, nested)))
    return {str(key).removeprefix(wrapper): value for key, value in nested.items()}


def _wrapper_of(names: list[str]) -> str:
    """Return what a trainer's wrapper has put before the names of a model (`model.` of `model.bert.encoder...`)."""
    before = next((name.partition(WORDS)[0] for name in names if WORDS in name), "")
    parts = before.split(".")[:-1]
    if parts and parts[-1] in BASES:  # of the checkpoint's own names
        parts.pop()
    return "".join(f"{part}." for part in parts)


def _described(loaded: object) -> str:
    if not isinstance(loaded, dict):
        return f"a {type(loaded).__name__}"
    kinds = {str(key): type(value).__name__ for key, value in loaded.items() if not isinstance(value, Tensor)}
    return "entries of other kinds: " + ", ".join(f"{key} ({kind})" for key, kind in list(kinds.items())[:5])


def _view(tensor: Tensor) -> TensorView:
    flat = tensor.detach().contiguous().reshape(-1)
    names = {dtype: name for name, dtype in DTYPES.items()}
    # A dtype outside the table is passed on by torch's name, for the loader to refuse if it is needed.
    return TensorView(
        names.get(tensor.dtype, str(tensor.dtype).removeprefix("torch.")),
        tuple(tensor.shape),
        flat.view(torch.uint8).numpy().data,
    )
