"""What a killed run goes on from: one file, whole or not there, and the best weights beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from layertap.errors import OutputError, UsageError
from layertap.files import make_folder, remove_empty_folder, remove_file, remove_leftovers, write_file

STATE = "state.pt"


class RunFolder:
    """The folder of an unfinished run.

    Args:
        path: where it is; made when there is something to keep.
        meant_by: what decides the run's result, as JSON has it; another run is not gone on with.
    """

    def __init__(self, path: Path, meant_by: Mapping[str, Any]) -> None:
        self.path = path
        self._meant_by = json.loads(json.dumps(meant_by))

    def is_there(self) -> bool:
        """Whether a run was left unfinished."""
        return (self.path / STATE).is_file()

    def save(self, state: Mapping[str, Any]) -> None:
        """Keeps the state of a run: beside the last one first, and then in its place."""
        self._write(self.path / STATE, {"meant_by": json.dumps(self._meant_by), **state})
        best = state["best_step"]
        for other in self.path.glob("best-*.pt"):
            if best is None or other != self._best(best):
                remove_file(other)

    def load(self) -> dict[str, Any]:
        """The state that was kept last.

        Raises:
            UsageError: it is of a run with other options or data; says which.
            OutputError: a file that cannot be read.
        """
        file = self.path / STATE
        try:
            state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
            meant_by = json.loads(state.pop("meant_by"))
        except Exception as error:  # unpickling damaged bytes can raise nearly anything
            raise OutputError(
                f"{file}: cannot be read ({type(error).__name__}); delete {self.path} and begin again"
            ) from error
        if meant_by != self._meant_by:
            raise UsageError(
                f"{self.path}: the interrupted run is another one: {_differences(meant_by, self._meant_by)}; go on "
                "with what it was started with, or delete the folder and begin again"
            )
        return state

    def save_best(self, step: int, weights: Mapping[str, Tensor]) -> None:
        """Keeps the weights of a step; they count once `save` names the step."""
        self._write(self._best(step), {name: weight.detach().cpu() for name, weight in weights.items()})

    def best(self, step: int) -> dict[str, Tensor]:
        """The weights of the best step."""
        found: dict[str, Tensor] = torch.load(self._best(step), map_location="cpu", weights_only=True)
        return found

    def remove(self) -> None:
        """Removes what was kept, and the folder if nothing else is in it."""
        # First the state: a folder without one is no interrupted run.
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
        except RuntimeError as error:  # what torch makes of a full disk
            raise OutputError(f"{file}: cannot be written: {error}") from error


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    keys = [key for key in (*before, *(key for key in now if key not in before)) if before.get(key) != now.get(key)]
    return ", ".join(f"{key} was {_short(before.get(key))} and is now {_short(now.get(key))}" for key in keys)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:12]}..."
