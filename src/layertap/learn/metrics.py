"""How good predictions are, by scikit-learn and seqeval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from layertap.learn.libraries import require_libraries

Scores = dict[str, Any]


def class_scores(gold: Sequence[str], predicted: Sequence[str]) -> Scores:
    """Accuracy, macro-F1, Matthews correlation, and precision, recall, F1 and support of each class.

    Macro-F1 is over the classes that occur in either; F1 of a class that is never predicted is 0.
    """
    require_libraries("measuring", "sklearn")
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef, precision_recall_fscore_support

    classes = sorted({*gold, *predicted})
    parts = precision_recall_fscore_support(gold, predicted, labels=classes, zero_division=0)
    return {
        "accuracy": float(accuracy_score(gold, predicted)),
        "macro_f1": float(f1_score(gold, predicted, labels=classes, average="macro", zero_division=0)),
        "mcc": float(matthews_corrcoef(gold, predicted)),
        "classes": _by_name(classes, parts),
    }


def entity_scores(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> Scores:
    """Precision, recall and F1 over entities that agree in bounds and type (micro), and of each type.

    Tags are BIO or IO; an entity is what conlleval takes for one.
    """
    require_libraries("measuring entities", "sklearn", "seqeval")
    from seqeval.metrics.sequence_labeling import precision_recall_fscore_support

    truth, found = list(map(list, gold)), list(map(list, predicted))
    kinds = sorted({tag[2:] for tags in (*truth, *found) for tag in tags if tag != "O"})
    if not kinds:
        return {"precision": 0.0, "recall": 0.0, "f1": 0.0, "types": {}}
    precision, recall, f1, _ = precision_recall_fscore_support(truth, found, average="micro", zero_division=0)
    parts = precision_recall_fscore_support(truth, found, average=None, zero_division=0)
    return {
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
        "types": _by_name(kinds, parts),
    }


def _by_name(names: Sequence[str], parts: Sequence[Any]) -> dict[str, dict[str, float | int]]:
    rows = zip(names, *parts, strict=True)
    return {
        name: {"precision": float(precision), "recall": float(recall), "f1": float(f1), "support": int(support)}
        for name, precision, recall, f1, support in rows
    }
