"""`TrainingOptions`: the hyperparameters of a training run."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

from layertap.backends.facts import TRAINING_PRECISIONS
from layertap.errors import OptionError
from layertap.learn.labels import LabelEncoder
from layertap.models.spec import EncoderSpec

METRICS = ("accuracy", "macro_f1", "mcc", "entity_f1")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """Hyperparameters of training with AdamW and a learning rate that rises, then falls, linearly.

    Attributes:
        epochs: number of passes over the training data.
        batch_size: records per step of the optimiser; the loss of a step is their mean.
        batch_tokens: maximum number of packed tokens that run through the model at once; a larger step is split into
            parts, whose gradients add up to those of the whole.
        learning_rate: highest learning rate, that of the head and the pooler.
        weight_decay: weight decay of AdamW, applied to everything but biases and norms.
        warmup: share of all steps over which the learning rate rises.
        max_grad_norm: norm to which larger gradients are scaled down; None never scales them.
        layer_decay: block i of L learns with `learning_rate * layer_decay ** (L + 1 - i)`; the embeddings are i = 0.
        freeze_below: layers below this one are not trained: 0 trains everything, 1 freezes the embeddings, L + 1 trains
            the pooler and the head only.
        precision: "float32", or "bfloat16" for matrix products in bfloat16 (autocast) with weights and sums in float32.
        max_length: maximum number of tokens per text; None stands for the limit of the model.
        seed: seed of the order of the data, of new weights and of dropout.
        metric: score on the dev data by which the best checkpoint is chosen; None stands for `entity_f1` if the tags
            mark entities, else `accuracy`.
        eval_steps: number of steps between evaluations on the dev data; None evaluates after every epoch.
        patience: number of evaluations without a better score after which training stops; None never stops it.
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
        if self.precision not in TRAINING_PRECISIONS:
            raise OptionError(f"precision {self.precision!r}: expected {' or '.join(TRAINING_PRECISIONS)}")

    def check_layers(self, spec: EncoderSpec) -> None:
        """Refuse to freeze below a layer that the model does not have, or that shares weights with a frozen one.

        Raises:
            OptionError: `freeze_below` is not possible for the model.
        """
        layers, below = spec.num_hidden_layers, self.freeze_below
        if below > layers + 1:
            raise OptionError(
                f"freeze_below {below}: this model has blocks 1 to {layers}; "
                f"{layers + 1} trains the head (and the pooler) only"
            )
        blocks = [spec.block_of(i) for i in range(layers)]
        borders = [i + 1 for i in range(layers + 1) if set(blocks[:i]).isdisjoint(blocks[i:])]
        if below and below not in borders:
            raise OptionError(
                f"freeze_below {below}: layers of this model share their weights; expected one of "
                f"{', '.join(map(str, [0, *borders]))}"
            )

    def for_task(self, encoder: LabelEncoder) -> TrainingOptions:
        """Return the options with the metric stated.

        Raises:
            OptionError: the metric is that of entities, and the labels mark none.
        """
        if self.metric == "entity_f1" and not encoder.marks_entities:
            raise OptionError(
                "metric 'entity_f1' needs tags of words: O, B-type and I-type; for other labels choose accuracy, "
                "macro_f1 or mcc"
            )
        return replace(self, metric=self.metric or ("entity_f1" if encoder.marks_entities else "accuracy"))

    def check_dev(self, has_dev: bool) -> None:
        """Refuse options that need dev data if there is none.

        Raises:
            OptionError: `eval_steps` or `patience` without dev data.
        """
        asked = [name for name in ("eval_steps", "patience") if getattr(self, name) is not None]
        if asked and not has_dev:
            raise OptionError(f"{asked[0]} needs dev data (--dev FILE), by which checkpoints are compared")


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
