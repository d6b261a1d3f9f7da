"""A regularised linear probe: standardised features, multinomial logistic regression, C chosen on held-out rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from layertap.learn.arrays import Float32Array
from layertap.learn.metrics import Classes
from layertap.learn.probing.bootstrap import Rows

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Inverse strengths C of the L2 penalty that are tried, as scikit-learn has them."""

MAX_STEPS = 500


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Split:
    """One division of the rows: int64 row numbers.

    Attributes:
        train: what the probe is fitted on in the end.
        test: what it predicts.
        fit, validate: what C is chosen on.
    """

    train: Rows
    test: Rows
    fit: Rows
    validate: Rows


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fitted:
    """What a probe did on one split.

    Attributes:
        predicted: classes of the split's test rows.
        strength: the C chosen.
        validation: the metric on the validation rows, with that C.
    """

    predicted: Classes
    strength: float
    validation: float


def probe_split(
    vectors: Float32Array, classes: Classes, split: Split, measure: Callable[[Rows, Classes], float]
) -> Fitted:
    """Chooses C, fits, predicts.

    Args:
        vectors: float32 [N, H].
        classes: int64 [N], 0 .. K-1.
        split: which rows are what.
        measure: how good predictions of some rows are; what C is chosen by.
    """
    guesses = _predictions(vectors, classes, fit=split.fit, wanted=split.validate, strengths=STRENGTHS)
    values = [measure(split.validate, guess) for guess in guesses]
    # Of equals, the strongest penalty.
    best = int(np.argmax(values))
    (predicted,) = _predictions(vectors, classes, fit=split.train, wanted=split.test, strengths=[STRENGTHS[best]])
    return Fitted(predicted=predicted, strength=STRENGTHS[best], validation=values[best])


def probe_control(vectors: Float32Array, classes: Classes, split: Split, strength: float) -> Classes:
    """Predicts other labels for the same rows, with a C that was chosen before."""
    (predicted,) = _predictions(vectors, classes, fit=split.train, wanted=split.test, strengths=[strength])
    return predicted


def _predictions(
    vectors: Float32Array, classes: Classes, *, fit: Rows, wanted: Rows, strengths: Sequence[float]
) -> list[Classes]:
    """Classes of the wanted rows, for each C in its turn."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    known = vectors[fit]
    mean = known.mean(axis=0, dtype=np.float64)
    deviation = known.std(axis=0, dtype=np.float64)
    # A number that is the same everywhere tells nothing.
    scale = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=deviation > 0)

    def standardised(rows: Float32Array) -> Float32Array:
        scaled: Float32Array = ((rows - mean) * scale).astype(np.float32)
        return scaled

    train, test = standardised(known), standardised(vectors[wanted])
    found = []
    with warnings.catch_warnings():
        # After so many steps the ranking of layers has settled; the weakest penalties go on for long.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(max_iter=MAX_STEPS, tol=1e-3, warm_start=True)
        for strength in strengths:
            model.set_params(C=strength).fit(train, classes[fit])
            found.append(model.predict(test).astype(np.int64))
    return found
