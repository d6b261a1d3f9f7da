"""Names of the files of `save_pretrained`, and the writing of weights."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from layertap.errors import OutputError
from layertap.files import StagedFolder

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


def write_weights(folder: StagedFolder, weights: Mapping[str, Tensor]) -> None:
    """Write `model.safetensors` into a folder under construction.

    Raises:
        OutputError: the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    stored = {name: weight.detach().cpu().contiguous() for name, weight in weights.items()}
    try:
        # The library writes each tensor from where it is; a copy of all of them in memory is not needed.
        save_file(stored, folder.path / WEIGHTS_FILE, metadata={"format": "pt"})
        folder.adopt(WEIGHTS_FILE)
    except SafetensorError as error:
        raise OutputError(f"{WEIGHTS_FILE}: cannot be written: {error}") from error
