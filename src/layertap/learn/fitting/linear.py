"""Multinomial logistic regression by L-BFGS.

The loss is that of scikit-learn (`LogisticRegression` with C = 1 / l2): the weighted cross-entropy of all examples plus
l2 / 2 times the squared weights; the bias is not penalised. Two classes share one vector of weights. The problem is
convex, so that the solution depends on no seed.

Shape letters: L layers (1 for the vectors that are fitted to), N examples, H size of a vector, C classes, K rows of
weights (1 if C is 2, else C).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from layertap.learn.arrays import Float32Array, Float64Array, Int64Array
from layertap.learn.libraries import require_libraries

BLOCK_VALUES = 1 << 22
"""Values of one block of examples, which a pass over the data holds at a time."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingData:
    """Labelled vectors: to learn from, or to validate on.

    Attributes:
        vectors: float32 [L, N, H], in memory or mapped from a file.
        classes: int64 [N], index of the class of each example.
        weights: float64 [N], weight of each example.
    """

    vectors: Float32Array
    classes: Int64Array
    weights: Float64Array

    def blocks(self) -> Iterator[slice]:
        """Yield slices that cover all examples."""
        layers, count, width = self.vectors.shape
        size = max(64, BLOCK_VALUES // (layers * width))
        for begin in range(0, count, size):
            yield slice(begin, min(begin + size, count))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Parameters:
    """Parameters of a linear layer.

    Attributes:
        weight: float64 [K, H].
        bias: float64 [K].
    """

    weight: Float64Array
    bias: Float64Array

    @classmethod
    def of(cls, flat: Float64Array, rows: int) -> Parameters:
        """Split one vector into the parameters."""
        return cls(weight=flat[:-rows].reshape(rows, -1), bias=flat[-rows:])

    def flat(self) -> Float64Array:
        """Join all parameters into one vector."""
        return np.concatenate([self.weight.ravel(), self.bias])

    def for_classes(self) -> tuple[Float32Array, Float32Array]:
        """Return float32 weight [C, H] and bias [C] that give the same probabilities by a softmax over C classes."""
        weight, bias = self.weight, self.bias
        if len(bias) == 1:
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        return weight.astype(np.float32), bias.astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class SolverOptions:
    """Options of the optimiser.

    Attributes:
        l2: strength of the L2 penalty, 1 / C of scikit-learn.
        max_iterations: maximum number of iterations of L-BFGS.
        tolerance: the fit has converged if no component of the gradient of the mean loss is larger.
        patience: with validation data, the number of iterations without a lower validation loss after which the fit
            stops.
    """

    l2: float = 1.0
    max_iterations: int = 1000
    tolerance: float = 1e-4
    patience: int = 10


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FitResult:
    """Result of a fit.

    Attributes:
        parameters: parameters with the lowest validation loss; without validation data, the last ones.
        iterations: number of iterations that led to the parameters.
        ended: reason for the end: "converged", "converged as far as float32 goes", "stopped early" or "at the limit of
            iterations".
        loss: mean cross-entropy on the training data.
        validation_loss: mean cross-entropy on the validation data, or None.
    """

    parameters: Parameters
    iterations: int
    ended: str
    loss: float
    validation_loss: float | None


OnIteration = Callable[[int, float], None]
"""Callback after every iteration, called with its number and the penalised mean loss."""


def fit_linear(
    data: TrainingData,
    num_classes: int,
    solver: SolverOptions,
    *,
    validation: TrainingData | None = None,
    on_iteration: OnIteration | None = None,
) -> FitResult:
    """Fit a linear layer to labelled vectors; equal data and threads give equal numbers.

    Args:
        data: labelled vectors of one layer.
        num_classes: C.
        solver: options of the optimiser.
        validation: data for early stopping; None fits to convergence.
        on_iteration: called after every iteration.
    """
    require_libraries("fitting a head", "sklearn")
    from scipy.optimize import minimize

    rows, width = 1 if num_classes == 2 else num_classes, data.vectors.shape[2]
    start = Parameters(weight=np.zeros((rows, width)), bias=np.zeros(rows))
    total = float(data.weights.sum())
    monitor = _ValidationMonitor(validation, solver.patience, rows, on_iteration)

    def loss_and_gradient(flat: Float64Array) -> tuple[float, Float64Array]:
        return _penalised(Parameters.of(flat, rows), data, solver.l2, total)

    solution = minimize(
        loss_and_gradient,
        start.flat(),
        jac=True,
        method="L-BFGS-B",
        callback=monitor,
        # as in scikit-learn
        options={"maxiter": solver.max_iterations, "maxls": 50, "gtol": solver.tolerance, "ftol": 64 * 2.2e-16},
    )
    best = monitor.best if monitor.best is not None else solution.x
    parameters = Parameters.of(best, rows)
    return FitResult(
        parameters=parameters,
        iterations=monitor.best_iteration if monitor.best is not None else int(solution.nit),
        ended="stopped early" if monitor.stopped else "converged" if solution.success else _reason(solution),
        loss=cross_entropy(parameters, data),
        validation_loss=None if validation is None else monitor.lowest,
    )


def cross_entropy(parameters: Parameters, data: TrainingData) -> float:
    """Return the weighted mean cross-entropy."""
    loss = 0.0
    for block in data.blocks():
        loss += _loss(_logits(parameters, data.vectors[0, block]), data.classes[block], data.weights[block])[0]
    return loss / float(data.weights.sum())


class _ValidationMonitor:
    """Callback that measures the validation loss after every iteration, and keeps the best parameters."""

    def __init__(
        self, validation: TrainingData | None, patience: int, rows: int, on_iteration: OnIteration | None
    ) -> None:
        self._validation = validation
        self._patience = patience
        self._rows = rows
        self._on_iteration = on_iteration
        self.iteration = self.best_iteration = 0
        self.best: Float64Array | None = None
        self.lowest = np.inf
        self.stopped = False

    def __call__(self, intermediate_result: Any) -> None:
        self.iteration += 1
        if self._on_iteration is not None:
            self._on_iteration(self.iteration, float(intermediate_result.fun))
        if self._validation is None:
            return
        loss = cross_entropy(Parameters.of(intermediate_result.x, self._rows), self._validation)
        if loss < self.lowest:
            self.lowest, self.best, self.best_iteration = loss, intermediate_result.x.copy(), self.iteration
        elif self.iteration - self.best_iteration >= self._patience:
            self.stopped = True
            raise StopIteration  # ends the search of scipy


def _reason(solution: Any) -> str:
    # A search that cannot go lower, because float32 has no finer steps, has converged too.
    return "at the limit of iterations" if solution.status == 1 else "converged as far as float32 goes"


def _penalised(parameters: Parameters, data: TrainingData, l2: float, total: float) -> tuple[float, Float64Array]:
    """Return the penalised loss and its gradient, both divided by the total weight."""
    loss = 0.5 * l2 * float(np.vdot(parameters.weight, parameters.weight))
    to_weight, to_bias = l2 * parameters.weight, np.zeros_like(parameters.bias)
    for block in data.blocks():
        vectors = data.vectors[0, block]
        part, errors = _loss(_logits(parameters, vectors), data.classes[block], data.weights[block])
        loss += part
        to_bias += errors.sum(axis=0)
        to_weight += errors.astype(np.float32).T @ vectors
    return loss / total, Parameters(weight=to_weight, bias=to_bias).flat() / total


def _logits(parameters: Parameters, vectors: Float32Array) -> Float64Array:
    """Return the logits of n vectors, float64 [n, K]."""
    return (vectors @ parameters.weight.astype(np.float32).T).astype(np.float64) + parameters.bias


def _loss(logits: Float64Array, classes: Int64Array, weights: Float64Array) -> tuple[float, Float64Array]:
    """Return the weighted cross-entropy of n examples, and its gradient with respect to the logits, [n, K]."""
    if logits.shape[1] == 1:
        margin = logits[:, 0]
        positive = classes == 1
        loss = np.logaddexp(0.0, np.where(positive, -margin, margin))
        errors = (0.5 * (1 + np.tanh(0.5 * margin)) - positive)[:, None]
    else:
        shifted = logits - logits.max(axis=1, keepdims=True)
        errors = np.exp(shifted)
        sums = errors.sum(axis=1, keepdims=True)
        rows = np.arange(len(classes))
        loss = np.log(sums[:, 0]) - shifted[rows, classes]
        errors /= sums
        errors[rows, classes] -= 1
    return float(loss @ weights), errors * weights[:, None]
