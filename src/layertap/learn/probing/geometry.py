"""What layers look like without labels: how alike they are, and where texts lie."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from layertap.learn.arrays import Float32Array
from layertap.learn.metrics import Floats


def similarity(layers: Sequence[Float32Array]) -> Floats:
    """Linear CKA between each two sets of vectors of the same texts (Kornblith et al. 2019).

    Args:
        layers: F arrays float32 [N, H], of any H.

    Returns:
        float64 [F, F], 1 on the diagonal; a layer whose vectors are all the same is alike to none (0).
    """
    centred = [(layer - layer.mean(axis=0, dtype=np.float64)).astype(np.float64) for layer in layers]
    shared = np.array([[np.square(one.T @ other).sum() for other in centred] for one in centred])
    own = np.sqrt(np.diag(shared))
    norms = np.outer(own, own)
    alike: Floats = np.divide(shared, norms, out=np.zeros_like(shared), where=norms > 0)
    return alike


def projection(vectors: Float32Array, *, how: str, seed: int) -> Floats:
    """float64 [N, 2]: standardised vectors on a plane, by `pca` or `tsne` (started from it)."""
    centred = (vectors - vectors.mean(axis=0, dtype=np.float64)).astype(np.float64)
    deviation = centred.std(axis=0)
    standardised = np.divide(centred, deviation, out=np.zeros_like(centred), where=deviation > 0)
    scores, strengths, _ = np.linalg.svd(standardised, full_matrices=False)
    components = (scores * strengths)[:, :2]
    plane: Floats = np.zeros((len(vectors), 2))
    plane[:, : components.shape[1]] = components
    spread = plane[:, 0].std()
    if how == "pca" or len(vectors) < 4 or spread == 0:
        return plane
    from sklearn.manifold import TSNE

    # As scikit-learn starts it: from small distances.
    start = (plane / spread * 1e-4).astype(np.float32)
    perplexity = min(30.0, (len(vectors) - 1) / 3)
    placed: Floats = TSNE(perplexity=perplexity, init=start, random_state=seed).fit_transform(standardised)
    return placed.astype(np.float64)
