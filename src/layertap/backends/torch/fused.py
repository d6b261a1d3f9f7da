"""Fast forward pass of a block, for inference only.

In contrast to `encoder.Block`, key and value are one product. On a processor, bias, activation and residual are added
inside the product (by oneDNN, through the operators that torch's own compiler emits); weights are laid out for it once,
and rows and inner dimensions are split into blocks of few sizes. Where these operators are missing, the same arithmetic
runs as plain torch calls. On CUDA, products are whole, and query, key and value are one product. Tests hold it equal to
`Block`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from layertap.backends.torch.blocks import by_rows, pieces
from layertap.backends.torch.devices import kind_of
from layertap.backends.torch.disentangled import DistanceTable
from layertap.backends.torch.encoder import ACTIVATIONS, Block
from layertap.backends.torch.positions import AttentionPositions
from layertap.models.spec import Activation, EncoderSpec

# activation -> its name and algorithm in oneDNN
POST_OPS: dict[Activation, tuple[str, str]] = {
    "gelu": ("gelu", "none"),
    "gelu_tanh": ("gelu", "tanh"),
    "relu": ("relu", ""),
    "silu": ("swish", ""),
}


SLICE = 1024
"""Number of columns of a float32 feed-forward computed at once. Longer sums lose accuracy in oneDNN, and every slice
rounds the running sum once. Slices of half this size are as fast and less accurate, a quarter is slower."""


def onednn_works(dtype: torch.dtype) -> bool:
    """Return whether this build of torch and this processor run the fused products in `dtype`."""
    if not torch._C._has_mkldnn:
        return False
    try:
        x = torch.ones(2, 16, dtype=dtype)
        linear = FusedLinear(torch.ones(16, 16, dtype=dtype), torch.ones(16, dtype=dtype), onednn=True)
        linear.times(x, linear.plus(x, x))
    except (AttributeError, RuntimeError):
        return False
    return True


class FusedLinear:
    """Dense layer `x W' + b`, fused with the operation that follows."""

    def __init__(
        self, weight: Tensor, bias: Tensor | None, *, onednn: bool, activation: Activation | None = None
    ) -> None:
        self.bias = bias
        self.activation = activation
        self.onednn = onednn
        # The hint is a typical number of rows; the layout serves any.
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, 1024) if onednn else weight

    def __call__(self, x_QF: Tensor) -> Tensor:
        """Compute the layer with its activation: `activation(x W' + b)`."""
        if self.onednn:
            name, algorithm = POST_OPS[self.activation] if self.activation else ("none", "")
            y: Tensor = torch.ops.mkldnn._linear_pointwise.default(x_QF, self.weight, self.bias, name, [], algorithm)
            return y
        y = F.linear(x_QF, self.weight, self.bias)
        return ACTIVATIONS[self.activation](y) if self.activation else y

    def plus(self, x_QF: Tensor, residual_QH: Tensor) -> Tensor:
        """Compute the layer and add a residual: `x W' + b + residual`."""
        if self.onednn:
            return self._with(x_QF, residual_QH, "add")
        return F.linear(x_QF, self.weight, self.bias).add_(residual_QH)

    def times(self, x_QH: Tensor, gate_QF: Tensor) -> Tensor:
        """Compute the layer and multiply by a gate: `(x W' + b) * gate`."""
        if self.onednn:
            return self._with(x_QH, gate_QF, "mul")
        return F.linear(x_QH, self.weight, self.bias).mul_(gate_QF)

    def _with(self, x_QF: Tensor, other: Tensor, operation: str) -> Tensor:
        y: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x_QF, other, self.weight, self.bias, operation)
        return y


class FusedBlock:
    """A `Block` for inference, with its own copies of the weights. Nothing in it changes after it is made.

    Args:
        block: the weights.
        spec: the encoder.
        onednn: whether products run through oneDNN.
        distances: the encoder's vectors of distances, where it has them.
    """

    def __init__(self, block: Block, spec: EncoderSpec, *, onednn: bool, distances: DistanceTable | None) -> None:
        query, key, value = block.attention.self.query, block.attention.self.key, block.attention.self.value
        self.num_heads = spec.num_attention_heads
        self.query_key_value: FusedLinear | None = None
        if kind_of(query.weight.device) == "cuda":
            self.query_key_value, self.query, self.key_value = _joined(query, key, value)
        else:
            # Queries stay apart: where only a few rows are wanted, the others need keys and values only.
            self.query = _linear(query, onednn)
            self.key_value = FusedLinear(
                torch.cat([key.weight, value.weight]),
                torch.cat([key.bias, value.bias]) if spec.qkv_bias else None,
                onednn=onednn,
            )
        self.attention_output = _linear(block.attention.output.dense, onednn)
        self.feed_forward = _slices(block, spec, onednn)
        # A block has those before its halves (pre-norm) or those after them.
        self.norm_before_attention = block.attention.LayerNorm or _identity
        self.norm_after_attention = block.attention.output.LayerNorm or _identity
        self.norm_before_feed_forward = block.LayerNorm or _identity
        self.norm_after_feed_forward = block.output.LayerNorm or _identity
        # Keys and queries of distances [R, H], the same for every batch.
        self.of_distances = (None, None) if distances is None else self._project(distances(), block, onednn)

    def __call__(self, hidden_TH: Tensor, positions: AttentionPositions) -> Tensor:
        """Run the block, as `Block.forward` does."""
        normed_TH = self.norm_before_attention(hidden_TH)
        if self.query_key_value is not None and positions.rows is None:
            hidden_size = hidden_TH.shape[1]
            query_QH, key_value_TG = self.query_key_value(normed_TH).tensor_split((hidden_size,), dim=1)
        else:
            key_value_TG = by_rows(self.key_value, normed_TH)
            query_QH = by_rows(self.query, positions.queries(normed_TH))
        key_TG, value_TG = key_value_TG.chunk(2, dim=1)
        positions = positions.with_distances(lambda _: self.of_distances)
        context_QH = positions.attend(query_QH, key_TG, value_TG, num_heads=self.num_heads, fast=True)
        return by_rows(self._after_attention, context_QH, positions.queries(hidden_TH))

    def _project(self, vectors_RH: Tensor, block: Block, onednn: bool) -> tuple[Tensor | None, Tensor | None]:
        """Project vectors of distances to keys and queries, as far as scores have terms for them."""
        attention = block.attention.self
        relative, pos_key, pos_query = attention.relative, attention.pos_key_proj, attention.pos_query_proj
        assert relative is not None, "this encoder has no vectors of distances"
        if relative.shared_projections:
            key_RH = self.key_value(vectors_RH).chunk(2, dim=1)[0].contiguous()
            query_RH = self.query(vectors_RH)
            return (
                key_RH if relative.content_to_position else None,
                query_RH if relative.position_to_content else None,
            )
        return (
            None if pos_key is None else _linear(pos_key, onednn)(vectors_RH),
            None if pos_query is None else _linear(pos_query, onednn)(vectors_RH),
        )

    def _after_attention(self, context_QH: Tensor, residual_QH: Tensor) -> Tensor:
        mixed_QH = self.norm_after_attention(self.attention_output.plus(context_QH, residual_QH))
        normed_QH = self.norm_before_feed_forward(mixed_QH)
        sum_QH = mixed_QH
        for gate, up, down in self.feed_forward:
            wide_QF = up(normed_QH) if gate is None else up.times(normed_QH, gate(normed_QH))
            sum_QH = down.plus(wide_QF, sum_QH)
        hidden_QH: Tensor = self.norm_after_feed_forward(sum_QH)
        return hidden_QH


def _identity(hidden_TH: Tensor) -> Tensor:
    return hidden_TH


def _slices(block: Block, spec: EncoderSpec, onednn: bool) -> list[tuple[FusedLinear | None, FusedLinear, FusedLinear]]:
    """Split the feed-forward into (gate, up, down) over slices of its inner columns, whose results add up."""
    gate, up, down = block.intermediate.gate, block.intermediate.dense, block.output.dense
    # In half precision every slice would round the running sum once more; on CUDA long sums are accurate.
    whole = up.weight.dtype != torch.float32 or kind_of(up.weight.device) == "cuda"
    sizes = [spec.intermediate_size] if whole else pieces(spec.intermediate_size, (SLICE,))
    up_activation = spec.hidden_act if gate is None else None
    gates = [None] * len(sizes) if gate is None else _by_outputs(gate, sizes, onednn, spec.hidden_act)
    ups = _by_outputs(up, sizes, onednn, up_activation)
    downs = [
        FusedLinear(weight.contiguous(), down.bias if i == 0 else None, onednn=onednn)
        for i, weight in enumerate(torch.split(down.weight, sizes, dim=1))
    ]
    return list(zip(gates, ups, downs, strict=True))


def _by_outputs(dense: nn.Linear, sizes: list[int], onednn: bool, activation: Activation | None) -> list[FusedLinear]:
    weights = torch.split(dense.weight, sizes)
    biases = [None] * len(sizes) if dense.bias is None else torch.split(dense.bias, sizes)
    return [
        FusedLinear(weight, bias, onednn=onednn, activation=activation)
        for weight, bias in zip(weights, biases, strict=True)
    ]


def _joined(query: nn.Linear, key: nn.Linear, value: nn.Linear) -> tuple[FusedLinear, FusedLinear, FusedLinear]:
    """Join three dense layers: all of them, the first, and the other two, which share one copy of the weights."""
    weight = torch.cat([query.weight, key.weight, value.weight])
    bias = None if query.bias is None else torch.cat([query.bias, key.bias, value.bias])
    parts = (slice(None), slice(len(query.weight)), slice(len(query.weight), None))
    every, first, others = (
        FusedLinear(weight[part], None if bias is None else bias[part], onednn=False) for part in parts
    )
    return every, first, others


def _linear(dense: nn.Linear, onednn: bool, activation: Activation | None = None) -> FusedLinear:
    return FusedLinear(dense.weight, dense.bias, onednn=onednn, activation=activation)
