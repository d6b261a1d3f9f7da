"""Predictions of a head: as arrays for a chunk of records, and as one object per text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from layertap.learn.arrays import Float32Array
from layertap.learn.heads.base import PredictionHead, marks_entities
from layertap.learn.tags import OUTSIDE, entities
from layertap.records import Feature, Ragged, Record
from layertap.text.units import UnitFinder

LIKELY = 0.5
"""Probability above which a head that gives any number of labels gives a label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Prediction for one text by a head that gives exactly one label.

    Attributes:
        label: most probable label.
        score: probability of that label.
        scores: mapping from label to probability.
    """

    label: str
    score: float
    scores: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSet:
    """Prediction for one text by a head that gives any number of labels.

    Attributes:
        labels: labels with a probability above 0.5, in the order of the head.
        scores: mapping from label to probability.
    """

    labels: tuple[str, ...]
    scores: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity:
    """Span of a text that BIO or IO tags mark.

    Attributes:
        begin: index of the first character in the text.
        end: index one past the last character.
        label: entity type.
        text: characters of the span.
        score: mean probability of the tags of its words.
    """

    begin: int
    end: int
    label: str
    text: str
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tagging:
    """Prediction for the words of one text.

    Attributes:
        tags: one tag per word; None for a word that the model did not see, as it has no token or was cut off.
        scores: probability of each tag; 0 where there is none.
        words: characters [begin, end) of each word; words given as a list are joined by spaces to one text.
        entities: entities that the tags mark.
    """

    tags: tuple[str | None, ...]
    scores: tuple[float, ...]
    words: tuple[tuple[int, int], ...]
    entities: tuple[Entity, ...]


TextPrediction: TypeAlias = Prediction | LabelSet | Tagging
"""Prediction of a head for one text."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeadPredictions:
    """Predictions of a head for N consecutive records, as arrays.

    Attributes:
        ids: int32 [N] for texts, [M] for words: index of the most probable label; -1 for a word that the model did
            not see.
        probabilities: float32 [N, C] or [M, C]; if the head gives a number, the numbers, [N, 1]. Those of a word that
            the model did not see are 0.
        offsets: int64 [N + 1], words [offsets[i], offsets[i + 1]) belong to record i; None for texts.
    """

    ids: npt.NDArray[np.int32]
    probabilities: Float32Array
    offsets: npt.NDArray[np.int64] | None

    @classmethod
    def of(cls, head: PredictionHead, feature: Feature) -> HeadPredictions:
        """Apply a head to its feature of a chunk of records."""
        values = feature.values if isinstance(feature, Ragged) else feature
        assert isinstance(values, np.ndarray)
        probabilities = head.probabilities(values)
        ids = probabilities.argmax(axis=1).astype(np.int32)
        offsets = feature.offsets if isinstance(feature, Ragged) else None
        if offsets is not None:
            seen = seen_words(values)
            ids[~seen] = -1
            probabilities = probabilities * seen[:, None]
        return cls(ids=ids, probabilities=probabilities, offsets=offsets)

    @property
    def scores(self) -> Float32Array:
        """Probability of the most probable label: float32 [N] or [M]."""
        scores: Float32Array = self.probabilities[np.arange(len(self.ids)), self.ids]
        return scores

    def per_text(self, head: PredictionHead, records: Sequence[Record], finder: UnitFinder) -> list[TextPrediction]:
        """Return one object per record.

        Args:
            head: the head that made the predictions; it gives a label or labels, not a number.
            records: the N records.
            finder: finder of words, with the word pattern of the run.
        """
        if self.offsets is not None:
            return self._taggings(head, records, finder)
        rows = self.probabilities.tolist()
        scores = [dict(zip(head.labels, row, strict=True)) for row in rows]
        if head.answer == "labels":
            likely = [tuple(label for label, score in row.items() if score > LIKELY) for row in scores]
            return [LabelSet(labels=labels, scores=row) for labels, row in zip(likely, scores, strict=True)]
        return [
            Prediction(label=head.labels[i], score=row[i], scores=own)
            for i, row, own in zip(self.ids.tolist(), rows, scores, strict=True)
        ]

    def _taggings(self, head: PredictionHead, records: Sequence[Record], finder: UnitFinder) -> list[TextPrediction]:
        assert self.offsets is not None
        tags, scores = labels_of_ids(head, self.ids), self.scores.tolist()
        taggings: list[TextPrediction] = []
        for record, (begin, end) in zip(records, pairwise(self.offsets.tolist()), strict=True):
            words = tuple((first, last) for first, last in finder.word_chars(record).tolist())
            taggings.append(_tagging(head, record, words, tuple(tags[begin:end]), tuple(scores[begin:end])))
        return taggings


def seen_words(vectors: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return which of M words have a token that the model saw, bool [M]: the vectors of the others are zero."""
    seen: npt.NDArray[np.bool_] = np.any(vectors != 0, axis=tuple(range(1, vectors.ndim)))
    return seen


def labels_of_ids(head: PredictionHead, ids: npt.NDArray[np.int32]) -> list[str | None]:
    """Return the label of each index, or None for -1."""
    return [head.labels[i] if i >= 0 else None for i in ids.tolist()]


def _tagging(
    head: PredictionHead,
    record: Record,
    words: tuple[tuple[int, int], ...],
    tags: tuple[str | None, ...],
    scores: tuple[float, ...],
) -> Tagging:
    marked: list[Entity] = []
    for first, last, label in entities([tag or OUTSIDE for tag in tags]) if marks_entities(head) else ():
        begin, end = words[first][0], words[last - 1][1]
        # Rounded to float32, as files hold the score.
        score = float(np.float32(sum(scores[first:last]) / (last - first)))
        marked.append(Entity(begin=begin, end=end, label=label, text=record.text[begin:end], score=score))
    return Tagging(tags=tags, scores=scores, words=words, entities=tuple(marked))
