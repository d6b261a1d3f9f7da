"""Build the torch model that ONNX Runtime and OpenVINO convert: encoder and mean over tokens in one graph.

With the mean in the graph, a runtime returns [B, H] instead of [B, T, H], which is its best case.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

INPUT_NAMES = ("input_ids", "attention_mask")
OUTPUT_NAME = "mean"


def mean_pooled_model(folder: Path, *, attention: str) -> tuple[Any, tuple[Any, Any]]:
    """Build a torch module of (input_ids, attention_mask) with output [B, H] float32, and inputs to trace it with."""
    import torch
    from transformers import AutoModel

    class MeanPooled(torch.nn.Module):
        def __init__(self, encoder: torch.nn.Module) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            # token types are given because the fused embedding layer of ONNX Runtime requires them
            types = torch.zeros_like(input_ids)
            states = self.encoder(
                input_ids=input_ids, attention_mask=attention_mask, token_type_ids=types
            ).last_hidden_state
            weights = attention_mask.unsqueeze(-1).to(states.dtype)
            means: torch.Tensor = (states * weights).sum(1) / weights.sum(1)
            return means

    encoder = AutoModel.from_pretrained(
        folder, dtype=torch.float32, attn_implementation=attention, add_pooling_layer=False
    )
    example = torch.randint(5, 1_000, (2, 16))
    return MeanPooled(encoder).eval(), (example, torch.ones_like(example))
