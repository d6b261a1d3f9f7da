"""`SequenceClassifier`: an encoder and its family's classification head, on packed batches.

Shape letters: T packed tokens, B sequences, H hidden size, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from layertap.backends.torch.attention import Layout
from layertap.backends.torch.encoder import Encoder, PackedTensors
from layertap.backends.torch.weights import to_tensor
from layertap.checkpoints.load import POOLER, ModelFiles
from layertap.errors import ConfigError
from layertap.learn.finetuning.families import Family, family_of
from layertap.models.spec import EncoderSpec
from layertap.packing import pack
from layertap.tensors import TensorView
from layertap.text.encoded import EncodedText

INITIALIZER_RANGE = 0.02


class PooledHead(nn.Module):
    """Dropout and a linear layer on `pooler_output`, as BERT's."""

    def __init__(self, hidden_size: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(hidden_size, num_classes)

    def forward(self, pooled_BH: Tensor) -> Tensor:
        """[B, C]."""
        logits_BC: Tensor = self.classifier(self.dropout(pooled_BH))
        return logits_BC


class DenseHead(nn.Module):
    """Dense, tanh and a linear layer on first tokens' last hidden states, dropout before both, as RoBERTa's."""

    def __init__(self, hidden_size: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.ModuleDict(
            {"dense": nn.Linear(hidden_size, hidden_size), "out_proj": nn.Linear(hidden_size, num_classes)}
        )

    def forward(self, first_BH: Tensor) -> Tensor:
        """[B, C]."""
        dense_BH = torch.tanh(self.classifier["dense"](self.dropout(first_BH)))
        logits_BC: Tensor = self.classifier["out_proj"](self.dropout(dense_BH))
        return logits_BC


class SequenceClassifier(nn.Module):
    """transformers' `ForSequenceClassification` model of a family, without padding.

    Args:
        spec: the encoder.
        family: which head it gets.
        num_classes: C.
        dropout: of the head.
    """

    def __init__(self, spec: EncoderSpec, family: Family, *, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.family = family
        self.encoder = Encoder(spec, pooler=family.pooled)
        kind = PooledHead if family.pooled else DenseHead
        self.head = kind(spec.hidden_size, num_classes, dropout)

    def forward(self, batch: PackedTensors) -> Tensor:
        """[B, C], logits; the last block is computed for first tokens only."""
        first = batch.layout.cu_seqlens[:-1]
        *_, (_, first_BH) = self.encoder.states(batch, top_rows=first)
        logits_BC: Tensor = self.head(self.encoder.pool(first_BH) if self.family.pooled else first_BH)
        return logits_BC

    def stored(self) -> dict[str, Tensor]:
        """The weights under transformers' names."""
        encoder = {f"{self.family.prefix}.{name}": weight for name, weight in self.encoder.state_dict().items()}
        return encoder | self.head.state_dict()


def starting_model(files: ModelFiles, *, num_classes: int, head: Mapping[str, TensorView] | None) -> SequenceClassifier:
    """A model to train: the checkpoint's encoder, and a head that is drawn as transformers draws it.

    Random numbers come from torch's own generator.

    Args:
        files: the checkpoint.
        num_classes: C.
        head: stored name -> weight of a head to go on with, or None: a new one.

    Raises:
        WeightsError: a weight that is missing or damaged.
        ConfigError: a rate of dropout or a range of initial weights that is none.
    """
    spec = files.spec
    dropout = _rate(files, "classifier_dropout", spec.hidden_dropout_prob)
    model = SequenceClassifier(spec, family_of(files), num_classes=num_classes, dropout=dropout)
    spread = _rate(files, "initializer_range", INITIALIZER_RANGE)
    new: list[nn.Module] = [] if head else [model.head]
    names = set(model.encoder.state_dict())
    if model.encoder.pooler is not None and files.pooler == "absent":
        new.append(model.encoder.pooler)
        names -= set(POOLER)
    weights = {name: to_tensor(view).float() for name, view in files.weights(sorted(names)).items()}
    model.encoder.load_state_dict(weights, strict=False)
    for module in new:
        module.apply(lambda layer: _draw(layer, spread))
    if head:
        model.head.load_state_dict({name: to_tensor(view).float() for name, view in head.items()})
    return model


def _rate(files: ModelFiles, name: str, default: float) -> float:
    value = files.config.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ConfigError(f"{files.checkpoint.folder / 'config.json'}: {name}: expected 0 to 1, found {value!r}")
    return float(value)


@torch.no_grad()
def _draw(module: nn.Module, spread: float) -> None:
    if isinstance(module, nn.Linear):
        module.weight.normal_(0.0, spread)
        module.bias.zero_()


def packed(texts: Sequence[EncodedText], spec: EncoderSpec, *, device: torch.device) -> PackedTensors:
    """Sequences laid end to end, on a device."""
    position_ids: Callable[[Any], Any] = spec.positions.position_ids
    types = None
    if spec.type_vocab_size > 1 and any(text.token_type_ids is not None for text in texts):
        types = [
            np.zeros(len(text), dtype=np.int32) if text.token_type_ids is None else text.token_type_ids
            for text in texts
        ]
    batch = pack([text.input_ids for text in texts], position_ids=position_ids, token_type_ids=types)

    def tensor(values: Any) -> Tensor:
        return torch.as_tensor(values, dtype=torch.long).to(device)

    return PackedTensors(
        input_ids=tensor(batch.input_ids),
        position_ids=tensor(batch.position_ids),
        token_type_ids=None if batch.token_type_ids is None else tensor(batch.token_type_ids),
        layout=Layout.of(batch.lengths.tolist()),
    )
