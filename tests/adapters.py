"""Small adapters of PEFT's format, written without PEFT."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

RANK = 3
ALPHA = 6


def write_adapter(
    folder: Path,
    base: Path,
    modules: Sequence[str] = ("encoder.layer.1.attention.self.query", "encoder.layer.2.output.dense"),
    *,
    tables: Sequence[str] = (),
    whole: Mapping[str, np.ndarray] | None = None,
    prefix: str = "base_model.model.",
    seed: int = 4,
    **config: Any,
) -> dict[str, np.ndarray]:
    """Write a LoRA adapter of rank 3 and scale 2 for a checkpoint, and return the weights that result from it.

    Args:
        folder: made if absent.
        base: checkpoint with a `model.safetensors` whose keys have no prefix.
        modules: adapted linear layers.
        tables: adapted tables of embeddings.
        whole: weights that the adapter stores whole.
        prefix: of every key.
        seed: of the factors.
        config: further or other fields of `adapter_config.json`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    weights = {key: array.astype(np.float64) for key, array in load_file(base / "model.safetensors").items()}
    stored: dict[str, np.ndarray] = dict(whole or {})
    weights |= {key: array.astype(np.float64) for key, array in (whole or {}).items()}
    for module in (*modules, *tables):
        height, width = weights[f"{module}.weight"].shape
        if module in tables:
            a, b = random.normal(size=(RANK, height)), random.normal(size=(width, RANK))
            stored |= {f"{module}.lora_embedding_A": a, f"{module}.lora_embedding_B": b}
        else:
            a, b = random.normal(size=(RANK, width)), random.normal(size=(height, RANK))
            stored |= {f"{module}.lora_A.weight": a, f"{module}.lora_B.weight": b}
        a, b = a.astype(np.float32).astype(np.float64), b.astype(np.float32).astype(np.float64)
        change = ALPHA / RANK * (b @ a)
        weights[f"{module}.weight"] = weights[f"{module}.weight"] + (change.T if module in tables else change)
    save_file(
        {prefix + key: np.ascontiguousarray(array, dtype=np.float32) for key, array in stored.items()},
        folder / "adapter_model.safetensors",
    )
    fields = {
        "peft_type": "LORA",
        "base_model_name_or_path": str(base),
        "r": RANK,
        "lora_alpha": ALPHA,
        "target_modules": [*modules, *tables],
        "bias": "none",
        **config,
    }
    (folder / "adapter_config.json").write_text(json.dumps(fields))
    return {key: array.astype(np.float32) for key, array in weights.items()}
