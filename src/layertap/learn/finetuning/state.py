"""State of an interrupted run on disk: one file, which is whole or absent, and the best weights beside it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from layertap.errors import OutputError, UsageError
from layertap.files import make_folder, remove_empty_folder, remove_file, remove_leftovers, write_file

STATE = "state.pt"


class RunFolder:
    """Folder with the state of an unfinished run.

    Args:
        path: path of the folder; it is created when the first state is saved.
        recipe: everything that the result of the run depends on, as JSON values; a run with another recipe is not
            continued.
    """

    def __init__(self, path: Path, recipe: Mapping[str, Any]) -> None:
        self.path = path
        self._recipe = json.loads(json.dumps(recipe))

    def is_there(self) -> bool:
        """Return whether the folder holds an interrupted run.

        Raises:
            UsageError: something that is no folder stands there, so that no state can be kept.
        """
        if os.path.lexists(self.path) and not self.path.is_dir():
            raise UsageError(
                f"{self.path}: the state of the run is kept in a folder of this name, and what stands there is none; "
                "remove it, or name another output"
            )
        return (self.path / STATE).is_file()

    def save(self, state: Mapping[str, Any]) -> None:
        """Save the state of the run in place of the last one, which stays intact until the new one is whole."""
        self._write(self.path / STATE, {"meant_by": json.dumps(self._recipe), **state})
        best = state["best_step"]
        for other in self.path.glob("best-*.pt"):
            if best is None or other != self._best(best):
                remove_file(other)

    def load(self) -> dict[str, Any]:
        """Load the state that was saved last.

        Raises:
            UsageError: the state belongs to a run with other options or data; the message names them.
            OutputError: the file cannot be read.
        """
        file = self.path / STATE
        try:
            state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
            recipe = json.loads(state.pop("meant_by"))
        except Exception as error:  # unpickling damaged bytes can raise nearly anything
            raise OutputError(
                f"{file}: cannot be read ({type(error).__name__}); delete {self.path} and start again"
            ) from error
        if recipe != self._recipe:
            raise UsageError(
                f"{self.path}: the interrupted run differs from this one: {_differences(recipe, self._recipe)}; "
                "continue it with its own options and data, or delete the folder and start again"
            )
        return state

    def save_best(self, step: int, weights: Mapping[str, Tensor]) -> None:
        """Save the weights of a step; they become the best ones when `save` names the step."""
        self._write(self._best(step), {name: weight.detach().cpu() for name, weight in weights.items()})

    def best(self, step: int) -> dict[str, Tensor]:
        """Load the weights of the best step."""
        weights: dict[str, Tensor] = torch.load(self._best(step), map_location="cpu", weights_only=True)
        return weights

    def remove(self) -> None:
        """Remove the state and the weights, and the folder if it holds nothing else."""
        # The state goes first: a folder without one is not an interrupted run.
        for file in (self.path / STATE, *self.path.glob("best-*.pt")):
            remove_file(file)
        remove_leftovers(self.path)
        remove_empty_folder(self.path)

    def _best(self, step: int) -> Path:
        return self.path / f"best-{step}.pt"

    def _write(self, file: Path, content: Mapping[str, Any]) -> None:
        make_folder(self.path)
        try:
            write_file(file, lambda opened: torch.save(dict(content), opened), overwrite=True)
        except RuntimeError as error:  # torch raises it when the disk is full
            raise OutputError(f"{file}: cannot be written: {error}") from error


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    keys = [key for key in (*before, *(key for key in now if key not in before)) if before.get(key) != now.get(key)]
    return ", ".join(f"{key} was {_short(before.get(key))} and is now {_short(now.get(key))}" for key in keys)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:12]}..."
