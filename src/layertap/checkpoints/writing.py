"""Writes the parts of model folders: JSON, the tokenizer's files, and weights as bytes with a dtype."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from layertap.checkpoints.json_file import read_object
from layertap.checkpoints.load import ModelFiles
from layertap.files import StagedFolder
from layertap.safetensors_header import encode_header
from layertap.tensors import TensorView

TOKENIZER_CONFIG = "tokenizer_config.json"
TOKENIZER_FILES = (
    "tokenizer.json",
    TOKENIZER_CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "spm.model",
)


def as_json(content: Mapping[str, Any] | Sequence[Any]) -> bytes:
    """Encode a JSON object or array in a readable layout."""
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def write_tokenizer(files: ModelFiles, folder: StagedFolder, *, max_length: int | None) -> None:
    """Copy the files of the tokenizer; a limit goes into `tokenizer_config.json`, where transformers reads it."""
    for name in TOKENIZER_FILES:
        file = files.checkpoint.file(name)
        if file is not None and (max_length is None or name != TOKENIZER_CONFIG):
            folder.write(name, file.read_bytes())
    if max_length is not None:
        stored = files.checkpoint.file(TOKENIZER_CONFIG)
        settings = {} if stored is None else read_object(stored)
        folder.write(TOKENIZER_CONFIG, as_json(settings | {"model_max_length": max_length}))


def write_tensors(
    folder: StagedFolder, name: str, layout: Mapping[str, Sequence[str]], read: Callable[[str], TensorView]
) -> None:
    """Write a safetensors file, one tensor after the other, so that no other is in memory meanwhile.

    Args:
        folder: folder under construction.
        name: name of the file in it.
        layout: key in the file -> names of the weights under it, which are laid one above the other.
        read: function that reads a weight, of the same shape, dtype and bytes whenever it is called.

    Raises:
        OSError: the file cannot be written.
    """
    shapes = {key: _stacked([read(part) for part in parts]) for key, parts in layout.items()}
    header, order = encode_header(shapes, metadata={"format": "pt"})
    with folder.create(name) as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for key in order:
            for part in layout[key]:
                file.write(read(part).buffer)


def _stacked(parts: Sequence[TensorView]) -> tuple[str, tuple[int, ...]]:
    """Return dtype and shape of tensors that are laid one above the other."""
    dtype, shape = parts[0].dtype, parts[0].shape
    if len(parts) > 1:
        assert {(part.dtype, part.shape[1:]) for part in parts} == {(dtype, shape[1:])}, "parts of a tensor are alike"
        shape = (sum(part.shape[0] for part in parts), *shape[1:])
    return dtype, shape
