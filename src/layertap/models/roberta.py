"""RoBERTa (Liu et al. 2019), XLM-R (Conneau et al. 2020), CamemBERT (Martin et al. 2020): one forward pass.

They are BERT with positions counted from the padding id; the rows differ in name only.
"""

from __future__ import annotations

from collections.abc import Callable

from layertap.models.bert import absolute_post_norm
from layertap.models.config import ConfigReader
from layertap.models.key_rules import HEAD_KEYS, NORM_RULES, KeyRule
from layertap.models.spec import Architecture, EncoderSpec


def _row(name: str, transformers_class: str, vocab_size: int) -> Architecture:
    return Architecture(
        name=name,
        transformers_class=transformers_class,
        spec=_spec(name, vocab_size),
        # every family of this line stores `roberta.`, CamemBERT and XLM-R included
        key_rules=(KeyRule("roberta.*", "*"), *NORM_RULES),
        ignored_keys=HEAD_KEYS,
    )


def _spec(name: str, vocab_size: int) -> Callable[[ConfigReader], EncoderSpec]:
    def spec(config: ConfigReader) -> EncoderSpec:
        # Defaults are those of transformers' config classes; real checkpoints state their own
        # (eps 1e-5, 514 rows, one token type).
        return absolute_post_norm(
            config,
            architecture=name,
            positions_from_ids=True,
            layer_norm_eps=1e-12,
            type_vocab_size=2,
            pad_token_id=1,
            vocab_size=vocab_size,
            max_position_embeddings=512,
        )

    return spec


ROBERTA = _row("roberta", "RobertaModel", 50265)
XLM_ROBERTA = _row("xlm-roberta", "XLMRobertaModel", 30522)
CAMEMBERT = _row("camembert", "CamembertModel", 30522)
