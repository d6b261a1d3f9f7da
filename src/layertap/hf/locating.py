"""Finds what `from_pretrained` is given, a folder or a hub id."""

from __future__ import annotations

import os

from layertap.checkpoints.source import Checkpoint, locate
from layertap.errors import OptionError


def located(
    model: str | os.PathLike[str],
    *,
    cache_dir: str | os.PathLike[str] | None,
    local_files_only: bool,
    revision: str | None,
    allow_pickle: bool = False,
    weights: bool = False,
) -> Checkpoint:
    """Find a model's files as `locate`, which takes None for the default model; here a model has to be named.

    Raises:
        OptionError: no name and no path. transformers takes None for a model without a checkpoint.
    """
    if not isinstance(model, str | os.PathLike):
        raise OptionError(
            f"pretrained_model_name_or_path={model!r}: expected a folder or a hub id; without a checkpoint, build the "
            "model from its config: BertModel(config), for example"
        )
    return locate(
        model,
        revision=revision,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        allow_pickle=allow_pickle,
        weights=weights,
    )
