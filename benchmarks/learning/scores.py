"""Figures of predictions, by scikit-learn and seqeval themselves: the same for both sides."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.learning.tasks import Part

METRICS = {"accuracy": "accuracy", "macro_f1": "macro-F1", "mcc": "Matthews correlation", "entity_f1": "entity F1"}
"""Name in the results -> in tables."""


def scores_of(gold: Part, predicted: Sequence[str], *, metrics: Sequence[str]) -> dict[str, float]:
    """The metrics asked for.

    Args:
        gold: N items.
        predicted: labels, laid end to end.
        metrics: of `METRICS`.
    """
    from seqeval.metrics import f1_score as entity_f1
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

    truth, found = gold.flat, list(predicted)
    assert len(truth) == len(found)
    scores: dict[str, float] = {}
    for metric in metrics:
        if metric == "accuracy":
            scores[metric] = float(accuracy_score(truth, found))
        elif metric == "macro_f1":
            scores[metric] = float(f1_score(truth, found, average="macro", zero_division=0))
        elif metric == "mcc":
            scores[metric] = float(matthews_corrcoef(truth, found))
        else:
            left = iter(found)
            sentences = [[next(left) for _ in tags] for tags in gold.labels]
            scores[metric] = float(entity_f1([list(tags) for tags in gold.labels], sentences, zero_division=0))
    return scores
