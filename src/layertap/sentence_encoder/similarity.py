"""Similarities of vectors, by the names of sentence-transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from layertap.backends.here import require_torch
from layertap.errors import OptionError

if TYPE_CHECKING:
    import torch

Similarity = Literal["cosine", "dot", "euclidean", "manhattan"]
SIMILARITIES: tuple[Similarity, ...] = ("cosine", "dot", "euclidean", "manhattan")


def similarity(name: str, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
    """Compare each of N vectors with each of M others: a float32 tensor [N, M].

    Raises:
        OptionError: what is no vectors, or vectors of unlike widths.
        BackendError: torch is not installed.
    """
    a, b = _as_matrices(embeddings1, embeddings2)
    if name in ("euclidean", "manhattan"):
        import torch

        return -torch.cdist(a, b, p=2.0 if name == "euclidean" else 1.0)
    if name == "cosine":
        a, b = _normalized(a), _normalized(b)
    return a @ b.T


def pairwise_similarity(name: str, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
    """Compare each of N vectors with the one in the same place: a float32 tensor [N].

    Raises:
        OptionError: what is no vectors, or vectors of unlike widths or numbers.
        BackendError: torch is not installed.
    """
    a, b = _as_matrices(embeddings1, embeddings2)
    if len(a) != len(b) and 1 not in (len(a), len(b)):
        raise OptionError(f"expected pairs of vectors; there are {len(a)} and {len(b)}")
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


def _as_matrices(first: Any, second: Any) -> tuple[torch.Tensor, torch.Tensor]:
    a, b = _as_matrix(first), _as_matrix(second)
    if a.shape[1] != b.shape[1]:
        raise OptionError(f"expected vectors of one width; they have {a.shape[1]} and {b.shape[1]} numbers")
    return a, b


def _as_matrix(vectors: Any) -> torch.Tensor:
    """Convert a tensor, an array or a list of either to a tensor [N, D]."""
    require_torch("similarity returns tensors and needs torch")
    import torch

    try:
        if isinstance(vectors, list | tuple) and vectors and isinstance(vectors[0], torch.Tensor):
            vectors = torch.stack(list(vectors))
        elif not isinstance(vectors, torch.Tensor):
            vectors = torch.as_tensor(np.asarray(vectors))
    except (TypeError, ValueError, RuntimeError):
        raise OptionError("expected vectors of numbers, [N, D] or [D], as encode returns them") from None
    matrix: torch.Tensor = vectors if vectors.ndim > 1 else vectors[None]
    if matrix.ndim != 2:
        raise OptionError(f"expected vectors of numbers, [N, D] or [D]; the shape is {list(vectors.shape)}")
    return matrix.to(torch.float32)
