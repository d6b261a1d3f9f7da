"""Classification heads that checkpoints store: weights, labels, and the computation of logits from vectors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from layertap.backends.pickles import pickle_reader
from layertap.checkpoints.load import ModelFiles, stored_tensors
from layertap.engine.extractor import Extractor
from layertap.errors import InputError, OptionError, UnsupportedModelError, WeightsError
from layertap.features.vectors import activate, dense, layer_norm
from layertap.learn.arrays import Float32Array
from layertap.learn.heads.base import Answer
from layertap.learn.heads.families import CLASS_ENDS, FamilyHead, config_of, head_of, stated_task
from layertap.learn.labels import TaskKind
from layertap.learn.tags import Scheme, scheme_of
from layertap.models.sentence import Dense, LayerNorm
from layertap.tensors import FLOAT_BITS, TensorView

ANSWERS: dict[str | None, Answer] = {
    None: "label",
    "single_label_classification": "label",
    "multi_label_classification": "labels",
    "regression": "number",
}
"""Kind of output by the `problem_type` of a config; for a head with one label, None stands for a number."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CheckpointHead:
    """Classification head of a family with its weights, as `finetune` or transformers stored it.

    Attributes:
        name: name of the results.
        task: "text" if each text gets a label, "words" if each word gets a tag.
        scheme: tagging scheme: "bio" and "io" mark entities, "tags" does not; None if `task` is "text".
        answer: kind of output; always "label" for words.
        feature: canonical text of the input feature.
        labels: C label names, in the order of the logits.
        steps: dense layers and norms that turn a vector [H] into C logits.
        digest: hexadecimal sha256 of the weights.
    """

    name: str
    task: TaskKind
    scheme: Scheme | None
    answer: Answer
    feature: str
    labels: tuple[str, ...]
    steps: tuple[Dense | LayerNorm, ...]
    digest: str

    @classmethod
    def of(cls, files: ModelFiles, name: str, *, allow_pickle: bool = False) -> CheckpointHead:
        """Read the head of an open checkpoint.

        Args:
            files: the checkpoint.
            name: name of the results.
            allow_pickle: read a `pytorch_model.bin` if there is no safetensors file.

        Raises:
            UnsupportedModelError: a family whose heads are not implemented, or another kind of head.
            WeightsError: the checkpoint has no classification head, or a damaged one.
            ConfigError: labels that do not fit the head.
        """
        task = stated_task(files)
        if task is None:
            classes = files.config.get("architectures")
            raise WeightsError(
                f"{files.checkpoint.name}: no classification head: architectures in its config.json is {classes!r}, "
                f"not a class whose name ends with {' or '.join(CLASS_ENDS.values())}; `layertap finetune` trains such "
                "a checkpoint, and `layertap fit` fits a head to a frozen one"
            )
        head = head_of(files, task)
        weights = stored_head(files, head, allow_pickle=allow_pickle)
        if weights is None:
            raise WeightsError(
                f"{files.checkpoint.name}: {head.last}: expected for {head.transformers_class}, found none: "
                "this checkpoint has no classification head; `layertap finetune` trains one"
            )
        num_classes = weights[head.last].shape[0]
        labels = stored_labels(files, num_classes)
        return cls(
            name=name,
            task=task,
            scheme=_scheme(labels) if task == "words" else None,
            answer=_answer(files, task, num_classes),
            feature=head.feature,
            labels=labels,
            steps=_steps(head, weights),
            digest=hashlib.sha256(b"".join(bytes(view.buffer) for view in weights.values())).hexdigest(),
        )

    @property
    def vector_shape(self) -> tuple[int, ...]:
        """Shape of one input vector: (H,)."""
        first = self.steps[0]
        assert isinstance(first, Dense)
        return (first.weight.shape[1],)

    def check(self, extractor: Extractor) -> None:
        """Refuse an extractor with an option that the head was not trained with.

        Raises:
            OptionError: the extractor refuses an untrained pooler, and the head takes its output.
        """
        if self.feature == "pooler_output" and not extractor.facts.usable_pooler:
            raise OptionError(
                f"{self.name}: the head takes the output of the pooler as it is stored; open the extractor with "
                "untrained_pooler='use'"
            )

    def logits(self, vectors: npt.NDArray[Any]) -> Float32Array:
        """Compute logits, float32 [N, C], of vectors [N, H]."""
        values: Float32Array = vectors.astype(np.float32, copy=False)
        for step in self.steps:
            values = dense(values, step) if isinstance(step, Dense) else layer_norm(values, step)
        return values

    def probabilities(self, vectors: npt.NDArray[Any]) -> Float32Array:
        """Compute probabilities, float32 [N, C], of vectors [N, H].

        The logits of a head that gives one label go through a softmax, those of one that gives any number of labels
        through a sigmoid; a head that gives a number returns them unchanged.
        """
        logits = self.logits(vectors)
        if self.answer == "number":
            return logits
        if self.answer == "labels":
            return activate(logits, "sigmoid")
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities: Float32Array = powers / powers.sum(axis=1, keepdims=True)
        return probabilities


def stored_head(files: ModelFiles, head: FamilyHead, *, allow_pickle: bool = False) -> dict[str, TensorView] | None:
    """Return the weights of a classification head by their stored names, or None if the checkpoint has no such head.

    Raises:
        WeightsError: a weight is missing, has the wrong shape or dtype, or is not finite.
    """
    stored, _ = stored_tensors(
        files.checkpoint, files.architecture, allow_pickle, pickle_reader() if allow_pickle else None
    )
    if head.last not in stored:
        return None
    num_classes = (stored[head.last].view.shape or (0,))[0]
    weights: dict[str, TensorView] = {}
    for name, expected in head.shapes(files.spec.hidden_size, num_classes).items():
        if name not in stored:
            raise WeightsError(f"{files.checkpoint.folder}: {name}: expected beside {head.last}, found none")
        file, view = stored[name].file, stored[name].view
        if view.shape != expected:
            raise WeightsError(f"{file}: {name}: expected shape {list(expected)}, found {list(view.shape)}")
        if view.dtype not in FLOAT_BITS:
            raise WeightsError(f"{file}: {name}: expected one of {', '.join(FLOAT_BITS)}, found {view.dtype}")
        if not view.is_finite():
            raise WeightsError(f"{file}: {name}: expected finite float32 values, found NaN or infinity")
        weights[name] = view
    return weights


def stored_lower_layers(files: ModelFiles, head: FamilyHead, *, allow_pickle: bool = False) -> dict[str, TensorView]:
    """Return the weights of the layers below the last that a checkpoint stores without a head of this kind.

    ModernBERT's checkpoints for words hold such layers.
    """
    stored, _ = stored_tensors(
        files.checkpoint, files.architecture, allow_pickle, pickle_reader() if allow_pickle else None
    )
    last = head.layers[-1].name
    shapes = head.shapes(files.spec.hidden_size, 1)
    return {
        name: stored[name].view
        for name, shape in shapes.items()
        if not name.startswith(f"{last}.")
        and name in stored
        and stored[name].view.shape == shape
        and stored[name].view.dtype in FLOAT_BITS
        and stored[name].view.is_finite()
    }


def stored_labels(files: ModelFiles, num_classes: int) -> tuple[str, ...]:
    """Return the labels that `config.json` names, or `LABEL_0`, `LABEL_1`, ... if it names none.

    Raises:
        ConfigError: another number of labels than logits, or the same label twice.
    """
    config, named = config_of(files), files.config.get("id2label")
    if named is None:
        return tuple(f"LABEL_{i}" for i in range(num_classes))
    if not isinstance(named, dict) or set(named) != {str(i) for i in range(num_classes)}:
        raise config.fail("id2label", f"a label for each of 0 to {num_classes - 1}, as the head has them")
    labels = tuple(str(named[str(i)]) for i in range(num_classes))
    if len(set(labels)) < num_classes:
        raise config.fail("id2label", "labels that differ")
    return labels


def _answer(files: ModelFiles, task: TaskKind, num_classes: int) -> Answer:
    if task == "words":
        if num_classes == 1:
            raise UnsupportedModelError(f"{files.checkpoint.name}: its head has one label, which every word would get")
        return "label"
    problem = files.config.get("problem_type")
    if problem is not None and not (isinstance(problem, str) and problem in ANSWERS):
        raise config_of(files).fail("problem_type", "one of " + ", ".join(name for name in ANSWERS if name))
    answer: Answer = "number" if problem is None and num_classes == 1 else ANSWERS[problem]
    if answer == "number" and num_classes != 1:
        raise UnsupportedModelError(
            f"{files.checkpoint.name}: its head gives {num_classes} numbers per text (problem_type regression); "
            "supported are heads that give one label, any number of labels, or one number"
        )
    if answer == "label" and num_classes == 1:
        raise UnsupportedModelError(
            f"{files.checkpoint.name}: its head has one label, which every text would get (problem_type "
            "single_label_classification)"
        )
    return answer


def _scheme(labels: tuple[str, ...]) -> Scheme:
    try:
        return scheme_of(labels)
    except InputError:  # BIOES or BILOU: nothing is fitted with these, and `entities` reads them
        return "bio"


def _steps(head: FamilyHead, weights: Mapping[str, TensorView]) -> tuple[Dense | LayerNorm, ...]:
    steps: list[Dense | LayerNorm] = []
    arrays = {name: view.to_float32() for name, view in weights.items()}
    for layer in head.layers:
        steps.append(
            Dense(
                weight=arrays[f"{layer.name}.weight"],
                bias=arrays.get(f"{layer.name}.bias"),
                activation=layer.activation,
            )
        )
        if layer.norm is not None:
            weight = arrays[f"{layer.norm}.weight"]
            bias = arrays.get(f"{layer.norm}.bias", np.zeros_like(weight))
            steps.append(LayerNorm(weight=weight, bias=bias, eps=layer.norm_eps))
    return tuple(steps)
