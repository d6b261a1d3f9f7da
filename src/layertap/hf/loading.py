"""Steps of `from_pretrained` between finding a checkpoint and returning a model."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from layertap.backends.torch.devices import device_named
from layertap.backends.torch.weights import DTYPES, read_pickle, to_tensor
from layertap.checkpoints.load import ModelFiles, open_model
from layertap.errors import ConfigError, OptionError, WeightsError
from layertap.hf.config import PretrainedConfig, as_dtype, encoder_spec
from layertap.hf.keywords import MODEL_LOADING, refuse_all, refuse_unknown, split_keywords
from layertap.hf.locating import located

DtypeLike: TypeAlias = str | torch.dtype
POOLER = ("pooler.dense.weight", "pooler.dense.bias")

ABSENT = (
    "{name}: the checkpoint stores no pooler, so there is no pooler_output (transformers would give random numbers "
    "here). Use last_hidden_state[:, 0], or the mean of last_hidden_state over the attention mask. "
    "from_pretrained(..., untrained_pooler='init') gives an initialised pooler to train; add_pooling_layer=False "
    "leaves its slot out of the outputs"
)
UNTRAINED = (
    "{name}: the pooler is stored but was never trained (its bias is exactly zero), so pooler_output means little. "
    "Use last_hidden_state[:, 0] or a mean over the attention mask; add_pooling_layer=False leaves it out, and "
    "untrained_pooler='init' says that you are going to train it"
)


def open_files(
    model: str | os.PathLike[str],
    *,
    cache_dir: str | os.PathLike[str] | None,
    local_files_only: bool,
    revision: str | None,
    allow_pickle: bool,
    model_type: str,
) -> ModelFiles:
    """Find and open a checkpoint; one whose config states no family is of `model_type`."""
    checkpoint = located(
        model,
        revision=revision,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        allow_pickle=allow_pickle,
        weights=True,
    )
    return open_model(checkpoint, allow_pickle=allow_pickle, read_pickle=read_pickle, model_type=model_type)


def config_for(
    files: ModelFiles,
    *,
    model_class: str,
    config_class: type[PretrainedConfig],
    config: PretrainedConfig | str | os.PathLike[str] | None,
    keywords: Mapping[str, Any],
    accepted: tuple[str, ...],
) -> PretrainedConfig:
    """Return the config to build a model from: the checkpoint's, with `keywords` set on it, or a copy of a given one.

    Raises:
        ConfigError: the checkpoint belongs to another family; the message names the right class.
        OptionError: a keyword is not supported, is unknown, or is given together with `config`.
    """
    architecture = files.architecture
    if architecture.name != config_class.model_type:
        raise ConfigError(
            f"{files.checkpoint.name}: its model_type is {architecture.name!r}, so {model_class} does not fit: "
            f"use {architecture.transformers_class}, or AutoModel"
        )
    if isinstance(config, PretrainedConfig):
        refuse_all(keywords, MODEL_LOADING, accepted)
        return copy.deepcopy(config)
    if config is not None:
        refuse_all(keywords, MODEL_LOADING, accepted)
        read = config_class.from_pretrained(config)
        assert isinstance(read, PretrainedConfig)
        return read
    made = config_class.from_dict({**files.config, "model_type": architecture.name})
    made.name_or_path = files.checkpoint.name
    fields, unknown = split_keywords(keywords, MODEL_LOADING, made)
    refuse_unknown(unknown, MODEL_LOADING, made, accepted)
    made.update(fields)
    return made


def resolve_dtype(asked: DtypeLike | None, config: PretrainedConfig, files: ModelFiles) -> torch.dtype:
    """Return the dtype of the loaded weights: the requested one, else the config's, else the stored one."""
    if asked is not None and asked != "auto":
        return as_dtype(asked)
    if config.dtype is not None:
        return as_dtype(config.dtype)
    first = next(iter(files.tensors.values()))
    return DTYPES.get(first.view.dtype, torch.float32)  # another stored dtype is refused when it is read


def pooler_to_build(
    files: ModelFiles, *, add_pooling_layer: bool, untrained_pooler: Literal["init"] | None
) -> Literal["stored", "random", "absent", "left out"]:
    """Choose the pooler of a model, with a warning if the stored pooler was never trained."""
    if untrained_pooler not in (None, "init"):
        raise OptionError(f"untrained_pooler: expected None or 'init', found {untrained_pooler!r}")
    if not files.spec.pooler and untrained_pooler:
        raise OptionError(
            f"untrained_pooler: {files.architecture.transformers_class} has no pooler, as in transformers; put a head "
            "of your own on last_hidden_state"
        )
    if not add_pooling_layer or not files.spec.pooler:
        return "left out"
    if files.pooler == "absent":
        return "random" if untrained_pooler else "absent"
    if files.pooler == "untrained" and not untrained_pooler:
        warnings.warn(UNTRAINED.format(name=files.checkpoint.name), UserWarning, stacklevel=3)
    return "stored"


def read_weights(files: ModelFiles, config: PretrainedConfig, *, dtype: torch.dtype, pooler: bool) -> dict[str, Tensor]:
    """Read the weights by canonical name, as copies in `dtype` that stay valid if the file changes.

    Raises:
        WeightsError: a weight is missing, damaged, or has another shape than the config states.
    """
    wanted = {name: shape for name, shape in encoder_spec(config).parameters().items() if pooler or name not in POOLER}
    stored = files.spec.parameters()
    for name, shape in wanted.items():
        if name not in stored:
            raise WeightsError(
                f"{files.checkpoint.name}: the config asks for {config.num_hidden_layers} blocks, and the checkpoint "
                f"has {files.spec.num_hidden_layers}"
            )
        if stored[name] != shape:
            raise WeightsError(
                f"{files.checkpoint.name}: {name}: the config asks for shape {list(shape)}, and the checkpoint has "
                f"{list(stored[name])}"
            )
    return {name: to_tensor(view).to(dtype, copy=True) for name, view in files.weights(wanted).items()}


def device_of(device_map: Any) -> torch.device | None:
    """Return the single device that a `device_map` names.

    Raises:
        OptionError: the map spreads the model over several devices, is "auto", or names another kind of device.
        BackendError: there is no such device.
    """
    if device_map is None:
        return None
    if isinstance(device_map, Mapping) and len(device_map) == 1 and "" in device_map:
        device_map = device_map[""]
    if isinstance(device_map, str | int | torch.device) and device_map not in ("auto", "balanced", "sequential"):
        return device_named(device_map)
    raise OptionError(
        f"device_map={device_map!r}: a model lives on one device; name it, as device_map='cuda' or model.to('cuda')"
    )
