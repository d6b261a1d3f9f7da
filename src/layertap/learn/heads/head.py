"""`Head`: a classifier on frozen features - what it is, and what it says of vectors and texts."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from layertap.engine.options import BackendName, ModelReference, Semantics
from layertap.errors import FeatureError, OptionError
from layertap.features.parse import parse
from layertap.learn.labels import Task
from layertap.learn.tags import Scheme
from layertap.records import FeatureSchema

if TYPE_CHECKING:
    from layertap.engine.extractor import Extractor, Text
    from layertap.engine.opening import OpenedModel
    from layertap.features.plan import Plan
    from layertap.learn.heads.checkpoint import Answer

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedOn:
    """The model whose features a head was fitted on.

    Attributes:
        name: folder or hub id that opens it.
        revision: the commit on the hub, or None.
        architecture: of the model.
        sha256: file -> hash, of weights, config and tokenizer.
    """

    name: str
    revision: str | None
    architecture: str
    sha256: Mapping[str, str]

    @classmethod
    def of(cls, opened: OpenedModel | Extractor) -> FittedOn:
        """The model that is open."""
        files = opened.files
        checkpoint = files.checkpoint
        name = str(checkpoint.folder.resolve()) if checkpoint.origin == "folder" else checkpoint.name
        return cls(
            name=name, revision=checkpoint.commit, architecture=files.architecture.name, sha256=dict(files.hashes())
        )

    def __str__(self) -> str:
        return self.name + (f" at commit {self.revision}" if self.revision else "")

    def check(self, opened: OpenedModel | Extractor, head: str) -> None:
        """Refuses another model, or another commit of it.

        Raises:
            OptionError: a file that is another, or missing.
        """
        found = FittedOn.of(opened)
        wrong = [name for name, digest in self.sha256.items() if found.sha256.get(name) != digest]
        if wrong:
            what = f"{wrong[0]} is another file" if wrong[0] in found.sha256 else f"there is no {wrong[0]}"
            raise OptionError(
                f"head {head!r} was fitted on {self}, and the model given is {found}: {what}; name the model that it "
                "was fitted on (--model), or fit it anew"
            )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Head:
    """A linear classifier on a feature: of texts, or of their words.

    Made by `fit_head` or `layertap fit`; `Head.load(folder)` reads one. Logits are `vectors @ weight.T + bias`, of
    mixed layers `vectors = sum_l mix[l] * layer_l`.

    Attributes:
        name: what its results are called.
        task: "text", a label a text, or "words", a tag a word.
        scheme: of tags: "bio" and "io" mark entities, "tags" do not; None where the task is "text".
        feature: canonical text.
        labels: C of them, in the order of the rows of `weight`.
        weight: float32 [C, H].
        bias: float32 [C].
        mix: float32 [L], what each layer is multiplied by; None: the feature has no layers axis.
        model: what it was fitted on.
        semantics: options that its features depend on.
        options: how it was fitted; JSON.
        metrics: part -> what was measured there; JSON.
    """

    name: str
    task: Task
    scheme: Scheme | None
    feature: str
    labels: tuple[str, ...]
    weight: Float32
    bias: Float32
    mix: Float32 | None
    model: FittedOn
    semantics: Semantics
    options: Mapping[str, Any]
    metrics: Mapping[str, Any]
    _opened: dict[str, Extractor] = field(default_factory=dict, repr=False)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Head:
        """A head that was saved.

        Raises:
            InputError: the folder is none, or its files do not fit together.
        """
        from layertap.learn.heads.files import load_head

        return load_head(Path(folder))

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Writes `head.json` and `head.safetensors` into a new folder, whole or not at all.

        Raises:
            UsageError: the folder exists and `overwrite` is off, or is no head.
            OutputError: it cannot be written.
        """
        from layertap.learn.heads.files import save_head

        save_head(self, Path(folder), overwrite=overwrite)

    def extractor(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        backend: BackendName = "auto",
        device: str = "cpu",
        threads: int | None = None,
        instruction_set: str | None = None,
        batch_tokens: int | None = None,
    ) -> Extractor:
        """Opens the model that the head was fitted on, with the options that its features depend on.

        Args:
            model: where it is now; None: where it was.
            cache_dir, local_files_only, backend, device, threads, instruction_set, batch_tokens: as
                `Extractor.from_pretrained` has them.

        Raises:
            OptionError: it is another model, or another commit.
        """
        from layertap.engine.extractor import Extractor
        from layertap.engine.opening import open_reference
        from layertap.engine.options import Runtime

        reference = ModelReference(
            name=self.model.name if model is None else os.fspath(model),
            revision=self.model.revision if model is None else None,
            cache_dir=None if cache_dir is None else os.fspath(cache_dir),
            local_files_only=local_files_only,
            allow_pickle=False,
        )
        opened = open_reference(reference)
        self.model.check(opened, self.name)
        runtime = Runtime(
            backend=backend,
            device=device,
            threads=threads,
            instruction_set=instruction_set,
            batch_tokens=batch_tokens,
        )
        return Extractor.of(opened, self.semantics, runtime)

    def predict(
        self, texts: str | Sequence[Text], *, extractor: Extractor | None = None, progress: bool = False
    ) -> Any:
        """What the head says of texts.

        Args:
            texts: one text or N of them, as `Extractor.extract` takes them.
            extractor: the model, open already; None: it is opened once, and kept.
            progress: draw a progress bar on standard error.

        Returns:
            N `Prediction`s, or N `Tagging`s where the head tags words; of one `str` it alone.

        Raises:
            OptionError: an extractor of another model, or with other options, than the head was fitted on.
        """
        from layertap.learn.heads.predictor import predictions

        several = [texts] if isinstance(texts, str) else texts
        found = predictions(self, several, extractor or self._own(), progress=progress)
        return found[0] if isinstance(texts, str) else found

    def probabilities(self, vectors: npt.NDArray[Any]) -> Float32:
        """float32 [N, C] of vectors [N, H], or [N, L, H] where the head mixes layers."""
        mixed = vectors.astype(np.float32, copy=False)
        if self.mix is not None:
            mixed = np.tensordot(mixed, self.mix, axes=([1], [0]))
        logits = mixed @ self.weight.T + self.bias
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        found: Float32 = powers / powers.sum(axis=1, keepdims=True)
        return found

    @property
    def answer(self) -> Answer:
        """A label a text or word."""
        return "label"

    @property
    def vector_shape(self) -> tuple[int, ...]:
        """Of a vector that it stands on: [H], or [L, H] where it mixes layers."""
        layers = () if self.mix is None else self.mix.shape
        return (*layers, self.weight.shape[1])

    @property
    def digest(self) -> str:
        """A hash of the weights."""
        arrays = [self.weight, self.bias, *([] if self.mix is None else [self.mix])]
        return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()

    def check(self, extractor: Extractor) -> None:
        """Refuses an extractor of another model, or with other options, than the head was fitted on.

        Raises:
            OptionError: naming what differs.
        """
        self.model.check(extractor, self.name)
        mine, theirs = asdict(self.semantics), asdict(extractor.semantics)
        other = next((name for name in mine if mine[name] != theirs[name]), None)
        if other is not None:
            raise OptionError(
                f"head {self.name!r} was fitted with {other} {mine[other]!r}, and this run has {theirs[other]!r}; its "
                "features would be others: use the same"
            )

    def _own(self) -> Extractor:
        if "" not in self._opened:
            self._opened[""] = self.extractor()
        return self._opened[""]


def checked_schema(plan: Plan, name: str, task: Task | None) -> FeatureSchema:
    """The schema of a feature that a head can be put on.

    Args:
        plan: it has the feature.
        name: of the feature.
        task: what the labels are of; None: whatever the feature is of.

    Raises:
        FeatureError: the feature gives codes, maps, tokens or spans, or vectors of texts where labels are of words.
    """
    feature = plan.features[name]
    schema = next(schema for schema in plan.schemas if schema.name == name)
    if schema.dtype not in ("float32", "float16"):
        raise FeatureError(f"{feature} gives {schema.dtype} codes, not numbers to learn from; leave .astype(...) out")
    if schema.maps:
        raise FeatureError(f"{feature} gives attentions; a head stands on vectors, as of {_ADVICE[task or 'text']}")
    unit = plan.unit_of(name)
    wanted = {"text": ("text",), "words": ("word",), None: ("text", "word")}[task]
    if unit not in wanted:
        labelled = f" and the labels are one a {wanted[0]}" if len(wanted) == 1 else ""
        raise FeatureError(
            f"{feature} gives a vector a {unit}{labelled}; for a label a text pool it, as in {_ADVICE['text']}, for a "
            f"tag a word take {_ADVICE['words']}"
        )
    return schema


_ADVICE = {"text": "hidden_states[:].mean", "words": "hidden_states[:].words(mean)"}


def default_feature(task: Task) -> str | None:
    """The feature of a head unless another is named; None: the extractor's own default."""
    return None if task == "text" else "last_hidden_state.words(mean)"


def canonical(feature: str) -> str:
    """A feature text as it is compared."""
    return str(parse(feature))
