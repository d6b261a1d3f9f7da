"""`TrainingOptions`: everything that decides what a training run comes to."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

from layertap.errors import OptionError
from layertap.learn.tags import Scheme
from layertap.models.spec import EncoderSpec

METRICS = ("accuracy", "macro_f1", "mcc", "entity_f1")
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """How to train: AdamW, a learning rate that rises and then falls linearly, the best checkpoint kept.

    Attributes:
        epochs: how often every record is learned from.
        batch_size: records a step of the optimiser; the loss of a step is their mean.
        batch_tokens: packed tokens that go through the model at once; a step of more than that is taken in parts
            whose gradients add up to the same.
        learning_rate: the highest one, of the head and the pooler.
        weight_decay: AdamW's, of everything but biases and norms.
        warmup: share of all steps over which the learning rate rises.
        max_grad_norm: gradients of a larger norm are scaled down to it; None: never.
        layer_decay: block i of L learns at `learning_rate * layer_decay ** (L + 1 - i)`, the embeddings (i = 0) too.
        freeze_below: embeddings (layer 0) and blocks below this layer stay as they are; 0: everything learns, L + 1:
            only the pooler and the head.
        precision: float32, or bfloat16: matrix products in bfloat16 (autocast), weights and sums in float32.
        max_length: tokens a text at most; None: the model's limit.
        seed: of the order of the data, the new weights and dropout.
        metric: which of the dev part's scores decides what the best checkpoint is; None: `entity_f1` where tags mark
            entities, else `accuracy`.
        eval_steps: look at the dev part every so many steps; None: after every epoch.
        patience: stop after so many looks without a better score; None: never.
    """

    epochs: int = 3
    batch_size: int = 32
    batch_tokens: int = 8192
    learning_rate: float = 5e-5
    weight_decay: float = 0.01
    warmup: float = 0.1
    max_grad_norm: float | None = 1.0
    layer_decay: float = 1.0
    freeze_below: int = 0
    precision: Literal["float32", "bfloat16"] = "float32"
    max_length: int | None = None
    seed: int = 0
    metric: Literal["accuracy", "macro_f1", "mcc", "entity_f1"] | None = None
    eval_steps: int | None = None
    patience: int | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "batch_tokens"):
            _whole(name, getattr(self, name), least=1)
        for name in ("freeze_below", "seed"):
            _whole(name, getattr(self, name), least=0)
        for name in ("eval_steps", "patience", "max_length"):
            if getattr(self, name) is not None:
                _whole(name, getattr(self, name), least=1)
        _number("learning_rate", self.learning_rate, positive=True)
        _number("weight_decay", self.weight_decay)
        _number("warmup", self.warmup, most=1.0)
        _number("layer_decay", self.layer_decay, positive=True, most=1.0)
        if self.max_grad_norm is not None:
            _number("max_grad_norm", self.max_grad_norm, positive=True)
        if self.metric is not None and self.metric not in METRICS:
            raise OptionError(f"metric {self.metric!r}: expected one of {', '.join(METRICS)}")
        if self.precision not in PRECISIONS:
            raise OptionError(f"precision {self.precision!r}: training knows {' and '.join(PRECISIONS)}")

    def check_layers(self, spec: EncoderSpec) -> None:
        """Refuses a layer that the model does not have, or a border between layers that share their weights."""
        layers, below = spec.num_hidden_layers, self.freeze_below
        if below > layers + 1:
            raise OptionError(
                f"freeze_below {below}: this model has blocks 1 to {layers}; "
                f"{layers + 1} leaves only the head (and the pooler) to learn"
            )
        blocks = [spec.block_of(i) for i in range(layers)]
        borders = [i + 1 for i in range(layers + 1) if set(blocks[:i]).isdisjoint(blocks[i:])]
        if below and below not in borders:
            raise OptionError(
                f"freeze_below {below}: layers of this model share their weights, so that it can be "
                f"{', '.join(map(str, [0, *borders]))}"
            )

    def for_task(self, scheme: Scheme | None) -> TrainingOptions:
        """The same with the metric that is meant.

        Raises:
            OptionError: entities are to be scored, and there are none.
        """
        marks_entities = scheme in ("bio", "io")
        if self.metric == "entity_f1" and not marks_entities:
            raise OptionError(
                "metric 'entity_f1' goes with tags O, B-type and I-type of words; for others take accuracy, macro_f1 "
                "or mcc"
            )
        return replace(self, metric=self.metric or ("entity_f1" if marks_entities else "accuracy"))

    def check_dev(self, has_dev: bool) -> None:
        """Refuses what needs a dev part where there is none."""
        asked = [name for name in ("eval_steps", "patience") if getattr(self, name) is not None]
        if asked and not has_dev:
            raise OptionError(f"{asked[0]} goes with a dev part (--dev FILE), which tells one checkpoint from another")


def _whole(name: str, value: Any, *, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise OptionError(f"{name} {value!r}: expected a whole number of at least {least}")


def _number(name: str, value: Any, *, positive: bool = False, most: float = math.inf) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value < 0 or (positive and value == 0) or value > most:
        least = "above 0" if positive else "of at least 0"
        raise OptionError(
            f"{name} {value!r}: expected a number {least}" + ("" if most == math.inf else f" up to {most:g}")
        )
