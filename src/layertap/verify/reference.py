"""Run a model of transformers, the reference of all comparisons, on one sequence at a time."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from layertap.errors import BackendError, CheckpointError

OLDEST = (5, 23)
"""Oldest version to compare with: before it, `hidden_states[-1]` was the state before a final norm."""

IntRows = Sequence[npt.NDArray[np.integer]]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outputs:
    """Outputs of a model for B sequences of T tokens in all, laid end to end.

    Attributes:
        states: L + 1 arrays float64 [T, H].
        pooled: float64 [B, H]; None if the model has no pooler.
        unnormed: float64 [T, H], hidden state L before the final norm; None if it was not requested.
    """

    states: list[Float64]
    pooled: Float64 | None
    unnormed: Float64 | None = None


def require_transformers() -> str:
    """Returns the version of transformers, which must be installed and recent enough.

    Raises:
        BackendError: transformers is not installed, or too old.
    """
    advice = "pip install 'layertap[verify]'"
    try:
        version = metadata.version("transformers")
    except metadata.PackageNotFoundError:
        raise BackendError(f"transformers, which models are compared with, is not installed: {advice}") from None
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < OLDEST:
        raise BackendError(
            f"transformers {version} is too old to compare with, since some hidden states have changed their meaning: "
            f"{'.'.join(map(str, OLDEST))} or later is needed: {advice}"
        )
    return version


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Suppresses progress bars and advice of transformers inside the context."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


class Reference:
    """A model of transformers, in eval mode.

    Attributes:
        module: the `PreTrainedModel`.
        final_norm: name of the norm after the last block whose input `outputs` includes, or None.
    """

    def __init__(self, module: Any, final_norm: str | None = None) -> None:
        self.module = module.eval()
        self.final_norm = final_norm

    @classmethod
    def load(cls, folder: Path, *, without: tuple[str, ...] = (), final_norm: str | None = None) -> Reference:
        """Loads a folder with transformers' `AutoModel`, in float32, without network access or code from the folder.

        Args:
            folder: a checkpoint.
            without: prefixes of names of weights that the checkpoint need not have (the pooler's).
            final_norm: name of the norm after the last block, or None.

        Raises:
            CheckpointError: transformers cannot load the folder, or initialises weights that the folder lacks.
        """
        import torch
        from transformers import AutoModel

        try:
            with quiet_transformers():
                module, info = AutoModel.from_pretrained(
                    folder,
                    dtype=torch.float32,
                    local_files_only=True,
                    trust_remote_code=False,
                    output_loading_info=True,
                )
        except Exception as error:  # transformers raises errors of any kind for folders that it cannot load
            first = str(error).strip().splitlines()[:1]
            raise CheckpointError(
                f"{folder}: transformers cannot load it, so there is nothing to compare with: "
                + ": ".join([type(error).__name__, *first])
            ) from error
        missing = sorted(key for key in info["missing_keys"] if not key.startswith(without))
        if missing or info["mismatched_keys"]:
            raise CheckpointError(
                f"{folder}: transformers does not find {', '.join(missing[:5]) or 'weights of the right shape'} there "
                "and puts random numbers in their place: there is nothing to compare with"
            )
        return cls(module, final_norm)

    def copy(self, precision: str, device: str = "cpu") -> Reference:
        """Copies the model in another precision, "float64", "float32", "bfloat16" or "float16", to a device."""
        import torch

        module = copy.deepcopy(self.module).to(device=device, dtype=getattr(torch, precision))
        return Reference(module, self.final_norm)

    def outputs(self, sequences: IntRows, token_types: IntRows | None = None) -> Outputs:
        """Computes every hidden state, the input of `final_norm` and `pooler_output`.

        Sequences run one at a time, so that no output depends on padding.

        Args:
            sequences: B arrays of token ids.
            token_types: B arrays of token types; None for the model's default.
        """
        parts: list[list[Float64]] = []
        pooled: list[Float64] = []
        unnormed: list[Float64] = []
        for i in range(len(sequences)):
            with self._before_final_norm(unnormed):
                outputs = self._run(sequences, token_types, i, output_hidden_states=True)
            parts.append([state[0].double().cpu().numpy() for state in outputs.hidden_states])
            if getattr(outputs, "pooler_output", None) is not None:
                pooled.append(outputs.pooler_output[0].double().cpu().numpy())
        return Outputs(
            states=[np.concatenate(layer) for layer in zip(*parts, strict=True)],
            pooled=np.stack(pooled) if pooled else None,
            unnormed=np.concatenate(unnormed) if unnormed else None,
        )

    @contextmanager
    def _before_final_norm(self, taken: list[Float64]) -> Iterator[None]:
        """Appends the input of the final norm to the list inside the context."""
        if self.final_norm is None:
            yield
            return

        def take(_: Any, inputs: tuple[Any, ...]) -> None:
            taken.append(inputs[0][0].double().cpu().numpy())

        handle = self.module.get_submodule(self.final_norm).register_forward_pre_hook(take)
        try:
            yield
        finally:
            handle.remove()

    def attentions(self, sequences: IntRows, token_types: IntRows | None = None) -> list[list[Float32]]:
        """Computes the probabilities of eager attention: for each sequence L arrays float32 [A, t, t]."""
        usual = self.module.config._attn_implementation
        self.module.set_attn_implementation("eager")
        try:
            runs = (self._run(sequences, token_types, i, output_attentions=True) for i in range(len(sequences)))
            return [[layer[0].float().cpu().numpy() for layer in outputs.attentions] for outputs in runs]
        finally:
            self.module.set_attn_implementation(usual)

    def _run(self, sequences: IntRows, token_types: IntRows | None, i: int, **asked: bool) -> Any:
        """Runs the model on sequence i and returns its output object."""
        import torch

        row = self._row(sequences[i])
        inputs = {"input_ids": row, "attention_mask": torch.ones_like(row)}
        if token_types is not None:
            inputs["token_type_ids"] = self._row(token_types[i])
        with torch.inference_mode():
            return self.module(**inputs, **asked)

    def _row(self, values: npt.NDArray[np.integer]) -> Any:
        import torch

        return torch.as_tensor(values, dtype=torch.long, device=self.module.device)[None]
