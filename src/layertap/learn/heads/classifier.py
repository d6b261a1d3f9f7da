"""`Classifier`: Hugging Face checkpoints for classifying texts or tagging words, run as a feature and a small head.

The encoder's part is a feature (`pooler_output`, `last_hidden_state.first`, `last_hidden_state.words(first)`), so
everything that extraction does with texts is done here too; the head on top is a few rows of numbers.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from layertap.engine.extractor import Extractor, Text
from layertap.engine.opening import open_reference
from layertap.engine.options import BackendName, ModelReference, Precision, Runtime, Semantics
from layertap.engine.pipeline import ProgressCallback
from layertap.engine.progress import progress_on
from layertap.errors import UsageError
from layertap.features.naming import Features
from layertap.learn.heads.checkpoint import CheckpointHead
from layertap.learn.heads.predictor import LIKELY, Judgements, Predictor, Tagging, predictions
from layertap.records import Ragged

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Predictions:
    """What a classifier says of N texts.

    Attributes:
        labels: N: the label with the highest score; of a classifier that gives any number of labels, a tuple of those
            with a score above 0.5; of one that gives a number, None.
        scores: float32 [N, C], probabilities in the order of `Classifier.labels`, or numbers.
    """

    labels: list[Any]
    scores: Floats

    def __len__(self) -> int:
        return len(self.labels)


class Classifier:
    """An encoder with its family's classification head, as `finetune` or transformers wrote it.

    Attributes:
        extractor: what runs the encoder.
        head: what stands on it.
    """

    def __init__(self, extractor: Extractor, head: CheckpointHead) -> None:
        self.extractor = extractor
        self.head = head
        self._predictor = Predictor(extractor, [head])

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
        long: Literal["truncate", "window", "error"] = "truncate",
        truncate_side: Literal["right", "left"] = "right",
        window: int | None = None,
        overlap: int | None = None,
        word_pattern: str | None = None,
        backend: BackendName = "auto",
        device: str = "cpu",
        threads: int | None = None,
        instruction_set: str | None = None,
        batch_tokens: int | None = None,
        name: str | None = None,
    ) -> Classifier:
        """Opens a checkpoint of a `ForSequenceClassification` or `ForTokenClassification` class of transformers.

        Args:
            model: a folder or a hub id.
            revision, cache_dir, local_files_only, allow_pickle, precision, max_length, long, truncate_side, window,
                overlap, word_pattern, backend, device, threads, instruction_set, batch_tokens: as
                `Extractor.from_pretrained` has them.
            name: what its results are called in `stream`; None: the last part of the model's name.

        Raises:
            ModelNotFoundError: no such folder or hub id.
            UnsupportedModelError: a family without a head here, or a head of another kind.
            WeightsError: no head, or a damaged one.
            ConfigError: labels that do not fit it.
            BackendError: nothing installed here can run it.
        """
        reference = ModelReference(
            name=os.fspath(model),
            revision=revision,
            cache_dir=None if cache_dir is None else os.fspath(cache_dir),
            local_files_only=local_files_only,
            allow_pickle=allow_pickle,
        )
        semantics = Semantics(
            precision=precision,
            max_length=max_length,
            untrained_pooler="use",  # the head was trained on it as it is
            long=long,
            truncate_side=truncate_side,
            window=window,
            overlap=overlap,
            word_pattern=word_pattern,
        )
        runtime = Runtime(
            backend=backend,
            device=device,
            threads=threads,
            instruction_set=instruction_set,
            batch_tokens=batch_tokens,
        )
        opened = open_reference(reference)
        head = CheckpointHead.of(
            opened.files, name or default_name(opened.files.checkpoint.name), allow_pickle=allow_pickle
        )
        return cls(Extractor.of(opened, semantics, runtime), head)

    @property
    def labels(self) -> tuple[str, ...]:
        """C, in the order of the logits."""
        return self.head.labels

    @property
    def feature(self) -> str:
        """What the head works on."""
        return self.head.feature

    def logits(self, texts: Sequence[Text], *, progress: bool = False) -> Floats | Ragged:
        """Logits, equal to those of transformers' model.

        Args:
            texts: N texts, as `Extractor.extract` takes them.
            progress: draw a progress bar on standard error.

        Returns:
            float32 [N, C]; of a classifier of words `Ragged` [W, C], those of the first token of each word, and where a
            word has no token those of zeros.

        Raises:
            UsageError, InputError: something that is no list of texts.
            NonFiniteError: NaN or infinity in a feature.
        """
        found = self.extractor.extract(_listed(texts), self.feature, progress=progress)
        if isinstance(found, Ragged):
            return Ragged(self.head.logits(found.values), found.offsets)
        assert isinstance(found, np.ndarray)
        return self.head.logits(found)

    def predict(self, texts: Sequence[Text], *, progress: bool = False) -> Any:
        """What it says of texts; arguments and errors as `logits`.

        Returns:
            `Predictions` of N texts; of a classifier of words a list of N `Tagging`s: tags, scores, entities.
        """
        if self.head.task == "words":
            found: list[Tagging] = []
            for tagging in predictions(self.head, _listed(texts), self.extractor, progress=progress):
                assert isinstance(tagging, Tagging)
                found.append(tagging)
            return found
        listed = _listed(texts)
        parts: list[Floats] = []
        with progress_on(sys.stderr, shown=progress, total=len(listed)) as on_progress:
            parts.extend(judged.probabilities for _, (judged,) in self._predictor.judge(listed, on_progress))
        scores = np.concatenate(parts) if parts else np.zeros((0, len(self.labels)), dtype=np.float32)
        return Predictions(labels=[self._label(row) for row in scores], scores=scores)

    def stream(
        self,
        texts: Iterable[Text],
        features: Features | None = None,
        *,
        details: bool | Sequence[str] = False,
        on_progress: ProgressCallback | None = None,
    ) -> Judgements:
        """What it says of a stream of any length, in bounded memory.

        Args:
            texts, details, on_progress: as `Extractor.stream` has them.
            features: what is wanted beside; None: nothing.

        Returns:
            An iterator of `FeatureBatch`, whose records have the column `head.name` (and of entities
            `<name>.entities`), and whose features have `<name>.scores`; see `layertap.learn.heads.predictor.Predictor`.
        """
        return self._predictor.stream(texts, features, details=details, on_progress=on_progress)

    def _label(self, scores: Floats) -> str | tuple[str, ...] | None:
        if self.head.answer == "number":
            return None
        if self.head.answer == "labels":
            return tuple(label for label, score in zip(self.labels, scores, strict=True) if score > LIKELY)
        return self.labels[int(scores.argmax())]

    def __repr__(self) -> str:
        what = "words" if self.head.task == "words" else "texts"
        return f"Classifier({self.extractor.files.checkpoint.name!r}, {len(self.labels)} labels of {what})"


def _listed(texts: Sequence[Text]) -> list[Text]:
    if isinstance(texts, str):
        raise UsageError(f"texts: expected a list of texts, found the text {texts:.40}; for one write [text]")
    return list(texts)


def default_name(model: str) -> str:
    """What a checkpoint's results are called: the last part of its name."""
    return Path(model).resolve().name if Path(model).exists() else model.rstrip("/").rpartition("/")[2]
