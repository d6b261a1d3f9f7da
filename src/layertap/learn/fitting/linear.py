"""Multinomial logistic regression on vectors, by L-BFGS.

The loss is scikit-learn's (`LogisticRegression` with C = 1 / l2): the weighted cross-entropy of all examples plus
l2 / 2 times the squared weights; the bias is free. Two classes share one vector of weights. The problem is convex: its
solution depends on no seed.

Shape letters: L layers (1 where vectors are fitted to), N examples, H numbers a vector, C classes, K rows of weights (1
where C is 2, else C).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from layertap.learn.libraries import require_libraries

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

BLOCK_VALUES = 1 << 22
"""Numbers of a block of examples: what one step over the data holds at a time."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Examples:
    """What is learnt from, or measured on.

    Attributes:
        vectors: float32 [L, N, H], in memory or mapped from a file.
        classes: int64 [N], below C.
        weights: float64 [N], how much each counts.
    """

    vectors: Float32
    classes: npt.NDArray[np.int64]
    weights: Float64

    def blocks(self) -> Iterator[slice]:
        """Runs of examples that together are all of them."""
        layers, count, width = self.vectors.shape
        size = max(64, BLOCK_VALUES // (layers * width))
        for begin in range(0, count, size):
            yield slice(begin, min(begin + size, count))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Parameters:
    """A linear layer.

    Attributes:
        weight: [K, H].
        bias: [K].
    """

    weight: Float64
    bias: Float64

    @classmethod
    def of(cls, flat: Float64, rows: int) -> Parameters:
        """Parameters out of one vector."""
        return cls(weight=flat[:-rows].reshape(rows, -1), bias=flat[-rows:])

    def flat(self) -> Float64:
        """One vector of all."""
        return np.concatenate([self.weight.ravel(), self.bias])

    def for_classes(self) -> tuple[Float32, Float32]:
        """Weight [C, H] and bias [C] whose softmax over C classes is the same."""
        weight, bias = self.weight, self.bias
        if len(bias) == 1:
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        return weight.astype(np.float32), bias.astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How to fit.

    Attributes:
        l2: how strongly weights are held back.
        max_iterations: of L-BFGS.
        tolerance: the fit ends where no slope of the mean loss is above it.
        patience: with a validation part, iterations without a lower loss there after which the fit ends.
    """

    l2: float = 1.0
    max_iterations: int = 1000
    tolerance: float = 1e-4
    patience: int = 10


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fitted:
    """The end of a fit.

    Attributes:
        parameters: with a validation part the best there, else the last.
        iterations: that led to them.
        ended: "converged", "stopped early" or "at the limit of iterations".
        loss: mean cross-entropy in training.
        validation_loss: mean cross-entropy on the validation part, or None.
    """

    parameters: Parameters
    iterations: int
    ended: str
    loss: float
    validation_loss: float | None


def fit_linear(
    examples: Examples, num_classes: int, training: Training, *, validation: Examples | None = None
) -> Fitted:
    """Fits weights to examples; the same numbers for the same input and threads.

    Args:
        examples: of one layer.
        num_classes: C.
        training: how.
        validation: part for early stopping; None: to convergence.
    """
    require_libraries("fitting a head", "sklearn")
    from scipy.optimize import minimize

    rows, width = 1 if num_classes == 2 else num_classes, examples.vectors.shape[2]
    start = Parameters(weight=np.zeros((rows, width)), bias=np.zeros(rows))
    total = float(examples.weights.sum())
    watch = _Watch(validation, training.patience, rows)

    def slope(flat: Float64) -> tuple[float, Float64]:
        return _penalised(Parameters.of(flat, rows), examples, training.l2, total)

    found = minimize(
        slope,
        start.flat(),
        jac=True,
        method="L-BFGS-B",
        callback=watch,
        # as scikit-learn has them
        options={"maxiter": training.max_iterations, "maxls": 50, "gtol": training.tolerance, "ftol": 64 * 2.2e-16},
    )
    best = watch.best if watch.best is not None else found.x
    parameters = Parameters.of(best, rows)
    return Fitted(
        parameters=parameters,
        iterations=watch.best_iteration if watch.best is not None else int(found.nit),
        ended="stopped early" if watch.stopped else "converged" if found.success else _why(found),
        loss=cross_entropy(parameters, examples),
        validation_loss=None if validation is None else watch.lowest,
    )


def cross_entropy(parameters: Parameters, examples: Examples) -> float:
    """The weighted mean cross-entropy."""
    loss = 0.0
    for block in examples.blocks():
        loss += _loss(
            _logits(parameters, examples.vectors[0, block]), examples.classes[block], examples.weights[block]
        )[0]
    return loss / float(examples.weights.sum())


class _Watch:
    """Looks at the validation part after every iteration, and remembers the best."""

    def __init__(self, validation: Examples | None, patience: int, rows: int) -> None:
        self._validation = validation
        self._patience = patience
        self._rows = rows
        self.iteration = self.best_iteration = 0
        self.best: Float64 | None = None
        self.lowest = np.inf
        self.stopped = False

    def __call__(self, intermediate_result: Any) -> None:
        self.iteration += 1
        if self._validation is None:
            return
        loss = cross_entropy(Parameters.of(intermediate_result.x, self._rows), self._validation)
        if loss < self.lowest:
            self.lowest, self.best, self.best_iteration = loss, intermediate_result.x.copy(), self.iteration
        elif self.iteration - self.best_iteration >= self._patience:
            self.stopped = True
            raise StopIteration  # which ends scipy's search


def _why(found: Any) -> str:
    # A search that can go no lower, because float32 has no finer steps, has arrived as well.
    return "at the limit of iterations" if found.status == 1 else "converged as far as float32 goes"


def _penalised(parameters: Parameters, examples: Examples, l2: float, total: float) -> tuple[float, Float64]:
    """The loss and its slope, both divided by the weights' total."""
    loss = 0.5 * l2 * float(np.vdot(parameters.weight, parameters.weight))
    to_weight, to_bias = l2 * parameters.weight, np.zeros_like(parameters.bias)
    for block in examples.blocks():
        vectors = examples.vectors[0, block]
        part, errors = _loss(_logits(parameters, vectors), examples.classes[block], examples.weights[block])
        loss += part
        to_bias += errors.sum(axis=0)
        to_weight += errors.astype(np.float32).T @ vectors
    return loss / total, Parameters(weight=to_weight, bias=to_bias).flat() / total


def _logits(parameters: Parameters, vectors: Float32) -> Float64:
    """[n, K]."""
    return (vectors @ parameters.weight.astype(np.float32).T).astype(np.float64) + parameters.bias


def _loss(logits: Float64, classes: npt.NDArray[np.int64], weights: Float64) -> tuple[float, Float64]:
    """The weighted cross-entropy of n examples, and its slope [n, K] by logit."""
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
