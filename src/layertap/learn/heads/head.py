"""`Head`: a linear classifier on a feature of a frozen encoder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from layertap.engine.extractor import Extractor
from layertap.engine.identity import ModelIdentity
from layertap.engine.opening import OpenedModel, open_reference
from layertap.engine.options import HeadOptions, Semantics, shown_in_help, split_options
from layertap.engine.texts import Text
from layertap.errors import LayertapError, OptionError
from layertap.learn.heads.base import Answer, Float32Array, canonical
from layertap.learn.heads.files import ARRAYS_FILE, JSON_FILE, damaged, read_head, write_head
from layertap.learn.heads.predictor import Predictor
from layertap.learn.labels import TaskKind
from layertap.learn.tags import SCHEMES, Scheme


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedModel:
    """The model whose features a head was fitted on.

    Attributes:
        name: folder or hub id that opens the model.
        revision: commit on the hub, or None for a folder.
        architecture: name of the architecture.
        sha256: mapping from file name to hash, of weights, config and tokenizer.
    """

    name: str
    revision: str | None
    architecture: str
    sha256: Mapping[str, str]

    @classmethod
    def of(cls, opened: OpenedModel | Extractor) -> FittedModel:
        """Describe an open model."""
        model = ModelIdentity.of(opened.files)
        return cls(
            name=model.location, revision=model.commit, architecture=model.architecture, sha256=dict(model.sha256)
        )

    @property
    def is_pickled(self) -> bool:
        """Whether the weights were read from `pytorch_model.bin`, which needs `allow_pickle`."""
        return any(name.startswith("pytorch_model") and name.endswith(".bin") for name in self.sha256)

    def __str__(self) -> str:
        return self.name + (f" at commit {self.revision}" if self.revision else "")

    def check(self, opened: OpenedModel | Extractor, head: str) -> None:
        """Refuse another model, or another commit of the same one.

        Raises:
            OptionError: a file differs, or is missing.
        """
        given = FittedModel.of(opened)
        wrong = [name for name, digest in self.sha256.items() if given.sha256.get(name) != digest]
        if wrong:
            what = f"{wrong[0]} differs" if wrong[0] in given.sha256 else f"there is no {wrong[0]}"
            raise OptionError(
                f"head {head!r} was fitted on {self}, and the model given is {given}: {what}; name the model that the "
                "head was fitted on (--model), or fit the head again"
            )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Head:
    """Linear classifier on a feature of a frozen encoder, for texts or for their words.

    `fit_head` and `layertap fit` create heads, and `Head.load(folder)` reads a saved one. The logits are
    `vectors @ weight.T + bias`; if the feature has a layer axis, `vectors = sum_l mix[l] * layer_l`.

    Attributes:
        name: name of the results.
        task: "text" if each text gets a label, "words" if each word gets a tag.
        scheme: tagging scheme: "bio" and "io" mark entities, "tags" does not; None if `task` is "text".
        feature: canonical text of the input feature.
        labels: C label names; position i belongs to row i of `weight`.
        weight: float32 [C, H].
        bias: float32 [C].
        mix: float32 [L], factor of each layer; None if the feature has no layer axis.
        model: model that the head was fitted on.
        semantics: options that the features depend on.
        options: how the head was fitted, as JSON values.
        metrics: mapping from dataset ("validation", "test") to its scores, as JSON values.
    """

    name: str
    task: TaskKind
    scheme: Scheme | None
    feature: str
    labels: tuple[str, ...]
    weight: Float32Array
    bias: Float32Array
    mix: Float32Array | None
    model: FittedModel
    semantics: Semantics
    options: Mapping[str, Any]
    metrics: Mapping[str, Any]
    _extractors: dict[str, Extractor] = field(default_factory=dict, repr=False)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Head:
        """Read a saved head.

        Raises:
            InputError: the folder is not a head, or its files are damaged or do not match.
        """
        place = Path(folder)
        stated, arrays = read_head(place)
        try:
            head = _from_values(stated, arrays)
        except (KeyError, TypeError, ValueError, AttributeError, LayertapError) as error:
            raise damaged(place / JSON_FILE, f"{type(error).__name__}: {error}") from None
        _check_arrays(head, place / ARRAYS_FILE)
        return head

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write `head.json` and `head.safetensors` into a new folder, whole or not at all.

        Raises:
            UsageError: the folder exists and `overwrite` is off, or it holds something else than a head.
            OutputError: the folder cannot be written.
        """
        stated = {
            "name": self.name,
            "task": self.task,
            "scheme": self.scheme,
            "feature": self.feature,
            "labels": list(self.labels),
            "model": asdict(self.model),
            "semantics": asdict(self.semantics),
            "options": self.options,
            "metrics": self.metrics,
        }
        arrays = {"weight": self.weight, "bias": self.bias} | ({} if self.mix is None else {"mix": self.mix})
        write_head(Path(folder), stated, arrays, overwrite=overwrite)

    @shown_in_help(HeadOptions)
    def extractor(
        self,
        model: str | os.PathLike[str] | None = None,
        **options: Unpack[HeadOptions],
    ) -> Extractor:
        """Open the model that the head was fitted on, with the options that its features depend on.

        Args:
            model: where the model is now; None opens it where it was.
            options: options of `Extractor.from_pretrained` that say where the model is and how it runs. Where
                `allow_pickle` is not among them, a `pytorch_model.bin` is read if the head was fitted on one.

        Raises:
            OptionError: the model, or its commit, is not the one that the head was fitted on.
        """
        name = self.model.name if model is None else model
        given = HeadOptions(allow_pickle=self.model.is_pickled) | options
        reference, _, runtime = split_options(name, given, HeadOptions)
        reference = replace(reference, revision=self.model.revision if model is None else None)
        opened = open_reference(reference)
        self.model.check(opened, self.name)
        return Extractor.of(opened, self.semantics, runtime)

    def predict(
        self, texts: str | Sequence[Text], *, extractor: Extractor | None = None, progress: bool = False
    ) -> Any:
        """Predict the label of each text, or the tag of each word.

        Args:
            texts: one text or N of them, as `Extractor.extract` takes them.
            extractor: the open model; None opens it on the first call, and keeps it open.
            progress: draw a progress bar on standard error.

        Returns:
            A list of N `Prediction`s, or of N `Tagging`s if the head tags words; for a single `str`, the one object.

        Raises:
            OptionError: an extractor of another model, or with other options, than the head was fitted with.
        """
        several = [texts] if isinstance(texts, str) else texts
        predictor = Predictor(extractor or self._opened(), [self])
        predictions = [prediction for (prediction,) in predictor.predict(several, progress=progress)]
        return predictions[0] if isinstance(texts, str) else predictions

    def probabilities(self, vectors: npt.NDArray[Any]) -> Float32Array:
        """Compute probabilities, float32 [N, C], of vectors [N, H], or [N, L, H] if the head mixes layers."""
        mixed = vectors.astype(np.float32, copy=False)
        if self.mix is not None:
            mixed = np.tensordot(mixed, self.mix, axes=([1], [0]))
        logits = mixed @ self.weight.T + self.bias
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities: Float32Array = powers / powers.sum(axis=1, keepdims=True)
        return probabilities

    @property
    def answer(self) -> Answer:
        """Kind of output: always "label", exactly one label per text or word."""
        return "label"

    @property
    def vector_shape(self) -> tuple[int, ...]:
        """Shape of one input vector: (H,), or (L, H) if the head mixes layers."""
        layers = () if self.mix is None else self.mix.shape
        return (*layers, self.weight.shape[1])

    @property
    def digest(self) -> str:
        """Hexadecimal sha256 of the weights."""
        arrays = [self.weight, self.bias, *([] if self.mix is None else [self.mix])]
        return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()

    def check(self, extractor: Extractor) -> None:
        """Refuse an extractor of another model, or with other options, than the head was fitted with.

        Raises:
            OptionError: the files of the model or an option differ.
        """
        self.model.check(extractor, self.name)
        fitted, given = asdict(self.semantics), asdict(extractor.semantics)
        option = next((name for name in fitted if fitted[name] != given[name]), None)
        if option is not None:
            raise OptionError(
                f"head {self.name!r} was fitted with {option} {fitted[option]!r}, and this run has {given[option]!r}, "
                f"which gives other features; set {option} to {fitted[option]!r}"
            )

    def _opened(self) -> Extractor:
        if "" not in self._extractors:
            self._extractors[""] = self.extractor()
        return self._extractors[""]


def _from_values(stated: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Head:
    """Build a head from the values of its files."""
    if stated["task"] not in ("text", "words") or (stated["task"] == "words") != (stated["scheme"] in SCHEMES):
        raise ValueError(f"task {stated['task']!r} with scheme {stated['scheme']!r}")
    if not isinstance(stated["labels"], list) or len(set(map(str, stated["labels"]))) < len(stated["labels"]):
        raise ValueError("labels: expected a list of different strings")
    model = FittedModel(**stated["model"])
    if not (isinstance(model.name, str) and isinstance(model.sha256, dict)):
        raise ValueError("model: expected a name and the hashes of its files")
    return Head(
        name=str(stated["name"]),
        task=stated["task"],
        scheme=stated["scheme"],
        feature=canonical(stated["feature"]),
        labels=tuple(map(str, stated["labels"])),
        weight=arrays["weight"],
        bias=arrays["bias"],
        mix=arrays.get("mix"),
        model=model,
        semantics=Semantics(**stated["semantics"]),
        options=dict(stated["options"]),
        metrics=dict(stated["metrics"]),
    )


def _check_arrays(head: Head, path: Path) -> None:
    """Refuse weights that do not fit the labels or each other.

    Raises:
        InputError: another shape or dtype, or values that are not finite.
    """
    classes, arrays = len(head.labels), {"weight": head.weight, "bias": head.bias}
    if head.weight.ndim != 2 or len(head.weight) != classes or head.bias.shape != (classes,) or classes < 2:
        raise damaged(
            path, f"weight {list(head.weight.shape)} and bias {list(head.bias.shape)} do not fit {classes} labels"
        )
    if head.mix is not None:
        arrays["mix"] = head.mix
        if head.mix.ndim != 1 or not len(head.mix):
            raise damaged(path, f"mix {list(head.mix.shape)}: expected one factor per layer")
    for name, array in arrays.items():
        if array.dtype != np.float32:
            raise damaged(path, f"{name} is {array.dtype}; expected float32")
        if not np.isfinite(array).all():
            raise damaged(path, f"{name} holds NaN or infinity")
