"""The quickest way through a block on a processor, for inference only.

Against `encoder.Block`: query, key and value are one product; bias, activation and residual are added inside the
product (oneDNN, through the operators that torch's own compiler emits); weights are laid out for it once, rows and
inner dimensions are cut into blocks of few sizes. Where these
operators are missing the same arithmetic runs as plain torch calls. Equivalence with `Block` is tested.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from layertap.backends.torch.attention import Layout, attend
from layertap.backends.torch.blocks import by_rows, pieces
from layertap.backends.torch.encoder import ACTIVATIONS, Block
from layertap.models.spec import Activation, EncoderSpec

# activation -> the name and algorithm under which oneDNN knows it
POST_OPS: dict[Activation, tuple[str, str]] = {
    "gelu": ("gelu", "none"),
    "gelu_tanh": ("gelu", "tanh"),
    "relu": ("relu", ""),
    "silu": ("swish", ""),
}


SLICE = 512
"""Columns of the feed-forward taken at once: longer sums lose accuracy in oneDNN, and this much stays in cache."""


def onednn_works(dtype: torch.dtype) -> bool:
    """Whether this build and processor run the fused products in `dtype`."""
    if not torch._C._has_mkldnn:
        return False
    try:
        x = torch.ones(2, 16, dtype=dtype)
        FusedLinear(torch.ones(16, 16, dtype=dtype), torch.ones(16, dtype=dtype), onednn=True).plus(x, x)
    except (AttributeError, RuntimeError):
        return False
    return True


class FusedLinear:
    """`x W' + b` with what follows it."""

    def __init__(
        self, weight: Tensor, bias: Tensor | None, *, onednn: bool, activation: Activation | None = None
    ) -> None:
        self.bias = bias
        self.activation = activation
        self.onednn = onednn
        # The hint is a typical number of rows; the layout serves any.
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, 1024) if onednn else weight

    def __call__(self, x_QF: Tensor) -> Tensor:
        """`activation(x W' + b)`."""
        if self.onednn:
            name, algorithm = POST_OPS[self.activation] if self.activation else ("none", "")
            y: Tensor = torch.ops.mkldnn._linear_pointwise.default(x_QF, self.weight, self.bias, name, [], algorithm)
            return y
        y = F.linear(x_QF, self.weight, self.bias)
        return ACTIVATIONS[self.activation](y) if self.activation else y

    def plus(self, x_QF: Tensor, residual_QH: Tensor) -> Tensor:
        """`x W' + b + residual`."""
        if self.onednn:
            y: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x_QF, residual_QH, self.weight, self.bias, "add")
            return y
        return F.linear(x_QF, self.weight, self.bias).add_(residual_QH)


class FusedBlock:
    """A `Block` for inference, with its own copies of the weights."""

    def __init__(self, block: Block, spec: EncoderSpec, *, onednn: bool) -> None:
        key, value = block.attention.self.key, block.attention.self.value
        self.spec = spec
        # Queries stay apart: where only a few rows are wanted, the others need keys and values only.
        self.query = _linear(block.attention.self.query, onednn)
        self.key_value = FusedLinear(
            torch.cat([key.weight, value.weight]), torch.cat([key.bias, value.bias]), onednn=onednn
        )
        self.attention_output = _linear(block.attention.output.dense, onednn)
        self.attention_norm = block.attention.output.LayerNorm
        self.feed_forward = _slices(block, spec, onednn)
        self.norm = block.output.LayerNorm

    def __call__(self, hidden_TH: Tensor, layout: Layout, rows: Tensor | None = None) -> Tensor:
        """As `Block.forward`."""
        query_QH = hidden_TH if rows is None else hidden_TH[rows]
        key_TH, value_TH = by_rows(self.key_value, hidden_TH).chunk(2, dim=1)
        context_QH = attend(
            by_rows(self.query, query_QH),
            key_TH,
            value_TH,
            layout,
            num_heads=self.spec.num_attention_heads,
            fast=True,
        )
        return by_rows(self._after_attention, context_QH, query_QH)

    def _after_attention(self, context_QH: Tensor, query_QH: Tensor) -> Tensor:
        mixed_QH: Tensor = self.attention_norm(self.attention_output.plus(context_QH, query_QH))
        sum_QH = mixed_QH
        for up, down in self.feed_forward:
            sum_QH = down.plus(up(mixed_QH), sum_QH)
        hidden_QH: Tensor = self.norm(sum_QH)
        return hidden_QH


def _slices(block: Block, spec: EncoderSpec, onednn: bool) -> list[tuple[FusedLinear, FusedLinear]]:
    """The feed-forward as (up, down) pairs over slices of its inner columns; their results add up."""
    up, down = block.intermediate.dense, block.output.dense
    sizes = pieces(spec.intermediate_size, (SLICE,))
    parts = zip(
        torch.split(up.weight, sizes), torch.split(up.bias, sizes), torch.split(down.weight, sizes, dim=1), strict=True
    )
    return [
        (
            FusedLinear(up_weight, up_bias, onednn=onednn, activation=spec.hidden_act),
            FusedLinear(down_weight.contiguous(), down.bias if i == 0 else None, onednn=onednn),
        )
        for i, (up_weight, up_bias, down_weight) in enumerate(parts)
    ]


def _linear(dense: nn.Linear, onednn: bool, activation: Activation | None = None) -> FusedLinear:
    return FusedLinear(dense.weight, dense.bias, onednn=onednn, activation=activation)
