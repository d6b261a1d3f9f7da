"""`Classifier`: a Hugging Face checkpoint that classifies texts or tags words, run as a feature and a small head.

The encoder computes a feature (`pooler_output`, `last_hidden_state.first`, `last_hidden_state.words(first)`), so that
texts are treated as in extraction; the head on top is a few dense layers in numpy.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from layertap.engine.extractor import Extractor
from layertap.engine.opening import open_reference
from layertap.engine.options import ClassifierOptions, shown_in_help, split_options
from layertap.engine.progress import progress_on
from layertap.engine.streaming import ProgressCallback, Stream
from layertap.engine.texts import Text, as_records, check_iterable
from layertap.errors import UsageError
from layertap.features.naming import Features
from layertap.learn.arrays import Float32Array
from layertap.learn.heads.base import meaning_of_lists
from layertap.learn.heads.checkpoint import CheckpointHead
from layertap.learn.heads.predictions import LIKELY
from layertap.learn.heads.predictor import Predictor
from layertap.records import Ragged, Record


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Predictions:
    """Predictions of a classifier for N texts.

    Attributes:
        labels: N labels, each the one with the highest score; if the classifier gives any number of labels, N tuples
            of those with a score above 0.5; if it gives a number, N times None.
        scores: float32 [N, C], probabilities in the order of `Classifier.labels`, or numbers [N, 1].
    """

    labels: list[Any]
    scores: Float32Array

    def __len__(self) -> int:
        return len(self.labels)


class Classifier:
    """Encoder with the classification head of its family, as `finetune` or transformers stored them.

    Attributes:
        extractor: extractor of the encoder.
        head: head on top of the encoder.
    """

    def __init__(self, extractor: Extractor, head: CheckpointHead) -> None:
        self.extractor = extractor
        self.head = head
        self._predictor = Predictor(extractor, [head])

    @classmethod
    @shown_in_help(ClassifierOptions)
    def from_pretrained(
        cls, model: str | os.PathLike[str], *, name: str | None = None, **options: Unpack[ClassifierOptions]
    ) -> Classifier:
        """Open a checkpoint of a `ForSequenceClassification` or `ForTokenClassification` class of transformers.

        Args:
            model: folder or hub id.
            name: name of the results in `stream`; None stands for the last part of the name of the model.
            **options: revision, cache_dir, local_files_only, allow_pickle, precision, max_length, long, truncate_side,
                window, overlap, word_pattern, backend, device, threads, instruction_set, batch_tokens and rules, as in
                `Extractor.from_pretrained`. The pooler is always used as it is stored.

        Raises:
            ModelNotFoundError: no such folder or hub id.
            UnsupportedModelError: a family whose heads are not implemented, or another kind of head.
            WeightsError: the checkpoint has no head, or a damaged one.
            ConfigError: labels that do not fit the head.
            BackendError: no installed backend can run the model.
            OptionError: an unknown option, or one out of range.
        """
        reference, semantics, runtime = split_options(model, options, ClassifierOptions)
        # The head was trained on the pooler as it is.
        semantics = replace(semantics, untrained_pooler="use")
        opened = open_reference(reference)
        own_name = name or default_name(opened.files.checkpoint.name)
        head = CheckpointHead.of(opened.files, own_name, allow_pickle=reference.allow_pickle)
        return cls(Extractor.of(opened, semantics, runtime), head)

    @property
    def labels(self) -> tuple[str, ...]:
        """C label names, in the order of the logits."""
        return self.head.labels

    @property
    def feature(self) -> str:
        """Canonical text of the input feature of the head."""
        return self.head.feature

    def logits(self, texts: Sequence[Text], *, progress: bool = False) -> Float32Array | Ragged:
        """Compute logits, equal to those of the model of transformers.

        Args:
            texts: N texts, as `Extractor.extract` takes them. For a classifier of texts, a list of two strings is a
                pair as for a cross-encoder, or is refused where it could be two words.
            progress: draw a progress bar on standard error.

        Returns:
            float32 [N, C]; if the classifier tags words, `Ragged` [W, C]: the logits of the first token of each word,
            and those of a vector of zeros for a word without a token.

        Raises:
            UsageError, InputError: an argument that is not a list of texts.
            NonFiniteError: NaN or infinity in a feature.
        """
        vectors = self.extractor.extract(self._listed(texts), self.feature, progress=progress)
        if isinstance(vectors, Ragged):
            return Ragged(self.head.logits(vectors.values), vectors.offsets)
        assert isinstance(vectors, np.ndarray)
        return self.head.logits(vectors)

    def predict(self, texts: Sequence[Text], *, progress: bool = False) -> Any:
        """Predict the label of each text, or the tag of each word.

        Args:
            texts: N texts, as `Extractor.extract` takes them. For a classifier of texts, a list of two strings is a
                pair as for a cross-encoder, or is refused where it could be two words.
            progress: draw a progress bar on standard error.

        Returns:
            `Predictions` of N texts; if the classifier tags words, a list of N `Tagging`s: tags, scores, entities.

        Raises:
            UsageError, InputError: an argument that is not a list of texts.
            NonFiniteError: NaN or infinity in a feature.
        """
        listed = self._listed(texts)
        if self.head.task == "words":
            return [tagging for (tagging,) in self._predictor.predict(listed, progress=progress)]
        parts: list[Float32Array] = []
        with progress_on(sys.stderr, shown=progress, total=len(listed)) as on_progress:
            chunks = self._predictor.predict_arrays(listed, on_progress)
            parts.extend(predictions.probabilities for _, (predictions,) in chunks)
        scores = np.concatenate(parts) if parts else np.zeros((0, len(self.labels)), dtype=np.float32)
        return Predictions(labels=[self._label(row) for row in scores], scores=scores)

    def stream(
        self,
        texts: Iterable[Text],
        features: Features | None = None,
        *,
        details: bool | Sequence[str] = False,
        on_progress: ProgressCallback | None = None,
    ) -> Stream:
        """Predict for a stream of texts of any length, in bounded memory.

        Args:
            texts, details, on_progress: as in `Extractor.stream`.
            features: features to compute beside the predictions; None stands for no features.

        Returns:
            An iterator of `FeatureBatch`. Records have the column `head.name` (and `<name>.entities` if the tags mark
            entities), and features have `<name>.scores`; see `layertap.learn.heads.predictor.Predictor`.
        """
        return self._predictor.stream(texts, features, details=details, on_progress=on_progress)

    def _label(self, scores: Float32Array) -> str | tuple[str, ...] | None:
        if self.head.answer == "number":
            return None
        if self.head.answer == "labels":
            return tuple(label for label, score in zip(self.labels, scores, strict=True) if score > LIKELY)
        return self.labels[int(scores.argmax())]

    def _listed(self, texts: Sequence[Text]) -> list[Record]:
        if isinstance(texts, str):
            raise UsageError(
                f"texts: expected a list of texts, found the text {texts:.40}; for a single text write [text]"
            )
        check_iterable(texts)
        return list(as_records(texts, lists=meaning_of_lists([self.head])))

    def __repr__(self) -> str:
        what = "words" if self.head.task == "words" else "texts"
        return f"Classifier({self.extractor.files.checkpoint.name!r}, {len(self.labels)} labels of {what})"


def default_name(model: str) -> str:
    """Return the name of the results of a checkpoint: the last part of its own name."""
    return Path(model).resolve().name if Path(model).exists() else model.rstrip("/").rpartition("/")[2]
