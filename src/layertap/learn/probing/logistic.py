"""Linear probe: multinomial logistic regression on standardised features, with C chosen on held-out rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from layertap.learn.arrays import Float32Array, Float64Array, Int64Array

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Inverse strengths C of the L2 penalty that are tried, as defined by scikit-learn."""

MAX_STEPS = 500


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Split:
    """Division of the rows, as arrays of row numbers, int64.

    Attributes:
        train: rows that the final probe is fitted on.
        test: rows that the final probe predicts.
        fit: rows that probes are fitted on to choose C.
        validate: rows that C is chosen on.
    """

    train: Int64Array
    test: Int64Array
    fit: Int64Array
    validate: Int64Array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ProbeResult:
    """Result of a probe on one split.

    Attributes:
        predicted: int64, predicted class of each test row.
        confidence: float64, probability of the predicted class of each test row.
        strength: chosen C.
        validated: int64, predicted class of each validation row with that C.
    """

    predicted: Int64Array
    confidence: Float64Array
    strength: float
    validated: Int64Array


def probe_split(
    vectors: Float32Array, classes: Int64Array, split: Split, measure: Callable[[Int64Array, Int64Array], float]
) -> ProbeResult:
    """Choose C, fit a probe, and predict the test rows.

    Args:
        vectors: float32 [N, H].
        classes: int64 [N], class of each row, 0 to K - 1.
        split: division of the rows.
        measure: metric of predicted classes of some rows, by which C is chosen.
    """
    guesses = _predictions(vectors, classes, fit=split.fit, wanted=split.validate, strengths=STRENGTHS)
    values = [measure(split.validate, guess) for guess, _ in guesses]
    # Ties go to the strongest penalty.
    best = int(np.argmax(values))
    ((predicted, confidence),) = _predictions(
        vectors, classes, fit=split.train, wanted=split.test, strengths=[STRENGTHS[best]]
    )
    return ProbeResult(predicted=predicted, confidence=confidence, strength=STRENGTHS[best], validated=guesses[best][0])


def probe_control(vectors: Float32Array, classes: Int64Array, split: Split, strength: float) -> Int64Array:
    """Fit a probe to other labels of the rows, with a C that was chosen before, and predict the test rows."""
    ((predicted, _),) = _predictions(vectors, classes, fit=split.train, wanted=split.test, strengths=[strength])
    return predicted


def _predictions(
    vectors: Float32Array, classes: Int64Array, *, fit: Int64Array, wanted: Int64Array, strengths: Sequence[float]
) -> list[tuple[Int64Array, Float64Array]]:
    """Predict the classes of the wanted rows and their probabilities, with each C."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    known = vectors[fit]
    mean = known.mean(axis=0, dtype=np.float64)
    deviation = known.std(axis=0, dtype=np.float64)
    # A constant component carries no information.
    scale = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=deviation > 0)

    def standardised(rows: Float32Array) -> Float32Array:
        scaled: Float32Array = ((rows - mean) * scale).astype(np.float32)
        return scaled

    train, test = standardised(known), standardised(vectors[wanted])
    predictions = []
    with warnings.catch_warnings():
        # The ranking of layers settles within these steps; the weakest penalties would take many more.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(max_iter=MAX_STEPS, tol=1e-3, warm_start=True)
        for strength in strengths:
            model.set_params(C=strength).fit(train, classes[fit])
            probabilities = model.predict_proba(test)
            chosen = probabilities.argmax(axis=1)
            confidence = probabilities[np.arange(len(chosen)), chosen].astype(np.float64)
            predictions.append((model.classes_[chosen].astype(np.int64), confidence))
    return predictions
