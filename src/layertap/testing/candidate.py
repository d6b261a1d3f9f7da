"""Run a checkpoint with layertap, by a backend or by the differentiable encoder, for comparison with transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shutil import copyfile
from typing import TYPE_CHECKING, Any

import numpy as np

from layertap.backends.base import Backend
from layertap.backends.choice import choose, open_backend
from layertap.backends.facts import BackendRequest
from layertap.checkpoints.keys import stored_layout
from layertap.checkpoints.load import ModelFiles, open_model
from layertap.checkpoints.source import locate
from layertap.engine.segments import segments_of
from layertap.features.program import Capture, Program, Reduce
from layertap.packing import PackedBatch, pack
from layertap.records import AttentionMaps
from layertap.testing.families import IntRow
from layertap.verify.reference import Outputs

if TYPE_CHECKING:
    from torch import Tensor

    from layertap.backends.torch.encoder import PackedTensors

WEIGHTS_FILE = "model.safetensors"


@dataclass(slots=True, eq=False)
class Candidate:
    """A checkpoint together with the backend that runs it.

    Attributes:
        files: the opened checkpoint.
        backend: name of the backend, "torch" or "native".
    """

    files: ModelFiles
    backend: str = "torch"
    _backends: dict[str, Backend] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path, backend: str = "torch") -> Candidate:
        """Opens the checkpoint in a folder, which needs no tokenizer."""
        return cls(open_model(locate(folder)), backend)

    @property
    def has_pooler(self) -> bool:
        """Whether the architecture has a pooler and the checkpoint stores its weights."""
        return self.files.spec.pooler and self.files.pooler != "absent"

    def outputs(
        self, sequences: Sequence[IntRow], token_types: Sequence[IntRow] | None = None, *, precision: str = "float32"
    ) -> Outputs:
        """Computes every hidden state and the pooler's output of one packed batch in one run of the backend."""
        spec = self.files.spec
        states = [Capture(layers=(i,)) for i in range(spec.num_states)]
        head = Capture(layers=(spec.num_hidden_layers,), segments="tokens", reduce="first", pooler=True)
        program = Program(captures=(*states, head) if self.has_pooler else tuple(states), stop=spec.num_hidden_layers)
        arrays = self._run(program, self._pack(sequences, token_types), precision)
        return Outputs(
            states=[arrays[capture].astype(np.float64) for capture in states],
            pooled=arrays[head].astype(np.float64) if self.has_pooler else None,
        )

    def state(self, sequences: Sequence[IntRow], layer: int) -> Any:
        """Computes one hidden state, float32 [T, H], and runs no block above it."""
        capture = Capture(layers=(layer,))
        return self._run(Program(captures=(capture,), stop=layer), self._pack(sequences, None), "float32")[capture]

    def edge_rows(self, sequences: Sequence[IntRow], layer: int, edge: Reduce) -> Any:
        """Computes the first or last row of each sequence, float32 [B, H]; the top block runs on no other row."""
        capture = Capture(layers=(layer,), segments="tokens", reduce=edge)
        program = Program(captures=(capture,), stop=layer, top_rows_only=True)
        return self._run(program, self._pack(sequences, None), "float32")[capture]

    def attentions(self, sequences: Sequence[IntRow], token_types: Sequence[IntRow] | None = None) -> list[list[Any]]:
        """Computes attention probabilities in one packed batch: for each sequence L arrays float32 [A, t, t]."""
        spec = self.files.spec
        captures = tuple(Capture(layers=(i,), attention="heads") for i in range(1, spec.num_states))
        program = Program(captures=captures, stop=spec.num_hidden_layers)
        maps = self._run(program, self._pack(sequences, token_types), "float32")
        lengths = np.array([len(ids) for ids in sequences])
        by_layer = [AttentionMaps(maps[capture], lengths, (spec.num_attention_heads,)) for capture in captures]
        return [list(layers) for layers in zip(*by_layer, strict=True)]

    def encoder(self) -> Any:
        """Builds the differentiable `Encoder` with the checkpoint's weights, in float32 and eval mode."""
        from layertap.backends.torch.encoder import Encoder

        encoder = Encoder(self.files.spec, pooler=self.has_pooler)
        encoder.load_state_dict(self.tensors(encoder.state_dict()))
        return encoder.eval()

    def tensors(self, names: Any) -> dict[str, Tensor]:
        """Loads weights as float32 tensors, by canonical name."""
        from layertap.backends.torch.weights import to_tensor

        return {name: to_tensor(view).float() for name, view in self.files.weights(names).items()}

    def packed_tensors(self, sequences: Sequence[IntRow], token_types: Sequence[IntRow] | None) -> PackedTensors:
        """Packs sequences into the tensors that the differentiable encoder takes."""
        import torch

        from layertap.backends.torch.encoder import PackedTensors
        from layertap.backends.torch.layout import Layout

        batch = self._pack(sequences, token_types)
        types = batch.token_type_ids
        return PackedTensors(
            input_ids=torch.as_tensor(batch.input_ids, dtype=torch.long),
            position_ids=torch.as_tensor(batch.position_ids, dtype=torch.long),
            token_type_ids=None if types is None else torch.as_tensor(types, dtype=torch.long),
            layout=Layout.of(batch.lengths.tolist()),
        )

    def write_again(self, folder: Path) -> None:
        """Writes the loaded weights under the checkpoint's own keys, and its `config.json`, into `folder`."""
        import torch
        from safetensors.torch import save_file

        weights = self.encoder().state_dict()
        layout = stored_layout(weights, self.files.key_rules, self.files.split_rules)
        stored = {key: torch.cat([weights[name] for name in names]) for key, names in layout.items()}
        save_file(stored, folder / WEIGHTS_FILE, metadata={"format": "pt"})
        copyfile(self.files.checkpoint.folder / "config.json", folder / "config.json")

    def _pack(self, sequences: Sequence[IntRow], token_types: Sequence[IntRow] | None) -> PackedBatch:
        return pack(sequences, position_ids=self.files.spec.positions.position_ids, token_type_ids=token_types)

    def _run(self, program: Program, batch: PackedBatch, precision: str) -> dict[Capture, Any]:
        if precision not in self._backends:
            choice = choose(self.files.spec, BackendRequest(backend=self.backend, device="cpu", precision=precision))
            self._backends[precision] = open_backend(
                choice, self.files.spec, self.files.weights, device="cpu", precision=precision
            )
        return dict(self._backends[precision].run(program, batch, {"tokens": segments_of(batch, "tokens")}))


def gradients_of_encoder(
    candidate: Candidate, sequences: Sequence[IntRow], token_types: Sequence[IntRow] | None, weights: LossWeights
) -> tuple[float, dict[str, Tensor]]:
    """Computes the loss of layertap's encoder and the gradient of each parameter, by canonical name."""
    import torch

    encoder = candidate.encoder()
    states = [state for _, state in encoder.states(candidate.packed_tensors(sequences, token_types))]
    first_rows = np.cumsum([0, *(len(ids) for ids in sequences[:-1])])
    pooled = encoder.pool(states[-1][first_rows.tolist()]) if candidate.has_pooler else None
    loss = weights.loss(states, pooled)
    torch.autograd.backward(loss)
    return loss.item(), {name: _gradient(parameter) for name, parameter in encoder.named_parameters()}


def gradients_of_reference(
    module: Any, sequences: Sequence[IntRow], token_types: Sequence[IntRow] | None, weights: LossWeights, folder: Path
) -> tuple[float, Candidate]:
    """Computes the loss and the gradients of a transformers model.

    The gradients are written as a checkpoint into `folder`, so that opening it gives them their canonical names.
    """
    import copy

    import torch

    from layertap.verify.reference import quiet_transformers

    module = copy.deepcopy(module)
    states: list[list[Tensor]] = []
    pooled: list[Tensor] = []
    for i, ids in enumerate(sequences):
        row = torch.as_tensor(ids, dtype=torch.long)[None]
        inputs = {"input_ids": row, "attention_mask": torch.ones_like(row)}
        if token_types is not None:
            inputs["token_type_ids"] = torch.as_tensor(token_types[i], dtype=torch.long)[None]
        outputs = module(**inputs, output_hidden_states=True)
        states.append([state[0] for state in outputs.hidden_states])
        if getattr(outputs, "pooler_output", None) is not None:
            pooled.append(outputs.pooler_output[0])
    loss = weights.loss(
        [torch.cat(layer) for layer in zip(*states, strict=True)], torch.stack(pooled) if pooled else None
    )
    torch.autograd.backward(loss)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(_gradient(parameter))
    with quiet_transformers():
        module.save_pretrained(folder)
    return loss.item(), Candidate.open(folder)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LossWeights:
    """A random linear loss of every hidden state and the pooler's output, so that every parameter has a gradient.

    Attributes:
        states: factors of the hidden states, [L + 1, T, H].
        pooled: factors of the pooler's output, [B, H].
    """

    states: Tensor
    pooled: Tensor

    @classmethod
    def random(cls, candidate: Candidate, sequences: Sequence[IntRow]) -> LossWeights:
        """Draws random factors; equal shapes give equal factors."""
        import torch

        generator = torch.Generator().manual_seed(1)
        spec = candidate.files.spec
        rows = sum(map(len, sequences))
        return cls(
            states=torch.randn(spec.num_states, rows, spec.hidden_size, generator=generator),
            pooled=torch.randn(len(sequences), spec.hidden_size, generator=generator),
        )

    def loss(self, states: Sequence[Tensor], pooled: Tensor | None) -> Tensor:
        """Computes the loss, a scalar tensor."""
        import torch

        loss = (torch.stack(list(states)) * self.states).sum()
        return loss if pooled is None else loss + (pooled * self.pooled).sum()


def _gradient(parameter: Any) -> Tensor:
    import torch

    gradient: Tensor = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    return gradient
