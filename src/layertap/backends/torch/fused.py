"""The quickest way through a block on a processor, for inference only.

Against `encoder.Block`: query, key and value are one product; bias, activation and residual are added inside the
product (oneDNN, through the operators that torch's own compiler emits); weights are laid out for it once. Where these
operators are missing the same arithmetic runs as plain torch calls. Equivalence with `Block` is tested.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from layertap.backends.torch.attention import Layout, attend
from layertap.backends.torch.encoder import ACTIVATIONS, Block
from layertap.models.spec import Activation, EncoderSpec

# activation -> the name and algorithm under which oneDNN knows it
POST_OPS: dict[Activation, tuple[str, str]] = {
    "gelu": ("gelu", "none"),
    "gelu_tanh": ("gelu", "tanh"),
    "relu": ("relu", ""),
    "silu": ("swish", ""),
}


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

    def __init__(self, weight: Tensor, bias: Tensor, *, onednn: bool, activation: Activation | None = None) -> None:
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
        self.up = _linear(block.intermediate.dense, onednn, spec.hidden_act)
        self.down = _linear(block.output.dense, onednn)
        self.norm = block.output.LayerNorm

    def __call__(self, hidden_TH: Tensor, layout: Layout, rows: Tensor | None = None) -> Tensor:
        """As `Block.forward`."""
        query_QH = hidden_TH if rows is None else hidden_TH[rows]
        key_TH, value_TH = self.key_value(hidden_TH).chunk(2, dim=1)
        context_QH = attend(
            self.query(query_QH),
            key_TH,
            value_TH,
            layout,
            num_heads=self.spec.num_attention_heads,
            fast=True,
        )
        mixed_QH: Tensor = self.attention_norm(self.attention_output.plus(context_QH, query_QH))
        hidden_QH: Tensor = self.norm(self.down.plus(self.up(mixed_QH), mixed_QH))
        return hidden_QH


def _linear(dense: nn.Linear, onednn: bool, activation: Activation | None = None) -> FusedLinear:
    return FusedLinear(dense.weight, dense.bias, onednn=onednn, activation=activation)
