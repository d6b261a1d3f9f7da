"""Places of texts on a plane: principal components of each layer, turned onto those of the layer before."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from layertap.learn.arrays import Float32Array, Float64Array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plane:
    """Places of N texts at one layer.

    Attributes:
        points: float32 [N, 2], with a mean of 0 and a mean square distance of 1 from it, or all 0.
        variance: shares of the variance of all dimensions that the two components hold.
        centre: float32 [H], mean of the vectors.
        axes: float32 [H, 2]; a vector minus the centre, times the axes, is its place.
    """

    points: Float32Array
    variance: tuple[float, float]
    centre: Float32Array
    axes: Float32Array

    def places(self, vectors: Float32Array) -> Float32Array:
        """Return the places of further vectors [N, H] of the layer, float32 [N, 2]."""
        placed: Float32Array = np.matmul(vectors - self.centre, self.axes, dtype=np.float32)
        return placed


def planes(layers: Iterable[Float32Array]) -> list[Plane]:
    """Project the vectors of each layer to a plane, and turn each plane onto the one before.

    Args:
        layers: for each layer, float32 [N, H]; sizes H may differ.

    Returns:
        One plane for each layer. Turning (orthogonal Procrustes: a rotation, or a rotation and a reflection) leaves
        all distances within a plane as they are.
    """
    made: list[Plane] = []
    for vectors in layers:
        centre = vectors.mean(axis=0, dtype=np.float64)
        centred = vectors - centre
        axes, variance = principal(centred)
        points = centred @ axes
        if made:
            turned = turn(points, made[-1].points.astype(np.float64))
            points, axes = points @ turned, axes @ turned
        made.append(
            Plane(
                points=points.astype(np.float32),
                variance=variance,
                centre=centre.astype(np.float32),
                axes=axes.astype(np.float32),
            )
        )
    return made


def principal(centred: Float64Array) -> tuple[Float64Array, tuple[float, float]]:
    """Return the axes [H, 2] of the first two principal components of vectors with a mean of 0, and their shares.

    The axes scale the components to a mean square radius of 1. Each has the sign that makes its largest coefficient
    positive, so that equal vectors give equal planes.
    """
    strengths, axes = np.linalg.eigh(centred.T @ centred)
    first = axes[:, ::-1][:, :2]
    first = first * np.sign(first[np.abs(first).argmax(axis=0), np.arange(first.shape[1])])
    both: Float64Array = np.zeros((centred.shape[1], 2))
    total, shares = strengths.clip(0).sum(), [*strengths[::-1].clip(0)[:2], 0.0][:2]
    if not total > np.finfo(np.float64).tiny:
        return both, (0.0, 0.0)
    both[:, : first.shape[1]] = first / np.sqrt(np.square(centred @ first).sum(axis=1).mean())
    return both, (float(shares[0] / total), float(shares[1] / total))


def turn(points: Float64Array, onto: Float64Array) -> Float64Array:
    """Return the orthogonal matrix [2, 2] that brings N points closest to N others, by least squares."""
    left, _, right = np.linalg.svd(points.T @ onto)
    turned: Float64Array = left @ right
    return turned


def extent(made: list[Plane]) -> tuple[float, float, float, float]:
    """Return half width, half height, and x and y of the centre of what holds 99 % of the points in each direction."""
    points = np.concatenate([plane.points for plane in made])
    low, high = np.quantile(points, (0.005, 0.995), axis=0) if len(points) else np.array([[-1.0, -1.0], [1.0, 1.0]])
    width, height = np.maximum((high - low) / 2, 1e-6).tolist()
    x, y = ((low + high) / 2).tolist()
    return width, height, x, y
