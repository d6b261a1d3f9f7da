"""`Classifier`: Hugging Face checkpoints for text classification, run as features and a small head.

The encoder's part is a feature (`pooler_output`, or `last_hidden_state.first`), so everything that extraction does with
texts is done here too; the head on top is a few rows of numbers.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from layertap.backends.base import pickle_reader
from layertap.checkpoints.load import ModelFiles, stored_tensors
from layertap.engine.extractor import Extractor
from layertap.engine.options import Precision
from layertap.errors import UnsupportedModelError, WeightsError
from layertap.learn.finetuning.families import Family, family_of
from layertap.models.config import ConfigReader
from layertap.records import Record
from layertap.tensors import FLOAT_BITS, TensorView

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Predictions:
    """What a classifier says of N texts.

    Attributes:
        labels: N, the label with the highest score.
        scores: float32 [N, C], probabilities in the order of `Classifier.labels`.
    """

    labels: list[str]
    scores: Floats

    def __len__(self) -> int:
        return len(self.labels)


class Classifier:
    """An encoder with its family's classification head, as `finetune` or transformers wrote it.

    Attributes:
        labels: C, in the order of the logits.
        extractor: what runs the encoder.
        feature: what the head works on.
    """

    def __init__(self, extractor: Extractor, head: Mapping[str, Floats], labels: Sequence[str], family: Family) -> None:
        self.extractor = extractor
        self.labels = tuple(labels)
        self.feature = "pooler_output" if family.pooled else "last_hidden_state.first"
        self._layers = [(head[name], head[bias]) for name, bias in zip(*[iter(family.weights)] * 2, strict=True)]

    @classmethod
    def from_pretrained(
        cls,
        model: str | os.PathLike[str],
        *,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        allow_pickle: bool = False,
        precision: Precision = "float32",
        max_length: int | None = None,
        backend: Literal["auto", "torch"] = "auto",
        device: str = "cpu",
        batch_tokens: int | None = None,
    ) -> Classifier:
        """Opens a classifier of BERT, RoBERTa, XLM-R or CamemBERT.

        Args:
            model: a folder or a hub id.
            revision, cache_dir, local_files_only, allow_pickle, precision, max_length, backend, device, batch_tokens:
                as `Extractor.from_pretrained` has them.

        Raises:
            ModelNotFoundError: no such folder or hub id.
            UnsupportedModelError: a family without a head here, or a head for regression or several labels a text.
            WeightsError: no head, or a damaged one.
            ConfigError: labels that do not fit it.
            BackendError: nothing installed here can run it.
        """
        extractor = Extractor.from_pretrained(
            model,
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            allow_pickle=allow_pickle,
            precision=precision,
            max_length=max_length,
            untrained_pooler="use",  # the head was trained on it as it is
            backend=backend,
            device=device,
            batch_tokens=batch_tokens,
        )
        files, family = extractor.files, family_of(extractor.files)
        head = stored_head(files, allow_pickle=allow_pickle)
        if head is None:
            raise WeightsError(
                f"{files.checkpoint.name}: {family.weights[-2]}: expected for {family.transformers_class}, found none: "
                "this checkpoint has no classification head; `layertap finetune` makes one"
            )
        labels = stored_labels(files, num_classes=head[family.weights[-1]].shape[0])
        return cls(extractor, {name: view.to_float32() for name, view in head.items()}, labels, family)

    def logits(self, texts: Sequence[str | tuple[str, str] | Record], *, progress: bool = False) -> Floats:
        """float32 [N, C], equal to those of transformers' model.

        Args:
            texts: N texts, or pairs as tuples of two, or records.
            progress: draw a progress bar on standard error.

        Raises:
            UsageError, InputError: something that is no list of texts.
            NonFiniteError: NaN or infinity in a feature.
        """
        found = self.extractor.extract(list(texts), self.feature, progress=progress)
        assert isinstance(found, np.ndarray)
        return self.logits_of(found)

    def logits_of(self, vectors: npt.NDArray[Any]) -> Floats:
        """float32 [N, C] of the feature's vectors [N, H]."""
        *hidden, (weight, bias) = self._layers
        values: Floats = vectors.astype(np.float32)
        for dense, dense_bias in hidden:
            values = np.tanh(values @ dense.T + dense_bias)
        return values @ weight.T + bias

    def predict(self, texts: Sequence[str | tuple[str, str] | Record], *, progress: bool = False) -> Predictions:
        """Labels and their probabilities; arguments and errors as `logits`."""
        logits = self.logits(texts, progress=progress)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        scores: Floats = powers / powers.sum(axis=1, keepdims=True)
        return Predictions(labels=[self.labels[i] for i in scores.argmax(axis=1)], scores=scores)

    def __repr__(self) -> str:
        return f"Classifier({self.extractor.files.checkpoint.name!r}, {len(self.labels)} labels)"


def stored_head(files: ModelFiles, *, allow_pickle: bool = False) -> dict[str, TensorView] | None:
    """Stored name -> weight of a checkpoint's classification head, or None: it has none.

    Raises:
        WeightsError: a part of one, or weights of the wrong shape or dtype, or not finite.
    """
    family = family_of(files)
    stored = stored_tensors(files.checkpoint, allow_pickle, pickle_reader() if allow_pickle else None)
    found = {name: stored[name] for name in family.weights if name in stored}
    if family.weights[-2] not in found:
        return None
    size = files.spec.hidden_size
    num_classes = (found[family.weights[-2]].view.shape or (0,))[0]
    for name in family.weights:
        rows = num_classes if name in family.weights[-2:] else size
        expected = (rows, size) if name.endswith(".weight") else (rows,)
        if name not in found:
            raise WeightsError(f"{files.checkpoint.folder}: {name}: expected beside {family.weights[-2]}, found none")
        file, view = found[name].file, found[name].view
        if view.shape != expected:
            raise WeightsError(f"{file}: {name}: expected shape {list(expected)}, found {list(view.shape)}")
        if view.dtype not in FLOAT_BITS:
            raise WeightsError(f"{file}: {name}: expected one of {', '.join(FLOAT_BITS)}, found {view.dtype}")
        if not view.is_finite():
            raise WeightsError(f"{file}: {name}: expected finite float32 values, found NaN or infinity")
    return {name: found[name].view for name in family.weights}


def stored_labels(files: ModelFiles, *, num_classes: int) -> tuple[str, ...]:
    """The labels that `config.json` names, `LABEL_0` and so on where it names none.

    Raises:
        UnsupportedModelError: the head is not one for a label a text.
        ConfigError: not a label for each logit.
    """
    config = ConfigReader(files.config, file=str(files.checkpoint.folder / "config.json"))
    why = "one label a text is predicted here, no numbers (regression) and no sets of labels"
    config.refuse_unless("problem_type", ("single_label_classification", None), why)
    if num_classes == 1:
        raise UnsupportedModelError(f"{files.checkpoint.name}: its head gives one number a text: {why}")
    named = files.config.get("id2label")
    if named is None:
        return tuple(f"LABEL_{i}" for i in range(num_classes))
    if not isinstance(named, dict) or set(named) != {str(i) for i in range(num_classes)}:
        raise config.fail("id2label", f"a label for each of 0 to {num_classes - 1}, as the head has them")
    return tuple(str(named[str(i)]) for i in range(num_classes))
