"""Interface of transformers: change `from transformers import ...` to `from layertap.hf import ...`.

Models are `nn.Module`s with the modules and parameters of transformers. They run on packed rows, and padded where hooks
or replaced modules look into them. Tokenizers, configs and outputs have the interface of transformers. Anything that
layertap does not support is refused by name, never ignored.
"""

from __future__ import annotations

from layertap.errors import BackendError

try:
    import torch  # noqa: F401  (all of this room needs it)
except ImportError:
    raise BackendError("layertap.hf needs torch: pip install 'layertap[torch]'") from None

from layertap.hf.albert import AlbertModel
from layertap.hf.auto import AutoConfig, AutoModel, AutoTokenizer
from layertap.hf.config import (
    AlbertConfig,
    BertConfig,
    CamembertConfig,
    DistilBertConfig,
    ElectraConfig,
    PretrainedConfig,
    RobertaConfig,
    XLMRobertaConfig,
)
from layertap.hf.distilbert import DistilBertModel
from layertap.hf.encoding import BatchEncoding
from layertap.hf.modeling import BertModel, PreTrainedModel
from layertap.hf.outputs import BaseModelOutputWithPoolingAndCrossAttentions
from layertap.hf.relatives import CamembertModel, ElectraModel, RobertaModel, XLMRobertaModel
from layertap.hf.tokenization import (
    AlbertTokenizer,
    BertTokenizer,
    CamembertTokenizer,
    DistilBertTokenizer,
    MPNetTokenizer,
    PreTrainedTokenizer,
    PreTrainedTokenizerFast,
    RobertaTokenizer,
    XLMRobertaTokenizer,
)

BertTokenizerFast = BertTokenizer
RobertaTokenizerFast = RobertaTokenizer
XLMRobertaTokenizerFast = XLMRobertaTokenizer
CamembertTokenizerFast = CamembertTokenizer
MPNetTokenizerFast = MPNetTokenizer
AlbertTokenizerFast = AlbertTokenizer
DistilBertTokenizerFast = DistilBertTokenizer
ElectraTokenizer = ElectraTokenizerFast = BertTokenizer

__all__ = [
    "AlbertConfig",
    "AlbertModel",
    "AlbertTokenizer",
    "AlbertTokenizerFast",
    "AutoConfig",
    "AutoModel",
    "AutoTokenizer",
    "BaseModelOutputWithPoolingAndCrossAttentions",
    "BatchEncoding",
    "BertConfig",
    "BertModel",
    "BertTokenizer",
    "BertTokenizerFast",
    "CamembertConfig",
    "CamembertModel",
    "CamembertTokenizer",
    "CamembertTokenizerFast",
    "DistilBertConfig",
    "DistilBertModel",
    "DistilBertTokenizer",
    "DistilBertTokenizerFast",
    "ElectraConfig",
    "ElectraModel",
    "ElectraTokenizer",
    "ElectraTokenizerFast",
    "MPNetTokenizer",
    "MPNetTokenizerFast",
    "PreTrainedModel",
    "PreTrainedTokenizer",
    "PreTrainedTokenizerFast",
    "PretrainedConfig",
    "RobertaConfig",
    "RobertaModel",
    "RobertaTokenizer",
    "RobertaTokenizerFast",
    "XLMRobertaConfig",
    "XLMRobertaModel",
    "XLMRobertaTokenizer",
    "XLMRobertaTokenizerFast",
]
