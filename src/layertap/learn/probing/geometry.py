"""Geometry of layers without labels: their similarity, and a projection of texts to a plane."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from layertap.learn.arrays import Float32Array, Float64Array


def similarity(layers: Sequence[Float32Array]) -> Float64Array:
    """Compute the linear CKA of each two sets of vectors of N texts (Kornblith et al. 2019).

    Args:
        layers: F arrays, float32 [N, H]; the sizes H may differ.

    Returns:
        float64 [F, F], with 1 on the diagonal; a layer with constant vectors has the similarity 0 to all.
    """
    centred = [(layer - layer.mean(axis=0, dtype=np.float64)).astype(np.float64) for layer in layers]
    shared = np.array([[np.square(one.T @ other).sum() for other in centred] for one in centred])
    own = np.sqrt(np.diag(shared))
    norms = np.outer(own, own)
    alike: Float64Array = np.divide(shared, norms, out=np.zeros_like(shared), where=norms > 0)
    return alike


def projection(vectors: Float32Array, *, how: str, seed: int) -> Float64Array:
    """Project standardised vectors to a plane by `pca`, or by `tsne` starting from it: float64 [N, 2]."""
    centred = (vectors - vectors.mean(axis=0, dtype=np.float64)).astype(np.float64)
    deviation = centred.std(axis=0)
    standardised = np.divide(centred, deviation, out=np.zeros_like(centred), where=deviation > 0)
    scores, strengths, _ = np.linalg.svd(standardised, full_matrices=False)
    components = (scores * strengths)[:, :2]
    plane: Float64Array = np.zeros((len(vectors), 2))
    plane[:, : components.shape[1]] = components
    spread = plane[:, 0].std()
    if how == "pca" or len(vectors) < 4 or spread == 0:
        return plane
    from sklearn.manifold import TSNE

    # Start from small distances, like scikit-learn.
    start = (plane / spread * 1e-4).astype(np.float32)
    perplexity = min(30.0, (len(vectors) - 1) / 3)
    placed: Float64Array = TSNE(perplexity=perplexity, init=start, random_state=seed).fit_transform(standardised)
    return placed.astype(np.float64)
