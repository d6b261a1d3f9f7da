"""Score predictions with scikit-learn and seqeval, for both sides alike."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.learning.tasks import Part

METRICS = {"accuracy": "accuracy", "macro_f1": "macro-F1", "mcc": "Matthews correlation", "entity_f1": "entity F1"}
"""Metrics by their name in the results, with their name in tables."""


def scores_of(gold: Part, predicted: Sequence[str], *, metrics: Sequence[str]) -> dict[str, float]:
    """Compute the requested metrics.

    Args:
        gold: a part with N labelled items.
        predicted: predicted labels of all items, laid end to end.
        metrics: names of metrics, keys of `METRICS`.
    """
    from seqeval.metrics import f1_score as entity_f1
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

    truth, labels = gold.flat, list(predicted)
    assert len(truth) == len(labels)
    scores: dict[str, float] = {}
    for metric in metrics:
        if metric == "accuracy":
            scores[metric] = float(accuracy_score(truth, labels))
        elif metric == "macro_f1":
            scores[metric] = float(f1_score(truth, labels, average="macro", zero_division=0))
        elif metric == "mcc":
            scores[metric] = float(matthews_corrcoef(truth, labels))
        else:
            left = iter(labels)
            sentences = [[next(left) for _ in tags] for tags in gold.labels]
            scores[metric] = float(entity_f1([list(tags) for tags in gold.labels], sentences, zero_division=0))
    return scores
