"""The classification heads of the families that have one here, under transformers' names."""

from __future__ import annotations

from dataclasses import dataclass

from layertap.checkpoints.load import ModelFiles
from layertap.errors import UnsupportedModelError


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What transformers' `ForSequenceClassification` class of a family is.

    Attributes:
        transformers_class: its name.
        prefix: what its encoder's weights are stored under.
        pooled: the head is a linear layer on `pooler_output` (BERT); otherwise dense, tanh and linear on the first
            token's last hidden state (RoBERTa).
    """

    transformers_class: str
    prefix: str
    pooled: bool

    @property
    def weights(self) -> tuple[str, ...]:
        """Stored names of the head's weights; the last two are those of the layer that gives logits."""
        layers = ("classifier",) if self.pooled else ("classifier.dense", "classifier.out_proj")
        return tuple(f"{layer}.{part}" for layer in layers for part in ("weight", "bias"))


FAMILIES: dict[str, Family] = {
    "bert": Family(transformers_class="BertForSequenceClassification", prefix="bert", pooled=True),
    "roberta": Family(transformers_class="RobertaForSequenceClassification", prefix="roberta", pooled=False),
    "xlm-roberta": Family(transformers_class="XLMRobertaForSequenceClassification", prefix="roberta", pooled=False),
    "camembert": Family(transformers_class="CamembertForSequenceClassification", prefix="roberta", pooled=False),
}
"""Name of the architecture -> its head."""


def family_of(files: ModelFiles) -> Family:
    """The head of a model's family.

    Raises:
        UnsupportedModelError: a family without one here.
    """
    name = files.architecture.name
    if name not in FAMILIES:
        raise UnsupportedModelError(
            f"{files.checkpoint.name}: classification heads are there for {', '.join(FAMILIES)}, and this model is of "
            f"the family {name}; a classifier on its frozen features works (layertap.learn.TextFeatures)"
        )
    return FAMILIES[name]
