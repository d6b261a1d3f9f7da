"""Ways to damage a copy of a sound checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

Arrays = dict[str, np.ndarray]
Damage = Callable[[Path], None]


def arrays(edit: Callable[[Arrays], object], file: str = "model.safetensors") -> Damage:
    """Change the arrays of a weights file."""

    def damage(folder: Path) -> None:
        weights = {key: array.copy() for key, array in load_file(folder / file).items()}
        edit(weights)
        save_file(weights, folder / file)

    return damage


def config(**fields: object) -> Damage:
    """Set fields of `config.json`."""

    def damage(folder: Path) -> None:
        values = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(values | fields))

    return damage
