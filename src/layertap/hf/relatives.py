"""Models that differ from BERT in little more than their names, and the table of all classes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from layertap.checkpoints.keys import to_stored
from layertap.hf.albert import AlbertModel
from layertap.hf.config import CamembertConfig, ElectraConfig, RobertaConfig, XLMRobertaConfig
from layertap.hf.distilbert import DistilBertModel
from layertap.hf.layers import Embeddings, Stack
from layertap.hf.modeling import BertModel, PreTrainedModel
from layertap.models.electra import ELECTRA
from layertap.models.spec import EncoderSpec


class RobertaModel(PreTrainedModel):
    """RoBERTa without a head for a task: https://arxiv.org/abs/1907.11692."""

    config_class = RobertaConfig
    base_model_prefix = "roberta"


class XLMRobertaModel(PreTrainedModel):
    """XLM-R without a head for a task: https://arxiv.org/abs/1911.02116."""

    config_class = XLMRobertaConfig
    base_model_prefix = "roberta"


class CamembertModel(PreTrainedModel):
    """CamemBERT without a head for a task: https://arxiv.org/abs/1911.03894."""

    config_class = CamembertConfig
    base_model_prefix = "roberta"


class ElectraModel(PreTrainedModel):
    """ELECTRA without a head for a task, discriminator or generator: https://arxiv.org/abs/2003.10555."""

    config_class = ElectraConfig
    base_model_prefix = "electra"

    def _build(self, spec: EncoderSpec, *, pooler: bool) -> None:
        assert not pooler, "the family has none"
        self.embeddings = Embeddings(spec)
        if spec.embedding_projection:
            self.embeddings_project = nn.Linear(spec.table_size, spec.hidden_size)
        self.encoder: nn.Module = Stack(spec, self.config)
        self.pooler = None

    @classmethod
    def _own_name(cls, name: str) -> str:
        return to_stored(name, ELECTRA.class_rules)

    def _embed(self, **inputs: Any) -> Tensor:
        embedded = super()._embed(**inputs)
        return self.embeddings_project(embedded) if hasattr(self, "embeddings_project") else embedded


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
