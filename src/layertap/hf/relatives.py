"""`DistilBertModel`, `ElectraModel` and `AlbertModel`, whose parameters have other names than those of BERT.

Their dense layers and norms belong to two trees of modules: a packed `Block` runs them, and they are registered under
their names in transformers, where parameters, state dicts and hooks are found.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Self

import torch
from torch import Tensor, nn

from layertap.backends.torch.encoder import Block, Encoder, PackedTensors
from layertap.backends.torch.positions import AttentionPositions
from layertap.checkpoints.keys import to_stored
from layertap.hf.config import AlbertConfig, DistilBertConfig, ElectraConfig
from layertap.hf.modeling import BertModel, CamembertModel, PreTrainedModel, RobertaModel, XLMRobertaModel
from layertap.models.albert import ALBERT
from layertap.models.distilbert import DISTILBERT
from layertap.models.electra import ELECTRA


class Renamed(nn.Module):
    """Modules of a packed block under other names; calling it runs the block.

    Args:
        block: the block to run. It is not registered as a submodule, but follows `train()` and `eval()`.
        parts: modules by dotted name.
    """

    _block: Block

    def __init__(self, block: Block, parts: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.__dict__["_block"] = block  # around nn.Module, which would take it as a submodule
        for path, part in parts.items():
            *owners, name = path.split(".")
            owner: nn.Module = self
            for each in owners:
                if not hasattr(owner, each):
                    owner.add_module(each, nn.Module())
                owner = getattr(owner, each)
            owner.add_module(name, part)

    def forward(self, hidden_TH: Tensor, positions: AttentionPositions) -> Tensor:
        """Run the block on packed rows [T, H]."""
        after_TH: Tensor = self._block(hidden_TH, positions)
        return after_TH

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the module and of its block."""
        self._block.train(mode)
        return super().train(mode)


class ElectraModel(PreTrainedModel):
    """ELECTRA without a head for a task, discriminator or generator: https://arxiv.org/abs/2003.10555."""

    config_class = ElectraConfig
    base_model_prefix = "electra"

    def _take(self, encoder: Encoder) -> None:
        self.embeddings = encoder.embeddings
        if encoder.embeddings.projection is not None:
            self.embeddings_project = encoder.embeddings.projection
            encoder.embeddings.projection = None
        self.encoder = encoder.encoder
        self.pooler = None

    @classmethod
    def _own_name(cls, name: str) -> str:
        return to_stored(name, ELECTRA.class_rules)

    def _embed(self, batch: PackedTensors) -> Tensor:
        hidden_TH = super()._embed(batch)
        return self.embeddings_project(hidden_TH) if self._spec.embedding_projection else hidden_TH


class DistilBertModel(PreTrainedModel):
    """DistilBERT without a head for a task: https://arxiv.org/abs/1910.01108."""

    config_class = DistilBertConfig
    base_model_prefix = "distilbert"

    def _take(self, encoder: Encoder) -> None:
        self.embeddings = encoder.embeddings
        self.transformer: Any = nn.Module()
        self.transformer.layer = nn.ModuleList(_distilbert_layer(block) for block in _blocks(encoder))
        self.pooler = None

    @classmethod
    def _own_name(cls, name: str) -> str:
        return to_stored(name, DISTILBERT.class_rules)

    def _blocks(self) -> nn.ModuleList:
        layers: nn.ModuleList = self.transformer.layer
        return layers

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self.embeddings and self.config.sinusoidal_pos_embds:
            table = self.embeddings.position_embeddings
            assert table is not None
            _fill_with_sinusoids(table.weight)


def _distilbert_layer(block: Block) -> Renamed:
    attention = block.attention
    return Renamed(
        block,
        {
            "attention.dropout": attention.self.dropout,
            "attention.q_lin": attention.self.query,
            "attention.k_lin": attention.self.key,
            "attention.v_lin": attention.self.value,
            "attention.out_lin": attention.output.dense,
            "sa_layer_norm": _there(attention.output.LayerNorm),
            "ffn.dropout": block.output.dropout,
            "ffn.lin1": block.intermediate.dense,
            "ffn.lin2": block.output.dense,
            "output_layer_norm": _there(block.output.LayerNorm),
        },
    )


def _fill_with_sinusoids(table: Tensor) -> None:
    """Fill a table with sines in even columns and cosines in odd ones (Vaswani et al. 2017), computed in float64."""
    rows, width = table.shape
    steps = torch.arange(width, dtype=torch.float64, device=table.device) // 2 * 2 / width
    angles = torch.arange(rows, dtype=torch.float64, device=table.device)[:, None] / 10000**steps
    table[:, 0::2] = angles[:, 0::2].sin().to(table.dtype)
    table[:, 1::2] = angles[:, 1::2].cos().to(table.dtype)


class AlbertModel(PreTrainedModel):
    """ALBERT without a head for a task: https://arxiv.org/abs/1909.11942."""

    config_class = AlbertConfig
    base_model_prefix = "albert"

    def _take(self, encoder: Encoder) -> None:
        self.embeddings = encoder.embeddings
        self.encoder: Any = AlbertGroups(encoder)
        encoder.embeddings.projection = None
        self.pooler = None if encoder.pooler is None else encoder.pooler.dense

    @classmethod
    def _own_name(cls, name: str) -> str:
        return to_stored(name, ALBERT.class_rules)

    def _blocks(self) -> list[nn.Module]:
        groups = self.encoder.albert_layer_groups
        return [groups[i].albert_layers[0] for i in self._spec.blocks]

    def _embed(self, batch: PackedTensors) -> Tensor:
        hidden_TH: Tensor = self.encoder.embedding_hidden_mapping_in(super()._embed(batch))
        return hidden_TH

    def _head(self, first_nH: Tensor) -> Tensor:
        return torch.tanh(super()._head(first_nH))


class AlbertGroups(nn.Module):
    """Counterpart of `AlbertTransformer`: the projection of the embeddings, and the groups of one layer each."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.embedding_hidden_mapping_in = encoder.embeddings.projection
        self.albert_layer_groups = nn.ModuleList(_albert_group(block) for block in _blocks(encoder))


def _albert_group(block: Block) -> nn.Module:
    attention = block.attention
    layer = Renamed(
        block,
        {
            "full_layer_layer_norm": _there(block.output.LayerNorm),
            "attention.attention_dropout": attention.self.dropout,
            "attention.output_dropout": attention.output.dropout,
            "attention.query": attention.self.query,
            "attention.key": attention.self.key,
            "attention.value": attention.self.value,
            "attention.dense": attention.output.dense,
            "attention.LayerNorm": _there(attention.output.LayerNorm),
            "ffn": block.intermediate.dense,
            "ffn_output": block.output.dense,
            "dropout": block.output.dropout,
        },
    )
    group = nn.Module()
    group.albert_layers = nn.ModuleList([layer])
    return group


def _blocks(encoder: Encoder) -> list[Block]:
    return [block for block in encoder.encoder.layer if isinstance(block, Block)]


def _there(part: nn.Module | None) -> nn.Module:
    assert part is not None, "a post-norm block has both norms"
    return part


MODEL_CLASSES: Mapping[str, type[PreTrainedModel]] = MappingProxyType(
    {
        one.config_class.model_type: one
        for one in (
            BertModel,
            RobertaModel,
            XLMRobertaModel,
            CamembertModel,
            DistilBertModel,
            ElectraModel,
            AlbertModel,
        )
    }
)
