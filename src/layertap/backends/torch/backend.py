"""`TorchBackend`: runs programs over packed batches with torch; its inputs and results are numpy arrays.

The backend is an inference shell around the modules of `encoder`. It loads only the blocks that programs reach, reduces
each hidden state as it appears and drops it. Shape letters: T packed tokens, Q kept rows, H hidden size, S segments.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from layertap.backends.base import Backend, FloatArray, OutOfMemoryError, Started, Weights, rows_needed
from layertap.backends.facts import row_of
from layertap.backends.torch.collect import Collector
from layertap.backends.torch.devices import (
    capability_of,
    device_named,
    dtype_on,
    is_out_of_memory,
    kind_of,
    memory_in_words,
    upload,
)
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
from layertap.backends.torch.fetch import Fetch
from layertap.backends.torch.fused import FusedBlock, onednn_works
from layertap.backends.torch.layout import Layout
from layertap.backends.torch.maps import Maps
from layertap.backends.torch.positions import AttentionPositions, RelativeBias, Watch
from layertap.backends.torch.tf32 import float32_products
from layertap.backends.torch.weights import to_tensor
from layertap.errors import BackendError
from layertap.features.program import Capture, Program, SegmentKind
from layertap.locks import ForkSafeLock
from layertap.models.positions import Disentangled
from layertap.models.spec import EncoderSpec
from layertap.packing import PackedBatch, Segments

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class TorchBackend(Backend):
    """Backend that runs the programs of one model with torch.

    Args:
        spec: the encoder.
        weights: function from canonical names to stored tensors, checked; called when a program first reaches a block.
        device: "cpu", "cuda" or "cuda:N".
        precision: "float32", "bfloat16", or on CUDA "float16": dtype of weights and hidden states. Sums over tokens
            and layers are always float32. On CUDA also "float32-high": float32 whose products are computed in TF32;
            "float32" never uses it, whatever the process has set.
        fused: whether to use the fused blocks; if not, the plain modules run.

    Raises:
        OptionError: another kind of device, or one that does not have the precision.
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
        self.dtype = dtype_on(precision, self.device)
        self.fused = fused
        self.overlaps = kind_of(self.device) == "cuda"
        row = row_of("torch", kind_of(self.device))
        self.batch_tokens = row.batch_tokens
        self.chunk_result_bytes = row.chunk_result_bytes
        self.instruction_set = (
            f"sm_{''.join(map(str, capability_of(self.device)))}"
            if self.overlaps
            else torch.backends.cpu.get_cpu_capability()
        )
        self.onednn = fused and not self.overlaps and onednn_works(self.dtype)
        self._tf32 = precision == "float32-high"
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

    def run(
        self, program: Program, batch: PackedBatch, segments: Mapping[SegmentKind, Segments]
    ) -> dict[Capture, FloatArray]:
        """Run a program over a packed batch; see `Backend.run`."""
        return self.start(program, batch, segments)()

    def start(self, program: Program, batch: PackedBatch, segments: Mapping[SegmentKind, Segments]) -> Started:
        """Start a run; see `Backend.start`. On CUDA everything is queued when this returns."""
        self._adapt_to_fork()
        if not self.overlaps:
            return self._launched(program, batch, segments).results
        with float32_products(tf32=self._tf32):
            try:
                return self._launched(program, batch, segments).results
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
        # The error is gone here, and with it the frames that hold the batch.
        torch.cuda.empty_cache()
        raise OutOfMemoryError(
            f"device '{self.device}' ran out of memory with a batch of {batch.num_tokens:,} tokens "
            f"({memory_in_words(self.device)})"
        )

    @torch.inference_mode()
    def _launched(self, program: Program, batch: PackedBatch, segments: Mapping[SegmentKind, Segments]) -> Fetch:
        """Run a program, on CUDA without waiting for it, and return its results on their way."""
        needed = rows_needed(program, segments, batch.num_tokens)
        fetch = Fetch(self.device)
        collector = Collector(program, segments, batch.num_tokens, needed, self.device, fetch.take)
        for layer, hidden_TH in self._states(batch, program.stop, needed, self._maps(program, fetch.take)):
            if layer < self.spec.num_hidden_layers or not self.spec.final_norm:
                collector.take(layer, hidden_TH)
                continue
            collector.take(layer, hidden_TH, unnormed=True)
            if collector.wants(layer, unnormed=False):
                collector.take(layer, self._load_final_norm()(hidden_TH), unnormed=False)
        if collector.pooler_rows is not None:
            collector.take_pooled(self._load_pooler()(collector.pooler_rows.to(self.dtype)))
        fetch.end()
        return fetch

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
        if kind_of(self.device) == "cuda":
            raise BackendError(
                f"device '{self.device}': CUDA cannot be used in a forked process; open the model in the child, or "
                "start processes by the method 'spawn'"
            )
        torch.set_num_threads(1)
        self._process = process

    def _maps(self, program: Program, store: Callable[[Capture, Tensor], None]) -> dict[int, Maps]:
        """Return, for each layer with attention captures, the observer that computes its maps."""
        by_layer: dict[int, list[Capture]] = {}
        for capture in program.captures:
            if capture.attention is not None:
                by_layer.setdefault(capture.layers[0], []).append(capture)
        return {layer: Maps(captures, self.spec.num_attention_heads, store) for layer, captures in by_layer.items()}

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
        rows = [batch.input_ids, batch.position_ids]
        rows += [] if batch.token_type_ids is None else [batch.token_type_ids]
        ids_T, positions_T, *types_T = upload(np.stack(rows).astype(np.int64), self.device)
        return PackedTensors(
            input_ids=ids_T,
            position_ids=positions_T,
            token_type_ids=types_T[0] if types_T else None,
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
