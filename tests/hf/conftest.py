"""Pairs of transformers' and our objects over the same small checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.selection import slow_except

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

FAMILIES = ("bert", "roberta", "xlm-roberta", "camembert")


@pytest.fixture(scope="session", params=slow_except(FAMILIES, "bert", "roberta"))
def family(request) -> str:
    return request.param


@pytest.fixture(scope="session")
def checkpoint(make_checkpoint: Callable[..., Path], tmp_path_factory) -> Callable[..., Path]:
    """One folder a set of arguments, made once a session; do not write into it."""
    made: dict[str, Path] = {}

    def get(model_type: str = "bert", **options: Any) -> Path:
        key = f"{model_type} {sorted(options.items())}"
        if key not in made:
            made[key] = make_checkpoint(tmp_path_factory.mktemp("checkpoint") / model_type, model_type, **options)
        return made[key]

    return get


@pytest.fixture(scope="session")
def models(checkpoint) -> Callable[..., tuple[Any, Any]]:
    """(transformers' model, ours) of one checkpoint, in eval mode, the attention transformers' plainest."""
    from layertap.hf import AutoModel

    made: dict[str, tuple[Any, Any]] = {}

    def get(model_type: str, **options: Any) -> tuple[Any, Any]:
        folder = checkpoint(model_type, **options)
        if str(folder) not in made:
            made[str(folder)] = (
                transformers.AutoModel.from_pretrained(folder, attn_implementation="eager"),
                AutoModel.from_pretrained(folder),
            )
        return made[str(folder)]

    return get
