"""Trained parameters, and their learning rates."""

from __future__ import annotations

import math
import re
from typing import Any

import torch

from layertap.learn.finetuning.model import HeadedEncoder
from layertap.learn.finetuning.options import TrainingOptions
from layertap.models.spec import EncoderSpec

BLOCK = re.compile(r"encoder\.encoder\.layer\.(\d+)\.")


def layer_of(name: str, spec: EncoderSpec) -> int:
    """Return the layer of a parameter: 0 for the embeddings, 1..L for the blocks, L + 1 for the pooler and the head.

    A block that several layers share belongs to the highest of them. Relative position tables of all layers belong to
    the embeddings, a convolution to block 1, the norm after the last block to that block.
    """
    layers = spec.num_hidden_layers
    block = BLOCK.match(name)
    if block:
        return max(i + 1 for i in range(layers) if spec.block_of(i) == int(block[1]))
    if name.startswith("encoder.encoder.conv."):
        return 1
    if name.startswith("encoder.encoder.final_norm."):
        return layers
    return layers + 1 if name.startswith(("encoder.pooler.", "head.")) else 0


def freeze(model: HeadedEncoder, below: int) -> None:
    """Freeze the layers below one."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(layer_of(name, model.encoder.spec) >= below)


def optimizer_of(model: HeadedEncoder, options: TrainingOptions) -> torch.optim.AdamW:
    """Return AdamW with two groups per layer: one with weight decay, and one without for biases and norms.

    The learning rate of a group is multiplied by its `scale`.
    """
    layers = model.encoder.spec.num_hidden_layers
    groups: dict[tuple[int, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((layer_of(name, model.encoder.spec), parameter.ndim > 1), []).append(parameter)
    described: list[dict[str, Any]] = [
        {
            "params": parameters,
            "weight_decay": options.weight_decay if decays else 0.0,
            "scale": options.layer_decay ** (layers + 1 - layer),
        }
        for (layer, decays), parameters in groups.items()
    ]
    return torch.optim.AdamW(described, lr=options.learning_rate, betas=(0.9, 0.999), eps=1e-8, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, options: TrainingOptions, step: int, total: int) -> float:
    """Set the learning rates for a step (counted from 0) of `total`, and return that of the head.

    The rate rises from 0 over the warm-up and falls to 0 at the end, like `get_linear_schedule_with_warmup` of
    transformers.
    """
    rising = math.ceil(options.warmup * total)
    share = step / max(1, rising) if step < rising else max(0.0, (total - step) / max(1, total - rising))
    for group in optimizer.param_groups:
        group["lr"] = options.learning_rate * share * group["scale"]
    return options.learning_rate * share
