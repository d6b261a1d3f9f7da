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

from layertap.checkpoints.load import ModelFiles
from layertap.engine.extractor import Extractor
from layertap.engine.identity import ModelIdentity
from layertap.engine.opening import open_reference
from layertap.engine.options import HeadOptions, ModelReference, Semantics, shown_in_help, split_options
from layertap.engine.texts import Text
from layertap.errors import LayertapError, OptionError
from layertap.learn.arrays import Float32Array
from layertap.learn.heads.base import Answer, canonical
from layertap.learn.heads.files import ARRAYS_FILE, JSON_FILE, damaged, read_head, write_head
from layertap.learn.heads.predictor import Predictor
from layertap.learn.labels import TaskKind
from layertap.learn.tags import SCHEMES, Scheme


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
    model: ModelIdentity
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
            "model": {
                "name": self.model.location,
                "revision": self.model.commit,
                "architecture": self.model.architecture,
                "sha256": dict(self.model.sha256),
            },
            "semantics": asdict(self.semantics),
            "options": self.options,
            "metrics": self.metrics,
        }
        arrays = {"weight": self.weight, "bias": self.bias} | ({} if self.mix is None else {"mix": self.mix})
        write_head(Path(folder), stated, arrays, overwrite=overwrite)

    @shown_in_help(HeadOptions)
    def extractor(self, model: str | os.PathLike[str] | None = None, **options: Unpack[HeadOptions]) -> Extractor:
        """Open the model that the head was fitted on, with the options that its features depend on.

        Args:
            model: where the model is now; None opens it where it was.
            **options: cache_dir, local_files_only, allow_pickle, backend, device, threads, instruction_set,
                batch_tokens and rules, as in `Extractor.from_pretrained`. `allow_pickle` is on if the head was fitted
                on a `pytorch_model.bin`, unless it is given.

        Raises:
            OptionError: the model, or its commit, is not the one that the head was fitted on; an unknown option, or
                one out of range.
        """
        options.setdefault("allow_pickle", self.reference.allow_pickle)
        reference, _, runtime = split_options(self.reference.name if model is None else model, options, HeadOptions)
        if model is None:
            reference = replace(reference, revision=self.reference.revision)
        opened = open_reference(reference)
        self.check_model(opened.files)
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

    def logits(self, vectors: npt.NDArray[Any]) -> Float32Array:
        """Compute logits, float32 [N, C], of vectors [N, H], or [N, L, H] if the head mixes layers."""
        mixed = vectors.astype(np.float32, copy=False)
        if self.mix is not None:
            mixed = np.tensordot(mixed, self.mix, axes=([1], [0]))
        logits: Float32Array = mixed @ self.weight.T + self.bias
        return logits

    def probabilities(self, vectors: npt.NDArray[Any]) -> Float32Array:
        """Compute probabilities, float32 [N, C], of vectors [N, H], or [N, L, H] if the head mixes layers."""
        logits = self.logits(vectors)
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

    @property
    def reference(self) -> ModelReference:
        """Reference that opens the model where it was when the head was fitted."""
        # Only `allow_pickle` reads such a file, so it was on.
        pickled = any(name.startswith("pytorch_model") and name.endswith(".bin") for name in self.model.sha256)
        return ModelReference(name=self.model.location, revision=self.model.commit, allow_pickle=pickled)

    def check_model(self, files: ModelFiles) -> None:
        """Refuse another model, or another commit of the same one, than the head was fitted on.

        Raises:
            OptionError: a file differs, or is missing.
        """
        given = ModelIdentity.of(files)
        wrong = [name for name, digest in self.model.sha256.items() if given.sha256.get(name) != digest]
        if wrong:
            what = f"{wrong[0]} differs" if wrong[0] in given.sha256 else f"there is no {wrong[0]}"
            raise OptionError(
                f"head {self.name!r} was fitted on {self.model}, and the model given is {given}: {what}; name the "
                "model that the head was fitted on (--model), or fit the head again"
            )

    def check(self, extractor: Extractor) -> None:
        """Refuse an extractor of another model, or with other options, than the head was fitted with.

        Raises:
            OptionError: the files of the model or an option differ.
        """
        self.check_model(extractor.files)
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
    return Head(
        name=str(stated["name"]),
        task=stated["task"],
        scheme=stated["scheme"],
        feature=canonical(stated["feature"]),
        labels=tuple(map(str, stated["labels"])),
        weight=arrays["weight"],
        bias=arrays["bias"],
        mix=arrays.get("mix"),
        model=_model(**stated["model"]),
        semantics=Semantics(**stated["semantics"]),
        options=dict(stated["options"]),
        metrics=dict(stated["metrics"]),
    )


def _model(*, name: object, revision: str | None, architecture: str, sha256: object) -> ModelIdentity:
    """Build the identity of a model from the values of `head.json`."""
    if not (isinstance(name, str) and isinstance(sha256, dict)):
        raise ValueError("model: expected a name and the hashes of its files")
    place = Path(name)
    return ModelIdentity(
        name=place.name if place.is_absolute() else name,
        location=name,
        commit=revision,
        architecture=architecture,
        sha256=sha256,
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
