"""`TorchBackend`: runs programs over packed batches with torch; its inputs and results are numpy arrays.

The backend is an inference shell around the modules of `encoder`. It loads only the blocks that programs reach, reduces
each hidden state as it appears and drops it. Shape letters: T packed tokens, Q kept rows, H hidden size, S segments.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from layertap.backends.base import Backend, FloatArray, Weights, rows_needed
from layertap.backends.facts import row_of
from layertap.backends.torch.attention import Layout
from layertap.backends.torch.collect import Collector
from layertap.backends.torch.disentangled import Convolution, DistanceTable
from layertap.backends.torch.encoder import (
    Block,
    Embeddings,
    PackedTensors,
    Pooler,
    convolution,
    distance_table,
    norm_of,
    run_layers,
)
from layertap.backends.torch.fused import FusedBlock, onednn_works
from layertap.backends.torch.maps import Maps
from layertap.backends.torch.positions import AttentionPositions, RelativeBias, Watch
from layertap.backends.torch.weights import to_tensor
from layertap.errors import BackendError, OptionError
from layertap.features.program import Capture, Program, SegmentKind
from layertap.locks import ForkSafeLock
from layertap.models.positions import Disentangled
from layertap.models.spec import EncoderSpec
from layertap.packing import PackedBatch, Segments

ModuleT = TypeVar("ModuleT", bound=nn.Module)

PRECISIONS: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


class TorchBackend(Backend):
    """Backend that runs the programs of one model with torch.

    Args:
        spec: the encoder.
        weights: function from canonical names to stored tensors, checked; called when a program first reaches a block.
        device: "cpu", "cuda" or "cuda:N".
        precision: "float32", "bfloat16", or on CUDA "float16": dtype of weights and hidden states. Sums over tokens
            and layers are always float32.
        fused: whether to use the fused kernels on a processor; if not, the plain modules run.

    Raises:
        OptionError: the device does not have the precision.
        BackendError: there is no such device.
    """

    name = "torch"

    def __init__(
        self,
        spec: EncoderSpec,
        weights: Weights,
        *,
        device: str = "cpu",
        precision: str = "float32",
        fused: bool = True,
    ) -> None:
        self.spec = spec
        self.device = device_named(device)
        self.dtype = _dtype(precision, self.device)
        self.fused = fused
        self.batch_tokens = row_of("torch", self.device.type).batch_tokens
        self.instruction_set = (
            torch.backends.cpu.get_cpu_capability()
            if self.device.type == "cpu"
            else f"sm_{''.join(map(str, torch.cuda.get_device_capability(self.device)))}"
        )
        self.onednn = fused and self.device.type == "cpu" and onednn_works(self.dtype)
        self._weights = weights
        self._process = os.getpid()
        # Parts of the model are published under this lock, each once it is complete; a run keeps what it was handed.
        self._lock = ForkSafeLock()
        self._embeddings: Embeddings | None = None
        self._relative: RelativeBias | DistanceTable | None = None
        self._conv: Convolution | None = None
        self._blocks: list[Callable[[Tensor, AttentionPositions], Tensor]] = []
        self._final_norm: nn.Module | None = None
        self._pooler: Pooler | None = None

    @torch.inference_mode()
    def run(
        self, program: Program, batch: PackedBatch, segments: Mapping[SegmentKind, Segments]
    ) -> dict[Capture, FloatArray]:
        """Run a program over a packed batch; see `Backend.run`."""
        self._adapt_to_fork()
        needed = rows_needed(program, segments, batch.num_tokens)
        collector = Collector(program, segments, self.device)
        maps = self._maps(program)
        for layer, hidden_TH in self._states(batch, program.stop, needed, maps):
            kept = needed if layer == program.stop else None
            if layer < self.spec.num_hidden_layers or not self.spec.final_norm:
                collector.take(layer, hidden_TH, kept)
                continue
            collector.take(layer, hidden_TH, kept, unnormed=True)
            if collector.wants(layer, unnormed=False):
                collector.take(layer, self._load_final_norm()(hidden_TH), kept, unnormed=False)
        if collector.pooler_rows is not None:
            collector.take_pooled(self._load_pooler()(collector.pooler_rows.to(self.dtype)))
        results = collector.results | {
            capture: result for of in maps.values() for capture, result in of.results.items()
        }
        return {capture: results[capture].float().cpu().numpy() for capture in program.captures}

    def _adapt_to_fork(self) -> None:
        """Make torch usable in a forked child of the process that opened the model.

        The threads of torch's pool do not exist in the child, where an operation that waits for them never ends; so
        a child runs torch's operations on one thread, as the workers of torch's own data loader do.

        Raises:
            BackendError: the model is on a CUDA device, whose driver does not survive a fork.
        """
        process = os.getpid()
        if process == self._process:
            return
        if self.device.type == "cuda":
            raise BackendError(
                f"device '{self.device}': CUDA cannot be used in a forked process; open the model in the child, or "
                "start processes by the method 'spawn'"
            )
        torch.set_num_threads(1)
        self._process = process

    def _maps(self, program: Program) -> dict[int, Maps]:
        """Return, for each layer with attention captures, the observer that computes its maps."""
        by_layer: dict[int, list[Capture]] = {}
        for capture in program.captures:
            if capture.attention is not None:
                by_layer.setdefault(capture.layers[0], []).append(capture)
        return {layer: Maps(captures, self.spec.num_attention_heads) for layer, captures in by_layer.items()}

    def _states(
        self, batch: PackedBatch, stop: int, needed: npt.NDArray[np.int32] | None, watches: Mapping[int, Watch]
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield (i, hidden state i); state L is the one before a final norm."""
        return run_layers(
            self.spec,
            self._tensors(batch),
            embeddings=self._load_embeddings(),
            block=self._load_block,
            relative=self._load_relative() if stop else None,
            conv=self._load_conv() if stop else None,
            stop=stop,
            top_rows=needed,
            watches=watches,
        )

    def _tensors(self, batch: PackedBatch) -> PackedTensors:
        def to_device(values: npt.NDArray[np.int32]) -> Tensor:
            return torch.as_tensor(values, dtype=torch.int64, device=self.device)

        return PackedTensors(
            input_ids=to_device(batch.input_ids),
            position_ids=to_device(batch.position_ids),
            token_type_ids=None if batch.token_type_ids is None else to_device(batch.token_type_ids),
            layout=Layout.of(batch.lengths.tolist()),
        )

    def _load_embeddings(self) -> Embeddings:
        with self._lock:
            if self._embeddings is None:
                self._embeddings = self._load(Embeddings, "embeddings.")
            return self._embeddings

    def _load_relative(self) -> RelativeBias | DistanceTable | None:
        table = self.spec.relative
        if table is None:
            return None
        with self._lock:
            if self._relative is None:
                self._relative = (
                    self._load(lambda spec: _required(distance_table(spec)), "encoder.")
                    if isinstance(table, Disentangled)
                    else self._load(
                        lambda spec: RelativeBias(table, spec.num_attention_heads), "encoder.relative_attention_bias."
                    )
                )
            return self._relative

    def _load_conv(self) -> Convolution | None:
        if self.spec.convolution is None:
            return None
        with self._lock:
            if self._conv is None:
                self._conv = self._load(lambda spec: _required(convolution(spec)), "encoder.conv.")
            return self._conv

    def _load_block(self, index: int) -> Callable[[Tensor, AttentionPositions], Tensor]:
        relative = self._load_relative()
        distances = relative if isinstance(relative, DistanceTable) else None
        with self._lock:
            while len(self._blocks) <= index:
                i = len(self._blocks)
                block = self._load(partial(Block, block=i), f"encoder.layer.{i}.")
                self._blocks.append(
                    FusedBlock(block, self.spec, onednn=self.onednn, distances=distances) if self.fused else block
                )
            return self._blocks[index]

    def _load_final_norm(self) -> nn.Module:
        with self._lock:
            if self._final_norm is None:
                self._final_norm = self._load(norm_of, "encoder.final_norm.")
            return self._final_norm

    def _load_pooler(self) -> Pooler:
        with self._lock:
            if self._pooler is None:
                self._pooler = self._load(Pooler, "pooler.")
            return self._pooler

    def _load(self, kind: Callable[[EncoderSpec], ModuleT], prefix: str) -> ModuleT:
        with torch.device("meta"):
            module = kind(self.spec).eval()
        names = {f"{prefix}{name}": name for name in module.state_dict()}
        tensors = {names[name]: to_tensor(view) for name, view in self._weights(names).items()}
        module.load_state_dict(tensors, assign=True)
        return module.to(device=self.device, dtype=self.dtype).requires_grad_(False)


def _required(module: ModuleT | None) -> ModuleT:
    assert module is not None, "the caller has checked the spec"
    return module


def device_named(name: str) -> torch.device:
    """Return the torch device of a name; errors as in `TorchBackend`."""
    if not re.fullmatch("cpu|cuda(:[0-9]+)?", name):
        raise OptionError(f"device {name!r}: expected cpu, cuda or cuda:N")
    kind, _, index = name.partition(":")
    if kind == "cuda" and not torch.cuda.is_available():
        raise BackendError("device 'cuda': this torch sees no CUDA device; use device='cpu'")
    if kind == "cuda" and index and int(index) >= torch.cuda.device_count():
        raise BackendError(f"device {name!r}: this machine has {torch.cuda.device_count()} CUDA device(s)")
    return torch.device(name)


def _dtype(precision: str, device: torch.device) -> torch.dtype:
    if precision not in PRECISIONS:
        raise OptionError(f"precision {precision!r}: expected one of {', '.join(PRECISIONS)}")
    allowed = row_of("torch", device.type).precisions
    if precision not in allowed:
        raise OptionError(f"precision {precision!r} needs a CUDA device; on a processor use {' or '.join(allowed)}")
    return PRECISIONS[precision]
