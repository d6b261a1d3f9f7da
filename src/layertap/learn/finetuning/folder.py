"""The config of a fine-tuned classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from layertap.checkpoints.load import ModelFiles
from layertap.learn.heads.families import FamilyHead

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
