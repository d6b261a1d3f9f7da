"""`HeadedEncoder`: an encoder with the classification head of its family, on packed batches.

Shape letters: T packed tokens, B sequences, H hidden size, C classes, U units (texts or words) that get logits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from layertap.backends.torch.encoder import Encoder, PackedTensors
from layertap.backends.torch.layout import Layout
from layertap.backends.torch.weights import to_tensor
from layertap.checkpoints.keys import stored_layout
from layertap.checkpoints.load import POOLER, ModelFiles
from layertap.learn.arrays import Int64Array
from layertap.learn.heads.families import FamilyHead, HeadLayer
from layertap.models.sentence import DenseActivation
from layertap.models.spec import EncoderSpec
from layertap.packing import pack
from layertap.tensors import TensorView
from layertap.text.encoded import EncodedText

ACTIVATIONS: dict[DenseActivation, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "tanh": torch.tanh,
    "relu": F.relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
}


class ClassificationHead(nn.Module):
    """Dense layers of a head, whose parameters have the names under which transformers stores them.

    Args:
        head: design of the head.
        hidden_size: H.
        num_classes: C.
    """

    def __init__(self, head: FamilyHead, hidden_size: int, num_classes: int) -> None:
        super().__init__()
        self.layers = head.layers
        for layer in head.layers:
            size = num_classes if layer is head.layers[-1] else hidden_size
            self._place(layer.name, nn.Linear(hidden_size, size, bias=layer.bias))
            if layer.norm is not None:
                self._place(layer.norm, nn.LayerNorm(size, eps=layer.norm_eps, bias=layer.norm_bias))

    def forward(self, vectors_UH: Tensor) -> Tensor:
        """Compute logits [U, C]."""
        for layer in self.layers:
            dropped = F.dropout(vectors_UH, layer.dropout, self.training)
            vectors_UH = ACTIVATIONS[layer.activation](self.get_submodule(layer.name)(dropped))
            if layer.norm is not None:
                vectors_UH = self.get_submodule(layer.norm)(vectors_UH)
        return vectors_UH

    @torch.no_grad()
    def draw(self, layer: HeadLayer) -> None:
        """Draw new weights for a layer."""
        dense = self.get_submodule(layer.name)
        assert isinstance(dense, nn.Linear)
        if layer.cut is None:
            dense.weight.normal_(0.0, layer.spread)
        else:
            bound = layer.cut * layer.spread
            nn.init.trunc_normal_(dense.weight, std=layer.spread, a=-bound, b=bound)
        if layer.bias:
            dense.bias.zero_()

    def _place(self, path: str, module: nn.Module) -> None:
        *owners, name = path.split(".")
        owner: nn.Module = self
        for each in owners:
            if not hasattr(owner, each):
                owner.add_module(each, nn.Module())
            owner = getattr(owner, each)
        owner.add_module(name, module)


class HeadedEncoder(nn.Module):
    """Model of a `ForSequenceClassification` or `ForTokenClassification` class of transformers, without padding.

    Args:
        files: the checkpoint; its weights are not read.
        head: design of the head.
        num_classes: C.
    """

    def __init__(self, files: ModelFiles, head: FamilyHead, *, num_classes: int) -> None:
        super().__init__()
        self._pooling = head.pooling
        rules = files.architecture.key_rules
        self._key_rules = (rules[0], *files.architecture.class_rules)
        self._split_rules = files.architecture.split_rules
        self.encoder = Encoder(files.spec, pooler=head.pooling == "pooler")
        self.head = ClassificationHead(head, files.spec.hidden_size, num_classes)

    def forward(self, batch: PackedTensors, rows: Int64Array) -> Tensor:
        """Compute logits [U, C].

        Args:
            batch: B sequences.
            rows: int64 [U], packed row of each unit; -1 for a unit without a token, whose logits are those of a vector
                of zeros. For a head on the mean of the tokens, the first row of each sequence, in order.
        """
        logits_UC: Tensor = self.head(self._vectors(batch, rows))
        return logits_UC

    def _vectors(self, batch: PackedTensors, rows: Int64Array) -> Tensor:
        """Compute the input vectors of the head, [U, H]."""
        if self._pooling in ("first", "pooler"):
            # The last block is computed for these rows only.
            *_, (_, first_BH) = self.encoder.states(batch, top_rows=rows.astype(np.int32))
            return self.encoder.pool(first_BH) if self._pooling == "pooler" else first_BH
        *_, (_, hidden_TH) = self.encoder.states(batch)
        if self._pooling == "mean":
            return torch.segment_reduce(hidden_TH, "mean", lengths=_on(batch.layout.lengths, hidden_TH), axis=0)
        vectors_UH = hidden_TH[_on(np.maximum(rows, 0), hidden_TH)]
        return vectors_UH if (rows >= 0).all() else vectors_UH * _on(rows >= 0, hidden_TH)[:, None]

    def stored(self) -> dict[str, Tensor]:
        """Return the weights under the names of transformers."""
        own = self.encoder.state_dict()
        layout = stored_layout(own, self._key_rules, self._split_rules)
        encoder = {
            key: own[names[0]] if len(names) == 1 else torch.cat([own[name] for name in names])
            for key, names in layout.items()
        }
        return encoder | self.head.state_dict()


def starting_model(
    files: ModelFiles, head: FamilyHead, *, num_classes: int, stored: Mapping[str, TensorView]
) -> HeadedEncoder:
    """Return a model to train: the encoder of the checkpoint, and a head initialised like that of transformers.

    Random numbers come from the global generator of torch.

    Args:
        files: the checkpoint.
        head: design of the head.
        num_classes: C.
        stored: weights by stored name of the layers of the head that training continues with; the others are new.

    Raises:
        WeightsError: a weight is missing or damaged.
    """
    model = HeadedEncoder(files, head, num_classes=num_classes)
    names = set(model.encoder.state_dict())
    draws_pooler = model.encoder.pooler is not None and files.pooler == "absent"
    if draws_pooler:
        names -= set(POOLER)
    weights = {name: to_tensor(view).float() for name, view in files.weights(sorted(names)).items()}
    model.encoder.load_state_dict(weights, strict=False)
    for layer in head.layers:
        if f"{layer.name}.weight" not in stored:
            model.head.draw(layer)
    if draws_pooler:
        _draw_pooler(model.encoder, head.layers[-1].spread)
    model.head.load_state_dict({name: to_tensor(view).float() for name, view in stored.items()}, strict=False)
    return model


@torch.no_grad()
def _draw_pooler(encoder: Encoder, spread: float) -> None:
    assert encoder.pooler is not None
    encoder.pooler.dense.weight.normal_(0.0, spread)
    encoder.pooler.dense.bias.zero_()


def _on(values: Any, beside: Tensor) -> Tensor:
    return torch.as_tensor(values).to(beside.device)


def packed(texts: Sequence[EncodedText], spec: EncoderSpec, *, device: torch.device) -> PackedTensors:
    """Pack sequences end to end, on a device."""
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
