"""Task of a head: checked datasets, the classes to learn, and the options of the fit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np

from layertap.errors import OptionError
from layertap.learn.arrays import BoolArray
from layertap.learn.fitting.buffers import MEMORY_BYTES
from layertap.learn.fitting.linear import SolverOptions
from layertap.learn.labelled import LabelledDataset, group_numbers, shared_note
from layertap.learn.labels import LabelEncoder, check_labels, listed
from layertap.learn.splitting import LabelledUnits, dataset_units, draw_held_out

ClassWeight: TypeAlias = Literal["balanced"] | Mapping[str, float] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FitOptions:
    """Options of fitting a head.

    Attributes:
        name: name of the results of the head.
        feature: text of the feature; None stands for the default feature of the extractor, and for
            `last_hidden_state.words(mean)` if words are labelled.
        scheme: tagging scheme, or "auto".
        class_weight: weight of an example of each class: "balanced" gives all classes the same total weight, a
            mapping gives weights by label (1 for labels that it does not name), None gives every example the weight 1.
        validation_share: share of the training records to hold out for early stopping; None holds none out.
        solver: options of the optimiser.
        seed: seed of the choice of held-out records.
        memory_bytes: size of the vectors that are kept in memory; larger ones go to a temporary file.
    """

    name: str = "head"
    feature: str | None = None
    scheme: str = "auto"
    class_weight: ClassWeight = None
    validation_share: float | None = None
    solver: SolverOptions = field(default_factory=SolverOptions)
    seed: int = 0
    memory_bytes: int = MEMORY_BYTES

    def __post_init__(self) -> None:
        solver = self.solver
        if not self.name or self.name != self.name.strip():
            raise OptionError(f"name {self.name!r}: expected a name for the results, without spaces around it")
        for what, value in (("l2", solver.l2), ("tolerance", solver.tolerance)):
            if not math.isfinite(value) or value < 0 or (what == "tolerance" and value == 0):
                raise OptionError(f"{what} {value!r}: expected a number above 0" + (", or 0" * (what == "l2")))
        for what, number in (("max_iterations", solver.max_iterations), ("patience", solver.patience)):
            if number < 1:
                raise OptionError(f"{what} {number!r}: expected a whole number of at least 1")
        if self.seed < 0:
            raise OptionError(f"seed {self.seed!r}: expected a whole number of at least 0")
        share = self.validation_share
        if share is not None and not 0 < share < 1:
            raise OptionError(f"validation_share {share!r}: expected a share of the records, above 0 and below 1")
        if isinstance(self.class_weight, str) and self.class_weight != "balanced":
            raise OptionError(f"class_weight {self.class_weight!r}: expected 'balanced', or a weight for each label")
        weights = self.class_weight if isinstance(self.class_weight, Mapping) else {}
        for label, weight in weights.items():
            if not math.isfinite(weight) or weight <= 0:
                raise OptionError(f"class_weight {weight!r} of {label!r}: expected a number above 0")

    def stated(self) -> dict[str, Any]:
        """Return the options as JSON values, for the description of the head."""
        solver = self.solver
        weights = self.class_weight
        return {
            "l2": solver.l2,
            "class_weight": dict(weights) if isinstance(weights, Mapping) else weights,
            "validation_share": self.validation_share,
            "patience": solver.patience,
            "max_iterations": solver.max_iterations,
            "tolerance": solver.tolerance,
            "seed": self.seed,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadTask:
    """Datasets that have been checked against each other, and the classes to learn.

    Attributes:
        train: dataset to learn from.
        validation: dataset for early stopping, or None.
        test: dataset to measure the head on, or None.
        held_out: bool [N], training records held out for validation; None if none are. Copies of a text are held out
            together.
        encoder: classes to learn, and the tagging scheme.
        notes: remarks on the data.
    """

    train: LabelledDataset
    validation: LabelledDataset | None
    test: LabelledDataset | None
    held_out: BoolArray | None
    encoder: LabelEncoder
    notes: tuple[str, ...] = ()


def checked_task(
    train: LabelledDataset, validation: LabelledDataset | None, test: LabelledDataset | None, options: FitOptions
) -> HeadTask:
    """Check datasets and options against each other, before any work is done.

    Raises:
        InputError: labels that nothing can be learned from, or that do not occur in training; see `check_labels`.
        OptionError: options that do not fit the labels.
    """
    if validation is not None and options.validation_share is not None:
        raise OptionError("validation data and a share of the training data are both given; give one of the two")
    others = [dataset.labels for dataset in (validation, test) if dataset is not None]
    encoder = check_labels(train.labels, others, scheme=options.scheme)
    named = options.class_weight if isinstance(options.class_weight, Mapping) else {}
    unknown = sorted(set(named) - set(encoder.classes))
    if unknown:
        raise OptionError(f"class_weight names {listed(unknown)}; expected some of {listed(encoder.classes)}")
    held_out = None
    if options.validation_share is not None:
        units = dataset_units(train, encoder)
        held_out = _held_out(units, train, options.validation_share, options.seed)
    parts = [dataset for dataset in (validation, test) if dataset is not None]
    notes = [note for dataset in (train, *parts) for note in dataset.notes]
    notes += [note for note in (shared_note(part, train) for part in parts) if note]
    return HeadTask(
        train=train,
        validation=validation,
        test=test,
        held_out=held_out,
        encoder=encoder,
        notes=tuple(notes),
    )


def _held_out(units: LabelledUnits, dataset: LabelledDataset, share: float, seed: int) -> BoolArray:
    """Draw the records to validate on, or refuse a share that leaves nothing to learn from or to validate on."""
    drawn = draw_held_out(units, share, seed, least=0)
    if not len(drawn):
        raise OptionError(
            f"validation_share {share}: this share of the {units.counted} of {dataset.source} is none that can "
            "be held out; give a larger share, or validation data"
        )
    left = np.unique(units.classes[~np.isin(units.groups, drawn)])
    gone = [name for label, name in enumerate(units.names) if label not in left]
    if gone:
        raise OptionError(
            f"validation_share {share}: with seed {seed} all examples of {listed(gone)} are held out; give another "
            "seed, a smaller share, or validation data"
        )
    chosen: BoolArray = np.isin(group_numbers(dataset.text_keys), drawn)
    return chosen
