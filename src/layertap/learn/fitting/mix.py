"""Learned mix of layers, whose shares are learned on held-out examples.

A softmax mix trained together with the classifier, as in ELMo, prefers the layer that fits the training examples best,
which is often one that overfits. Here a classifier is fitted to every layer first, and its cross-entropy on held-out
examples gives the shares: softmax(-sharpness * loss). The sharpness is chosen on the same held-out examples, between
the mean of all layers and the best layer alone. All layers are scaled to the size of the vectors of the best one, so
that a layer with large values gets no larger share.

Shape letters: L layers, N examples, H size of a vector.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from layertap.learn.arrays import BoolArray, Float32Array, Float64Array, Int64Array
from layertap.learn.fitting.linear import OnIteration, SolverOptions, TrainingData, cross_entropy, fit_linear

SHARPNESSES = (0.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0)
"""Sharpnesses that are tried, beside the best layer alone."""

MAX_EXAMPLES = 20_000
"""Maximum number of examples that the shares are learned from, and of held-out ones."""

Allocate = Callable[[int, int, int], Float32Array]
"""Function that allocates a float32 array [L, N, H]."""


def in_memory(layers: int, count: int, width: int) -> Float32Array:
    """Allocate an array in memory."""
    return np.empty((layers, count, width), dtype=np.float32)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerMix:
    """Weighted sum of layers.

    Attributes:
        factors: float64 [L]; mixed vectors are the sum of the layers times these.
        shares: float64 [L], non-negative with the sum 1: weights of the layers if all had vectors of one size.
        sharpness: chosen sharpness; None stands for the best layer alone.
        losses: float64 [L], mean cross-entropy of each layer alone on held-out examples.
        loss: mean cross-entropy of the mix on held-out examples.
    """

    factors: Float64Array
    shares: Float64Array
    sharpness: float | None
    losses: Float64Array
    loss: float

    def apply(self, data: TrainingData, allocate: Allocate = in_memory) -> TrainingData:
        """Return the data with mixed vectors, [1, N, H]."""
        return _mixed(data, self.factors, allocate(1, *data.vectors.shape[1:]))


def learn_mix(
    train: TrainingData,
    validation: TrainingData | None,
    num_classes: int,
    solver: SolverOptions,
    *,
    held_out: BoolArray | None = None,
    allocate: Allocate = in_memory,
    seed: int = 0,
    on_fit: Callable[[str], OnIteration | None] = lambda _: None,
) -> LayerMix:
    """Learn the shares of the layers.

    Args:
        train: training data with all layers.
        validation: validation data, by which fits stop early; None fits to convergence.
        num_classes: number of classes.
        solver: options of the optimiser.
        held_out: bool [N], examples of `train` to hold out if there is no validation data: some, but not all.
        allocate: function that allocates the mixed vectors.
        seed: seed of the sample that is drawn from many examples.
        on_fit: called with what is fitted next; returns the callback for its iterations.
    """
    random = np.random.default_rng(seed)
    if validation is None:
        assert held_out is not None
        learned, measured = (_sample(train, np.flatnonzero(side), random) for side in (~held_out, held_out))
    else:
        learned, measured = (_sample(data, np.arange(len(data.classes)), random) for data in (train, validation))
    layers, _, width = train.vectors.shape
    buffers = [allocate(1, len(rows), width) for _, rows in (learned, measured)]

    def loss_of(factors: Float64Array, what: str) -> float:
        to_fit, to_measure = (
            _mixed(data, factors, out, rows) for (data, rows), out in zip((learned, measured), buffers, strict=True)
        )
        result = fit_linear(
            to_fit,
            num_classes,
            solver,
            validation=None if validation is None else to_measure,
            on_iteration=on_fit(what),
        )
        return cross_entropy(result.parameters, to_measure)

    alone = np.eye(layers)
    losses = np.array([loss_of(layer, f"layer {i + 1} of {layers} alone") for i, layer in enumerate(alone)])
    best = int(losses.argmin())
    sizes = _sizes(train)
    relative = np.divide(sizes[best], sizes, out=np.ones(layers), where=sizes > 0)
    chosen = LayerMix(factors=alone[best], shares=alone[best], sharpness=None, losses=losses, loss=float(losses[best]))
    for number, sharpness in enumerate(SHARPNESSES, start=1):
        shares = np.exp(-sharpness * (losses - losses[best]))
        shares /= shares.sum()
        loss = loss_of(shares * relative, f"mix {number} of {len(SHARPNESSES)}")
        if loss < chosen.loss:
            chosen = replace(chosen, factors=shares * relative, shares=shares, sharpness=sharpness, loss=loss)
    return chosen


_Sampled = tuple[TrainingData, Int64Array]


def _sample(data: TrainingData, rows: Int64Array, random: np.random.Generator) -> _Sampled:
    return data, rows if len(rows) <= MAX_EXAMPLES else np.sort(random.choice(rows, MAX_EXAMPLES, replace=False))


def _mixed(
    data: TrainingData, factors: Float64Array, out: Float32Array, rows: Int64Array | None = None
) -> TrainingData:
    """Write the mixed vectors of all examples, or of some rows, to `out`."""
    chosen = np.arange(len(data.classes)) if rows is None else rows
    (target,) = out
    for block in replace(data, classes=data.classes[chosen]).blocks():
        target[block] = 0
        for factor, layer in zip(factors.astype(np.float32), data.vectors, strict=True):
            if factor:
                target[block] += factor * layer[chosen[block]]
    return TrainingData(vectors=out, classes=data.classes[chosen], weights=data.weights[chosen])


def _sizes(data: TrainingData) -> Float64Array:
    """Return the root mean square distance of the vectors of each layer from their mean, float64 [L]."""
    count = len(data.classes)
    sums = np.zeros((len(data.vectors), data.vectors.shape[2]))
    squares = np.zeros(len(data.vectors))
    for block in data.blocks():
        part = data.vectors[:, block].astype(np.float64)
        sums += part.sum(axis=1)
        squares += np.square(part).sum(axis=(1, 2))
    sizes: Float64Array = np.sqrt(np.maximum(squares / count - np.square(sums / count).sum(axis=1), 0))
    return sizes
