"""Weights as they are stored: a strict, memory-mapped reader of safetensors files.

Format: 8 bytes little-endian N, N bytes of JSON (name -> dtype, shape, data_offsets), then the data. Checked here
as the format's own library does: offsets in the file, contiguous, of the size that dtype and shape say.
"""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from layertap.checkpoints.json_file import read_object
from layertap.errors import WeightsError
from layertap.git_lfs import LONGEST, pointer_in_place
from layertap.models.config import short
from layertap.tensors import TensorView

SAFETENSORS = "model.safetensors"
SAFETENSORS_INDEX = "model.safetensors.index.json"
PICKLE = "pytorch_model.bin"
PICKLE_INDEX = "pytorch_model.bin.index.json"

# bytes a value, under the format's own names
DTYPE_SIZES: dict[str, int] = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E5M2": 1,
    "F8_E4M3": 1,
    "F8_E8M0": 1,
    "F8_E4M3FNUZ": 1,
    "F8_E5M2FNUZ": 1,
    "U16": 2,
    "I16": 2,
    "F16": 2,
    "BF16": 2,
    "U32": 4,
    "I32": 4,
    "F32": 4,
    "U64": 8,
    "I64": 8,
    "F64": 8,
    "C64": 8,
}
MAX_HEADER = 100_000_000  # bytes; the format's own limit


def read_safetensors(path: Path) -> dict[str, TensorView]:
    """Maps a safetensors file and hands over every tensor in it, uncopied.

    The mapping is writable and private: torch wraps it without copying, and what anyone writes to it never
    reaches the file.

    Raises:
        WeightsError: a file that cannot be read, is cut short, or whose header is not as the format says.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if size < 8:
                raise WeightsError(
                    f"{path}: not a safetensors file: expected 8 bytes with the header's length, found {size} in all"
                )
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from error
    data = memoryview(mapped)
    if pointer := pointer_in_place(path, bytes(data[:LONGEST])):
        raise WeightsError(pointer)
    header_size = int.from_bytes(data[:8], "little")
    if header_size > MAX_HEADER:
        raise WeightsError(
            f"{path}: not a safetensors file: expected a header of at most {MAX_HEADER} bytes, found {header_size}"
        )
    if 8 + header_size > size:
        raise WeightsError(
            f"{path}: cut short: expected a header of {header_size} bytes, found {size - 8}; download it again"
        )
    header = _parse_header(path, bytes(data[8 : 8 + header_size]))
    return _views(path, header, data[8 + header_size :])


def _parse_header(path: Path, text: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in pairs:
            if not name.isprintable():
                raise WeightsError(f"{path}: expected printable names in the header, found {name[:60]!r}")
            if name in found:
                raise WeightsError(f"{path}: {name!r}: expected once, found twice in the header")
            found[name] = value
        return found

    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    except WeightsError:
        raise
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
        raise WeightsError(f"{path}: the header is not JSON: {reason}; the file is damaged") from error
    if not isinstance(header, dict):
        raise WeightsError(f"{path}: the header is not a JSON object; the file is damaged")
    header.pop("__metadata__", None)
    return header


def _views(path: Path, header: Mapping[str, Any], data: memoryview) -> dict[str, TensorView]:
    entries = [(*_entry(path, name, value), name) for name, value in header.items()]
    # The format wants the data without gaps and overlaps, from the header to the end of the file.
    expected = 0
    for begin, end, _, _, name in sorted(entries, key=lambda entry: entry[:2]):
        if begin != expected:
            raise WeightsError(
                f"{path}: {name}: expected its data at offset {expected}, found {begin}; the file is damaged"
            )
        expected = end
    if expected != len(data):
        advice = "the file is cut short; download it again" if expected > len(data) else "the file is damaged"
        raise WeightsError(f"{path}: expected {expected} bytes of data, found {len(data)}: {advice}")
    return {name: TensorView(dtype, shape, data[begin:end]) for begin, end, dtype, shape, name in entries}


def _entry(path: Path, name: str, value: Any) -> tuple[int, int, str, tuple[int, ...]]:
    """Begin, end, dtype, shape of one header entry, each checked by itself."""
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise WeightsError(f"{path}: {name}: expected dtype, shape and data_offsets in the header")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_SIZES:
        raise WeightsError(f"{path}: {name}: expected a dtype of {', '.join(DTYPE_SIZES)}, found {_short(dtype)}")
    if not _are_sizes(shape) or len(shape) > 32:
        raise WeightsError(f"{path}: {name}: expected a list of at most 32 sizes as shape, found {_short(shape)}")
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise WeightsError(f"{path}: {name}: expected two ascending data_offsets, found {_short(offsets)}")
    needed = math.prod(shape) * DTYPE_SIZES[dtype]
    if offsets[1] - offsets[0] != needed:
        raise WeightsError(
            f"{path}: {name}: expected {needed} bytes for {dtype} {shape}, found {offsets[1] - offsets[0]}"
        )
    return offsets[0], offsets[1], dtype, tuple(shape)


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**63 for item in value)


def _short(value: Any) -> str:
    # Never repr of anything nested: a hostile header nests as deep as the parser allows.
    items = value if isinstance(value, list) else [value]
    flat = all(item is None or isinstance(item, str | int | float) for item in items)
    return repr(value)[:80] if flat else "something nested"


def read_index(path: Path) -> dict[str, str]:
    """Key -> file name, of `model.safetensors.index.json` or its pickle twin.

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
    """A name that leads nowhere else, is no pattern, and that every file system takes."""
    return file.isprintable() and 0 < len(file) < 256 and file not in {".", ".."} and not set(file) & set("/\\:*?[")


def shard_files(index: Path) -> list[str]:
    """The file names in an index, each once, sorted."""
    return sorted(set(read_index(index).values()))


def no_weights(files: Iterable[str]) -> str:
    """Why none of these files can be loaded as weights, and what to do."""
    names = set(files)
    if names & {PICKLE, PICKLE_INDEX}:
        return (
            f"no {SAFETENSORS}, only {PICKLE}, a pickle file that could run code when read; pass --allow-pickle "
            "(allow_pickle=True) if you trust its source, or convert it to safetensors"
        )
    if "adapter_config.json" in names:
        return "an adapter without its base model; merge the two and save the result"
    others = sorted(
        n for n in names if n.endswith((".safetensors", ".bin", ".h5", ".msgpack", ".onnx", ".pt", ".gguf"))
    )
    found = f"; found {', '.join(others[:5])}, which are not read" if others else ""
    return f"no weights: expected {SAFETENSORS} or {SAFETENSORS_INDEX}{found}"
