"""The result as a Hugging Face folder: config, weights, the tokenizer's files, and how it came about."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from layertap.checkpoints.json_file import read_object
from layertap.checkpoints.load import ModelFiles
from layertap.files import StagedFolder
from layertap.learn.heads.families import FamilyHead

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

LEFT_OUT = (
    "_name_or_path",
    "torch_dtype",
    "num_labels",
    "finetuning_task",
    "problem_type",
    "transformers_version",
)
"""Fields of the original config that do not hold for the result."""


def config_of(files: ModelFiles, head: FamilyHead, labels: Sequence[str]) -> dict[str, Any]:
    """Return the content of `config.json` of a classifier."""
    return {
        **{name: value for name, value in files.config.items() if name not in LEFT_OUT},
        "architectures": [head.transformers_class],
        "model_type": files.architecture.name,
        "id2label": {str(i): label for i, label in enumerate(labels)},
        "label2id": {label: i for i, label in enumerate(labels)},
        **({"problem_type": "single_label_classification"} if head.task == "text" else {}),
        "dtype": "float32",
    }


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


def as_json(content: Mapping[str, Any]) -> bytes:
    """Encode a JSON object in a readable layout."""
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
