"""Reads weights files: safetensors, one file or shards with an index."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from layertap.checkpoints.json_file import read_object
from layertap.errors import WeightsError
from layertap.git_lfs import LONGEST, pointer_in_place
from layertap.models.config import short
from layertap.safetensors_header import HeaderError, read_header
from layertap.stored_file import StoredFile
from layertap.tensors import TensorView

SAFETENSORS = "model.safetensors"
SAFETENSORS_INDEX = "model.safetensors.index.json"
PICKLE = "pytorch_model.bin"
PICKLE_INDEX = "pytorch_model.bin.index.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StoredTensor:
    """A weight as it lies in a file.

    Attributes:
        file: the weights file, or shard.
        key: its name there; several weights share it where the file holds them as one tensor.
        view: its bytes.
        adapter: weights file of an adapter that is merged into it, or None.
    """

    file: Path
    key: str
    view: TensorView
    adapter: Path | None = None

    def __str__(self) -> str:
        merged = "" if self.adapter is None else f" with {self.adapter} merged into it"
        return f"{self.file}: {self.key}{merged}"


def read_safetensors(path: Path) -> dict[str, TensorView]:
    """Open a safetensors file and return every tensor in it, unread; the file stays open as long as one of them.

    Raises:
        WeightsError: a file that cannot be read, is cut short, or whose header is not as the format says.
    """
    file = StoredFile(path, error=WeightsError)
    if pointer := pointer_in_place(path, bytes(file.read(0, min(file.size, LONGEST)))):
        raise WeightsError(pointer)
    try:
        arrays, _ = read_header(file)
    except HeaderError as error:
        advice = "; download it again" if error.cut_short and file.size >= 8 else ""
        raise WeightsError(f"{path}: {error}{advice}") from error
    return {name: TensorView(entry.dtype, entry.shape, entry.data) for name, entry in arrays.items()}


def read_index(path: Path) -> dict[str, str]:
    """Read key -> file name, from `model.safetensors.index.json` or its pickle twin.

    Raises:
        WeightsError: no `weight_map` of names to plain file names beside the index.
        ConfigError: not a JSON object.
    """
    weight_map = read_object(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise WeightsError(f"{path}: expected a weight_map of keys to file names, found {short(weight_map)}")
    for key, file in weight_map.items():
        if not key.isprintable():
            raise WeightsError(f"{path}: expected printable names in weight_map, found {short(key)}")
        if not isinstance(file, str) or not _is_plain_name(file):
            raise WeightsError(f"{path}: {key}: expected the name of a file beside the index, found {short(file)}")
    return weight_map


def _is_plain_name(file: str) -> bool:
    """Return a name that leads nowhere else, is no pattern, and that every file system takes."""
    return file.isprintable() and 0 < len(file) < 256 and file not in {".", ".."} and not set(file) & set("/\\:*?[")


def shard_files(index: Path) -> list[str]:
    """Return the file names in an index, each once, sorted."""
    return sorted(set(read_index(index).values()))


def pickle_only(safetensors: str, pickle: str) -> str:
    """Say that weights are there as a pickle file only, and what to do."""
    return (
        f"no {safetensors}, only {pickle}, a pickle file that could run code when read; pass --allow-pickle "
        "(allow_pickle=True) if you trust its source, or convert it to safetensors"
    )


def no_weights(files: Iterable[str]) -> str:
    """Say why none of these files can be loaded as weights, and what to do."""
    names = set(files)
    if names & {PICKLE, PICKLE_INDEX}:
        return pickle_only(SAFETENSORS, PICKLE)
    if ADAPTER_CONFIG in names:
        return f"an adapter without its base model: base_model_name_or_path in {ADAPTER_CONFIG} says where that is"
    others = sorted(
        n for n in names if n.endswith((".safetensors", ".bin", ".h5", ".msgpack", ".onnx", ".pt", ".gguf"))
    )
    unread = f"; found {', '.join(others[:5])}, which are not read" if others else ""
    return f"no weights: expected {SAFETENSORS} or {SAFETENSORS_INDEX}{unread}"
