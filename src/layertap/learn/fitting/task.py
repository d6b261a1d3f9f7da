"""What a head is to learn, and from which records: labels and options, checked before any work is done."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from layertap.errors import OptionError
from layertap.learn.fitting.buffers import MEMORY_BYTES
from layertap.learn.fitting.linear import Training
from layertap.learn.labels import Labels, Part, check_known, check_learnable, check_same_task, listed
from layertap.learn.tags import Scheme, in_scheme, scheme_of

Bools = npt.NDArray[np.bool_]

ClassWeight: TypeAlias = Literal["balanced"] | Mapping[str, float] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FitOptions:
    """How to make a head.

    Attributes:
        name: what the head's results are called.
        feature: text; None: for texts the extractor's default, for words `last_hidden_state.words(mean)`.
        scheme: of tags, or "auto".
        class_weight: what an example of a class counts: "balanced" (each class the same in all), a mapping (those not
            named 1), or None: 1.
        validation_share: of the training records, held out for early stopping; None: none.
        training: of the linear layer.
        seed: of the choice of held-out records.
        memory_bytes: vectors beyond it are kept in a temporary file.
    """

    name: str = "head"
    feature: str | None = None
    scheme: str = "auto"
    class_weight: ClassWeight = None
    validation_share: float | None = None
    training: Training = field(default_factory=Training)
    seed: int = 0
    memory_bytes: int = MEMORY_BYTES

    def __post_init__(self) -> None:
        training = self.training
        if not self.name or self.name != self.name.strip():
            raise OptionError(f"name {self.name!r}: a head's name is what its results are called")
        for what, value in (("l2", training.l2), ("tolerance", training.tolerance)):
            if not math.isfinite(value) or value < 0 or (what == "tolerance" and value == 0):
                raise OptionError(f"{what} {value!r}: expected a number above 0" + (", or 0" * (what == "l2")))
        for what, number in (("max_iterations", training.max_iterations), ("patience", training.patience)):
            if number < 1:
                raise OptionError(f"{what} {number!r}: expected a whole number of at least 1")
        if self.seed < 0:
            raise OptionError(f"seed {self.seed!r}: expected a whole number, 0 or above")
        share = self.validation_share
        if share is not None and not 0 < share < 1:
            raise OptionError(
                f"validation share {share!r}: expected a part of the training records, above 0 and below 1"
            )
        if isinstance(self.class_weight, str) and self.class_weight != "balanced":
            raise OptionError(f"class_weight {self.class_weight!r}: expected balanced, or a weight for each label")
        weights = self.class_weight if isinstance(self.class_weight, Mapping) else {}
        for label, weight in weights.items():
            if not math.isfinite(weight) or weight <= 0:
                raise OptionError(f"class weight {weight!r} of {label!r}: expected a number above 0")

    def stated(self) -> dict[str, Any]:
        """As JSON, for the head."""
        training = self.training
        weights = self.class_weight
        return {
            "l2": training.l2,
            "class_weight": dict(weights) if isinstance(weights, Mapping) else weights,
            "validation_share": self.validation_share,
            "patience": training.patience,
            "max_iterations": training.max_iterations,
            "tolerance": training.tolerance,
            "seed": self.seed,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Parts that have been checked against each other.

    Attributes:
        train, validation, test: what there is of them.
        held_out: bool [N], the training records held out for validation; None: none are.
        scheme: of tags; None where labels are of texts.
        classes: sorted.
    """

    train: Part
    validation: Part | None
    test: Part | None
    held_out: Bools | None
    scheme: Scheme | None
    classes: tuple[str, ...]

    def learnt(self, labels: Labels) -> Labels:
        """Labels as the head learns them."""
        scheme = self.scheme
        return labels if scheme is None else labels.mapped(lambda tag: in_scheme(tag, scheme))


def checked_task(train: Part, validation: Part | None, test: Part | None, options: FitOptions) -> Task:
    """Checks labels before any work is done.

    Raises:
        InputError: nothing can be learnt from the training labels; labels elsewhere that are not among them.
        OptionError: options that do not fit them.
    """
    others = [part.labels for part in (validation, test) if part is not None]
    for labels in others:
        check_same_task(train.labels, labels)
    if train.labels.task == "text" and options.scheme != "auto":
        raise OptionError(
            f"scheme {options.scheme!r} goes with lists of tags, and {train.labels.source} has one label a row"
        )
    if validation is not None and options.validation_share is not None:
        raise OptionError("a validation part and a share of the training part are both given; name one of the two")
    scheme = None if train.labels.task == "text" else scheme_of(train.labels.counts, options.scheme)
    task = Task(train=train, validation=validation, test=test, held_out=None, scheme=scheme, classes=())
    learnt = task.learnt(train.labels)
    classes = check_learnable(learnt)
    for labels in others:
        check_known(task.learnt(labels), classes, trained_on=train.labels.source)
    named = options.class_weight if isinstance(options.class_weight, Mapping) else {}
    unknown = sorted(set(named) - set(classes))
    if unknown:
        raise OptionError(f"class weights for {listed(unknown)}, and the classes are {listed(classes)}")
    held_out = None
    if options.validation_share is not None:
        held_out = _held_out(learnt, options.validation_share, options.seed)
    return replace(task, classes=classes, held_out=held_out)


def drawn_apart(labels: Labels, share: float, seed: int, *, least: int) -> Bools:
    """Records to hold out: of texts the same share of each class, of sentences any; `least` of each, if not all."""
    random = np.random.default_rng(seed)
    count = len(labels.values)
    chosen = np.zeros(count, dtype=bool)
    groups = [np.arange(count)]
    if labels.task == "text":
        own = np.array([value for (value,) in labels.values], dtype=object)
        groups = [np.flatnonzero(own == label) for label in sorted(labels.counts)]
    for rows in groups:
        number = min(max(least, round(share * len(rows))), len(rows) - 1)
        chosen[random.permutation(rows)[:number]] = True
    return chosen


def _held_out(labels: Labels, share: float, seed: int) -> Bools:
    """The records of a validation part."""
    chosen, count = drawn_apart(labels, share, seed, least=0), len(labels.values)
    if not chosen.any():
        raise OptionError(
            f"a validation share of {share} of the {count} rows of {labels.source} is no row; a larger share, or a "
            "validation part of its own"
        )
    left = {label for value, out in zip(labels.values, chosen, strict=True) if not out for label in value}
    gone = sorted(set(labels.counts) - left)
    if gone:
        raise OptionError(
            f"all examples of {listed(gone)} are in the validation share that seed {seed} chooses; another seed, a "
            "smaller share, or a validation part of its own"
        )
    return chosen
