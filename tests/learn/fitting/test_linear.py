"""The fit against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed (extra: learn)")

from sklearn.linear_model import LogisticRegression

from layertap.learn.fitting import linear
from layertap.learn.fitting.linear import SolverOptions, TrainingData, cross_entropy, fit_linear


def examples(*, layers: int = 1, count: int = 200, width: int = 6, classes: int = 3, seed: int = 0) -> TrainingData:
    random = np.random.default_rng(seed)
    vectors = random.standard_normal((layers, count, width)).astype(np.float32)
    truth = random.standard_normal((width, classes))
    labels = (vectors[-1] @ truth + random.standard_normal((count, classes))).argmax(axis=1)
    return TrainingData(vectors=vectors, classes=labels, weights=np.ones(count))


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("l2", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("balanced", [False, True])
def test_the_solution_is_that_of_scikit_learn(classes, l2, balanced, monkeypatch):
    monkeypatch.setattr(linear, "BLOCK_VALUES", 600)  # several blocks
    data = examples(classes=classes)
    if balanced:
        counts = np.bincount(data.classes)
        each = len(data.classes) / (classes * counts)
        data = TrainingData(vectors=data.vectors, classes=data.classes, weights=each[data.classes])
    oracle = LogisticRegression(C=1 / l2, tol=1e-10, max_iter=5000, class_weight="balanced" if balanced else None).fit(
        data.vectors[0].astype(np.float64), data.classes
    )
    fitted = fit_linear(data, classes, SolverOptions(l2=l2, tolerance=1e-7))
    weight, bias = fitted.parameters.for_classes()
    logits = data.vectors[0] @ weight.T + bias
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    found = powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found, oracle.predict_proba(data.vectors[0].astype(np.float64)), atol=2e-4)
    assert fitted.ended.startswith("converged")


def test_early_stopping_keeps_the_best_of_the_validation_part():
    data = examples(count=40, width=30, classes=2)
    held = examples(count=200, width=30, classes=2)
    held = TrainingData(
        vectors=held.vectors, classes=np.random.default_rng(3).permutation(held.classes), weights=held.weights
    )
    to_the_end = fit_linear(data, 2, SolverOptions(l2=1e-4))
    fitted = fit_linear(data, 2, SolverOptions(l2=1e-4, patience=3), validation=held)
    assert fitted.ended == "stopped early"
    assert fitted.validation_loss == pytest.approx(cross_entropy(fitted.parameters, held))
    assert fitted.validation_loss < cross_entropy(to_the_end.parameters, held)
    assert fitted.iterations < to_the_end.iterations


def test_the_limit_of_iterations_is_said():
    assert fit_linear(examples(), 3, SolverOptions(max_iterations=2)).ended == "at the limit of iterations"


def test_the_same_numbers_again():
    first, second = (fit_linear(examples(), 3, SolverOptions()).parameters.flat() for _ in range(2))
    np.testing.assert_array_equal(first, second)
