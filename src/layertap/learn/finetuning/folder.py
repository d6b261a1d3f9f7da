"""The result as a Hugging Face folder: config, weights, the tokenizer's files, and how it came about."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from layertap.checkpoints.json_file import read_object
from layertap.checkpoints.load import ModelFiles
from layertap.errors import OutputError, UsageError
from layertap.learn.heads.families import FamilyHead

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "spm.model",
)

LEFT_OUT = (
    "_name_or_path",
    "torch_dtype",
    "num_labels",
    "finetuning_task",
    "problem_type",
    "transformers_version",
)
"""Fields of the first config that are not true of the result."""


def check_output(folder: Path) -> None:
    """Refuses a place that cannot be written, or where something is.

    Raises:
        UsageError: something is there.
        OutputError: its parent is no folder, or cannot be written.
    """
    if folder.exists() or folder.is_symlink():
        raise UsageError(f"{folder}: is there already; name another folder, or remove it")
    parent = folder.absolute().parent
    if not parent.is_dir():
        raise OutputError(f"{folder}: {parent} is not a folder; make it first")
    if not os.access(parent, os.W_OK):
        raise OutputError(f"{folder}: {parent} cannot be written")


def config_of(files: ModelFiles, head: FamilyHead, labels: Sequence[str]) -> dict[str, Any]:
    """`config.json` of a classifier."""
    return {
        **{name: value for name, value in files.config.items() if name not in LEFT_OUT},
        "architectures": [head.transformers_class],
        "model_type": files.architecture.name,
        "id2label": {str(i): label for i, label in enumerate(labels)},
        "label2id": {label: i for i, label in enumerate(labels)},
        **({"problem_type": "single_label_classification"} if head.task == "text" else {}),
        "dtype": "float32",
    }


def copy_tokenizer(files: ModelFiles, folder: Path, *, max_length: int | None) -> None:
    """Copies the tokenizer's files; a limit goes into `tokenizer_config.json`, where transformers looks for it."""
    for name in TOKENIZER_FILES:
        file = files.checkpoint.file(name)
        if file is not None:
            shutil.copyfile(file, folder / name)
    if max_length is not None:
        place = folder / "tokenizer_config.json"
        settings = read_object(place) if place.is_file() else {}
        write_json(place, settings | {"model_max_length": max_length})


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON object for people to read."""
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_weights(file: Path, weights: Mapping[str, Tensor]) -> None:
    """Writes `model.safetensors`."""
    from safetensors.torch import save_file

    save_file({name: weight.detach().cpu().contiguous() for name, weight in weights.items()}, file, {"format": "pt"})


class NewFolder:
    """A folder that appears under its name when it is whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial = path.absolute().with_name(f".{path.name}.{os.getpid()}.part")

    def __enter__(self) -> Path:
        shutil.rmtree(self._partial, ignore_errors=True)
        try:
            self._partial.mkdir()
        except OSError as error:
            raise OutputError(f"{self._path}: cannot be written: {error.strerror}") from error
        return self._partial

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if error is None:
            try:
                self._partial.rename(self._path)
                return
            except OSError as fault:
                error = fault
        shutil.rmtree(self._partial, ignore_errors=True)
        if isinstance(error, OSError) and not isinstance(error, OutputError):
            raise OutputError(f"{self._path}: cannot be written: {error}") from error
