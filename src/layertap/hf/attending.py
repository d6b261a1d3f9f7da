"""Attention of the models: of packed rows, or of a padded batch under a mask.

Shape letters: B sequences, S columns of the padded batch, Q queries (S, or 1 for all of them), A heads, D head size, H
hidden size. A packed batch is [1, T, H].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from layertap.backends.torch.positions import AttentionPositions
from layertap.errors import OptionError
from layertap.hf.keywords import LAYER_CALL, refuse_all

Mask: TypeAlias = Tensor | AttentionPositions | None
"""Tokens that attend to each other: a mask [B, 1, Q, S] of a padded batch (bool, or added to scores), the sequences of
a packed batch, or None for all to all."""

ATTENTIONS = "output_attentions"


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Mask,
    *,
    num_heads: int,
    dropout: float,
    eager: bool,
    keywords: Mapping[str, Any],
) -> tuple[Tensor, Tensor | None]:
    """Attend with projections [B, S, H], or [1, T, H] of a packed batch.

    Args:
        query, key, value: the projections.
        mask: which tokens attend to which.
        num_heads: A.
        dropout: probability of dropping an attention weight; 0 outside training.
        eager: whether to compute the probabilities of a padded batch, instead of torch's fused attention.
        keywords: other keywords of the call; `output_attentions=True` is as `eager`.

    Returns:
        The context [B, S, H], and the probabilities [B, A, S, S] where they were computed, else None.

    Raises:
        OptionError: a mask of another shape, or a keyword that asks for what encoders do not do.
    """
    if isinstance(mask, AttentionPositions):
        if not mask.layout.lengths:  # no sequence at all
            return value, None
        context_TH = mask.attend(query[0], key[0], value[0], num_heads=num_heads, dropout=dropout)
        return context_TH.unsqueeze(0), None
    if keywords:
        refuse_all({name: given for name, given in keywords.items() if name != ATTENTIONS}, LAYER_CALL, (ATTENTIONS,))
    check_mask(mask)
    query_BASD, key_BASD, value_BASD = (
        projected.view(*projected.shape[:2], num_heads, -1).transpose(1, 2) for projected in (query, key, value)
    )
    probabilities = None
    if eager or keywords.get(ATTENTIONS):
        scores = query_BASD @ key_BASD.transpose(2, 3) * query_BASD.shape[-1] ** -0.5
        if mask is not None:
            scores = scores + added_to_scores(mask, scores.dtype)
        probabilities = F.dropout(scores.softmax(-1), dropout)
        context_BASD = probabilities @ value_BASD
    else:
        if mask is not None and mask.dtype != torch.bool:
            mask = mask.to(query.dtype)
        context_BASD = F.scaled_dot_product_attention(
            query_BASD,
            key_BASD,
            value_BASD,
            attn_mask=mask,
            dropout_p=dropout,
        )
    return context_BASD.transpose(1, 2).flatten(2), probabilities


def check_mask(mask: Tensor | None) -> None:
    """Refuse a mask that is not [B, 1, Q, S].

    Raises:
        OptionError: a mask of other dimensions, as [B, S] of a tokenizer.
    """
    if mask is not None and mask.ndim != 4:
        raise OptionError(
            f"attention_mask: the parts of a model take [batch, 1, 1 or sequence, sequence], found {list(mask.shape)}; "
            "model.get_extended_attention_mask(mask, mask.shape) makes one of [batch, sequence]"
        )


def mask_of(attended: Tensor, dtype: torch.dtype, *, eager: bool) -> Tensor:
    """Return the mask [B, 1, S, S] of the attended cells [B, S]: bool, or added to scores for eager attention."""
    batch, columns = attended.shape
    mask = (attended != 0)[:, None, None, :].expand(batch, 1, columns, columns)
    return added_to_scores(mask, dtype) if eager else mask


def added_to_scores(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a mask as numbers that are added to scores: 0, and the lowest number where nothing attends."""
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.where(mask, torch.zeros((), dtype=dtype, device=mask.device), torch.finfo(dtype).min)
