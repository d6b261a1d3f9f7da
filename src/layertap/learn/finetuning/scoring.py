"""Metrics of a training run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from layertap.learn.labels import LabelEncoder
from layertap.learn.metrics import head_scores


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """Metrics by which predictions are measured.

    Attributes:
        encoder: classes, in the order of the outputs of the model, and the tagging scheme.
    """

    encoder: LabelEncoder

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics."""
        return ("accuracy", "macro_f1", "mcc", *(("entity_f1",) if self.encoder.marks_entities else ()))

    def scores(self, gold: Sequence[tuple[str, ...]], predicted: Sequence[int]) -> dict[str, float]:
        """Return the score of each metric.

        Args:
            gold: true labels of N records; one each if texts are labelled.
            predicted: indices of the predicted classes of all records, end to end; -1 for a word without a token.
        """
        classes = self.encoder.classes
        scores = head_scores(self.encoder.scheme, gold, [classes[i] if i >= 0 else None for i in predicted])
        if "entities" in scores:
            scores["entity_f1"] = scores["entities"]["f1"]
        return {name: scores[name] for name in self.metrics}
