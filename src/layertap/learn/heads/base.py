"""Interface of a classification head, and the features that one can work on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import numpy.typing as npt

from layertap.engine.texts import Lists
from layertap.errors import FeatureError
from layertap.features.parse import parse
from layertap.learn.arrays import Float32Array
from layertap.learn.labels import TaskKind
from layertap.learn.tags import Scheme
from layertap.records import FeatureSchema

if TYPE_CHECKING:
    from layertap.engine.extractor import Extractor
    from layertap.features.plan import Plan

Answer: TypeAlias = Literal["label", "labels", "number"]
"""Kind of output of a head: exactly one of its labels, any number of them, or a number."""

EXAMPLES: dict[TaskKind, str] = {"text": "hidden_states[:].mean", "words": "hidden_states[:].words(mean)"}
"""Features that suit each kind of task, for messages."""


class PredictionHead(Protocol):
    """Interface of a classifier on top of a feature, as `Predictor` runs it: a `Head` or a `CheckpointHead`."""

    @property
    def name(self) -> str:
        """Name of the results: of columns and arrays."""

    @property
    def task(self) -> TaskKind:
        """Unit that gets a label: "text" or "words"."""

    @property
    def scheme(self) -> Scheme | None:
        """Tagging scheme of the labels, or None if the head classifies whole texts."""

    @property
    def answer(self) -> Answer:
        """Kind of output: one label, any number of labels, or a number."""

    @property
    def feature(self) -> str:
        """Canonical text of the feature that the head takes as input."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Label names; position i belongs to column i of the probabilities."""

    @property
    def digest(self) -> str:
        """Hexadecimal sha256 of the weights."""

    @property
    def vector_shape(self) -> tuple[int, ...]:
        """Shape of one input vector, for example `(384,)`."""

    def check(self, extractor: Extractor) -> None:
        """Refuse an extractor whose features the head was not trained on."""

    def logits(self, vectors: npt.NDArray[Any]) -> Float32Array:
        """Compute logits, float32 [N, C], of N input vectors."""

    def probabilities(self, vectors: npt.NDArray[Any]) -> Float32Array:
        """Compute probabilities, float32 [N, C], of N input vectors."""


def meaning_of_lists(heads: Sequence[PredictionHead]) -> Lists:
    """Return what a list of two strings means among the texts for these heads.

    A head that gives a number scores pairs of texts (a cross-encoder); words have tags. Other heads of texts may have
    been trained on either.
    """
    if any(head.task == "words" for head in heads):
        return "words"
    return "pairs" if all(head.answer == "number" for head in heads) else "either"


def marks_entities(head: PredictionHead) -> bool:
    """Whether the tags of a head mark entities."""
    return head.scheme in ("bio", "io")


def check_feature(plan: Plan, name: str, task: TaskKind) -> FeatureSchema:
    """Return the schema of a feature, or refuse one that a head cannot take as input.

    Args:
        plan: plan that computes the feature.
        name: name of the feature in the plan.
        task: unit that is labelled.

    Raises:
        FeatureError: the feature gives integer codes, attention maps, or vectors of another unit than the labelled one.
    """
    feature = plan.features[name]
    schema = next(schema for schema in plan.schemas if schema.name == name)
    if schema.dtype not in ("float32", "float16"):
        raise FeatureError(f"{feature} gives {schema.dtype} codes, and a head learns from floats; omit .astype(...)")
    if schema.maps:
        raise FeatureError(f"{feature} gives attention maps, and a head takes vectors, as in {EXAMPLES[task]}")
    unit, labelled = plan.unit_of(name), {"text": "text", "words": "word"}[task]
    if unit != labelled:
        raise FeatureError(
            f"{feature} gives one vector per {unit}, and the labels are one per {labelled}; for labels of texts pool "
            f"the tokens, as in {EXAMPLES['text']}, and for tags of words use {EXAMPLES['words']}"
        )
    return schema


def default_feature(task: TaskKind) -> str | None:
    """Return the feature of a head if none is named; None stands for the default feature of the extractor."""
    return None if task == "text" else "last_hidden_state.words(mean)"


def canonical(feature: str) -> str:
    """Return the canonical text of a feature, by which features are compared."""
    return str(parse(feature))
