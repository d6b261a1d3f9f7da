"""Similarities of vectors, by the names of sentence-transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from layertap.backends.here import require_torch

if TYPE_CHECKING:
    import torch

Similarity = Literal["cosine", "dot", "euclidean", "manhattan"]
SIMILARITIES: tuple[Similarity, ...] = ("cosine", "dot", "euclidean", "manhattan")


def similarity(name: str, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
    """Compare each of N vectors with each of M others: a float32 tensor [N, M].

    Raises:
        BackendError: torch is not installed.
    """
    a, b = _as_matrix(embeddings1), _as_matrix(embeddings2)
    if name in ("euclidean", "manhattan"):
        import torch

        return -torch.cdist(a, b, p=2.0 if name == "euclidean" else 1.0)
    if name == "cosine":
        a, b = _normalized(a), _normalized(b)
    return a @ b.T


def pairwise_similarity(name: str, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
    """Compare each of N vectors with the one in the same place: a float32 tensor [N].

    Raises:
        BackendError: torch is not installed.
    """
    a, b = _as_matrix(embeddings1), _as_matrix(embeddings2)
    if name == "euclidean":
        return -(a - b).square().sum(dim=1).sqrt()
    if name == "manhattan":
        return -(a - b).abs().sum(dim=1)
    if name == "cosine":
        a, b = _normalized(a), _normalized(b)
    return (a * b).sum(dim=1)


def _normalized(vectors: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.nn.functional.normalize(vectors, dim=1)


def _as_matrix(vectors: Any) -> torch.Tensor:
    """Convert a tensor, an array or a list of either to a tensor [N, D]."""
    require_torch("similarity returns tensors and needs torch")
    import torch

    if isinstance(vectors, list | tuple) and vectors and isinstance(vectors[0], torch.Tensor):
        vectors = torch.stack(list(vectors))
    elif not isinstance(vectors, torch.Tensor):
        vectors = torch.as_tensor(np.asarray(vectors))
    matrix: torch.Tensor = vectors if vectors.ndim > 1 else vectors[None]
    return matrix.to(torch.float32)
