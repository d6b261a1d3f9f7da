"""A learned mix of layers: what each counts is learnt from examples that the weights do not see.

A softmax mix trained with the classifier above it, as ELMo's is, takes the layer that fits the training examples best,
which often is one that overfits them. Here every layer gets a classifier of its own first, and its cross-entropy on
held-out examples says what it is good for: the shares are softmax(-sharpness * loss). The sharpness, from the mean of
all layers to the best layer alone, is the one whose mix has the lowest loss on the same held-out examples. Layers are
brought to the size of the best one's vectors, so that large numbers are no large share.

Shape letters: L layers, N examples, H numbers a vector.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from layertap.learn.fitting.linear import Examples, Float32, Float64, Training, cross_entropy, fit_linear

SHARPNESSES = (0.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0)
"""Those tried, beside the best layer alone."""

MOST = 20_000
"""Examples that the choice is made on, at most, and as many held-out ones."""

Room = Callable[[int, int, int], Float32]
"""Gives a float32 array [L, N, H] to be filled."""


def in_memory(layers: int, count: int, width: int) -> Float32:
    """Room that memory has."""
    return np.empty((layers, count, width), dtype=np.float32)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mix:
    """What each layer counts.

    Attributes:
        factors: float64 [L]; mixed vectors are the sum of layers times these.
        shares: float64 [L], at least 0, 1 in all: what each counts where layers are of one size.
        sharpness: that was chosen; None: the best layer alone.
        losses: float64 [L], mean cross-entropy of each layer alone on held-out examples.
        loss: of the mix.
    """

    factors: Float64
    shares: Float64
    sharpness: float | None
    losses: Float64
    loss: float

    def of(self, examples: Examples, room: Room = in_memory) -> Examples:
        """Mixed vectors [1, N, H]."""
        return _mixed(examples, self.factors, room(1, *examples.vectors.shape[1:]))


def learnt_mix(
    train: Examples,
    held: Examples | None,
    num_classes: int,
    training: Training,
    *,
    apart: npt.NDArray[np.bool_] | None = None,
    room: Room = in_memory,
    seed: int = 0,
) -> Mix:
    """Learns what each layer counts.

    Args:
        train: examples with all layers.
        held: a validation part, by which fits stop early; None: they go on to convergence.
        num_classes: of the examples.
        training: of the classifiers.
        apart: bool [N], examples of `train` to hold out where there is no validation part: some, not all.
        room: for mixed vectors.
        seed: of a sample of many examples.
    """
    random = np.random.default_rng(seed)
    if held is None:
        assert apart is not None
        learnt, judged = (_sample(train, np.flatnonzero(side), random) for side in (~apart, apart))
    else:
        learnt, judged = (_sample(part, np.arange(len(part.classes)), random) for part in (train, held))
    layers, _, width = train.vectors.shape
    rooms = [room(1, len(rows), width) for _, rows in (learnt, judged)]

    def loss_of(factors: Float64) -> float:
        fit, seen = (
            _mixed(part, factors, out, rows) for (part, rows), out in zip((learnt, judged), rooms, strict=True)
        )
        fitted = fit_linear(fit, num_classes, training, validation=None if held is None else seen)
        return cross_entropy(fitted.parameters, seen)

    alone = np.eye(layers)
    losses = np.array([loss_of(layer) for layer in alone])
    best = int(losses.argmin())
    sizes = _sizes(train)
    relative = np.divide(sizes[best], sizes, out=np.ones(layers), where=sizes > 0)
    chosen = Mix(factors=alone[best], shares=alone[best], sharpness=None, losses=losses, loss=float(losses[best]))
    for sharpness in SHARPNESSES:
        shares = np.exp(-sharpness * (losses - losses[best]))
        shares /= shares.sum()
        loss = loss_of(shares * relative)
        if loss < chosen.loss:
            chosen = replace(chosen, factors=shares * relative, shares=shares, sharpness=sharpness, loss=loss)
    return chosen


_Sampled = tuple[Examples, npt.NDArray[np.int64]]


def _sample(examples: Examples, rows: npt.NDArray[np.int64], random: np.random.Generator) -> _Sampled:
    return examples, rows if len(rows) <= MOST else np.sort(random.choice(rows, MOST, replace=False))


def _mixed(examples: Examples, factors: Float64, out: Float32, rows: npt.NDArray[np.int64] | None = None) -> Examples:
    """Mixed vectors of all examples, or of some, in `out`."""
    places = np.arange(len(examples.classes)) if rows is None else rows
    (target,) = out
    for block in replace(examples, classes=examples.classes[places]).blocks():
        target[block] = 0
        for factor, layer in zip(factors.astype(np.float32), examples.vectors, strict=True):
            if factor:
                target[block] += factor * layer[places[block]]
    return Examples(vectors=out, classes=examples.classes[places], weights=examples.weights[places])


def _sizes(examples: Examples) -> Float64:
    """float64 [L]: how far the vectors of each layer lie from their mean."""
    count = len(examples.classes)
    sums = np.zeros((len(examples.vectors), examples.vectors.shape[2]))
    squares = np.zeros(len(examples.vectors))
    for block in examples.blocks():
        part = examples.vectors[:, block].astype(np.float64)
        sums += part.sum(axis=1)
        squares += np.square(part).sum(axis=(1, 2))
    found: Float64 = np.sqrt(np.maximum(squares / count - np.square(sums / count).sum(axis=1), 0))
    return found
