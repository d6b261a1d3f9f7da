"""`NativeBackend`: runs programs over packed batches on the kernels in `native/`.

Python loads blocks as programs reach them and lays out the arrays of a run; the C++ checks all of them again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from layertap.backends.base import Backend, FloatArray, Weights, rows_needed
from layertap.backends.facts import row_of
from layertap.backends.native import _native
from layertap.backends.native.supports import X86, gives_x86_bits
from layertap.features.program import Capture, Program, SegmentKind
from layertap.locks import ForkSafeLock
from layertap.models.positions import Disentangled, PositionTable, rotary_frequencies
from layertap.models.spec import EncoderSpec
from layertap.packing import PackedBatch, Segments
from layertap.tensors import TensorView


class NativeBackend(Backend):
    """Runs the programs of one model on the processor of this machine.

    A text gives the same bits in every batch, with every other feature beside it, and on any number of threads. Several
    Python threads may share one backend: a run sees only parts of the model that are completely loaded.

    Args:
        spec: The model; `supports` must have no objection to it.
        weights: Gives stored tensors, checked, for canonical names; called when a program first reaches a block.
        precision: "float32", "float32-high", "bfloat16" or "int8"; the instruction set must offer it.
        threads: Number of threads of one run.
        instruction_set: One of `_native.instruction_sets()`. The attribute of this name is "x86" where results have the
            bits that all sets of vectors give.
    """

    name = "native"
    batch_tokens = row_of("native", "cpu").batch_tokens
    leaves_python = True

    def __init__(
        self, spec: EncoderSpec, weights: Weights, *, precision: str, threads: int, instruction_set: str
    ) -> None:
        self.spec = spec
        self.instruction_set = X86 if gives_x86_bits(instruction_set, precision) else instruction_set
        self.threads = threads
        self._weights = weights
        self._lock = ForkSafeLock()
        self._blocks = 0
        self._has_embeddings = False
        self._has_final_norm = False
        self._has_pooler = False
        self._reached = 0  # tokens of the longest sequence whose distances are known
        thetas = sorted(set(spec.rotary_thetas))
        self._encoder = _native.Encoder(
            instruction_set=instruction_set,
            precision=precision,
            hidden_size=spec.hidden_size,
            num_attention_heads=spec.num_attention_heads,
            num_key_value_heads=spec.num_key_value_heads or spec.num_attention_heads,
            intermediate_size=spec.intermediate_size,
            embedding_size=spec.table_size,
            hidden_act=spec.hidden_act,
            layer_norm_eps=spec.layer_norm_eps,
            pre_norm=spec.norm_position == "pre",
            rms_norms=spec.norm == "rms",
            gated=spec.gated,
            projection_first=spec.projection_first,
            layers=[
                (
                    spec.block_of(layer),
                    spec.window_of(layer) or 0,
                    thetas.index(spec.rotary_thetas[layer]) if spec.rotary_thetas else -1,
                )
                for layer in range(spec.num_hidden_layers)
            ],
            frequencies=[rotary_frequencies(theta, spec.head_size, spec.rotary_scale).tolist() for theta in thetas],
        )

    def run(
        self, program: Program, batch: PackedBatch, segments: Mapping[SegmentKind, Segments]
    ) -> dict[Capture, FloatArray]:
        """Runs a program over a packed batch, as `Backend.run` describes."""
        self._load(program)
        if isinstance(self.spec.relative, Disentangled):
            self._reach(int(batch.lengths.max(initial=1).clip(1, batch.num_tokens)))
        kinds = sorted({capture.segments for capture in program.captures if capture.segments is not None})
        results = {capture: self._empty(capture, batch, segments) for capture in program.captures}
        self._encoder.run(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids if isinstance(self.spec.positions, PositionTable) else None,
            token_type_ids=batch.token_type_ids if self.spec.type_vocab_size else None,
            cu_seqlens=batch.cu_seqlens,
            stop=program.stop,
            top_rows=rows_needed(program, segments, batch.num_tokens),
            captures=[_native_capture(capture, kinds, results[capture]) for capture in program.captures],
            segments=[_native_segments(segments[kind]) for kind in kinds],
            threads=self.threads,
        )
        return results

    def stage_seconds(self) -> dict[str, float]:
        """Return the seconds that all runs so far spent in each stage, summed over threads."""
        seconds: dict[str, float] = self._encoder.stage_seconds()
        return seconds

    @property
    def weight_bytes(self) -> int:
        """Size in bytes of the loaded weights without the embedding tables, which stay in their file."""
        size: int = self._encoder.bytes
        return size

    def _empty(self, capture: Capture, batch: PackedBatch, segments: Mapping[SegmentKind, Segments]) -> FloatArray:
        if capture.attention is not None:
            heads = 1 if capture.attention == "mean" else len(capture.heads or range(self.spec.num_attention_heads))
            # a mean adds up
            return np.zeros(heads * int(np.square(batch.lengths.astype(np.int64)).sum()), dtype=np.float32)
        rows = batch.num_tokens if capture.segments is None else len(segments[capture.segments])
        return np.empty((rows, self.spec.hidden_size), dtype=np.float32)

    def _load(self, program: Program) -> None:
        blocks = max((self.spec.block_of(layer) + 1 for layer in range(program.stop)), default=0)
        with self._lock:
            if not self._has_embeddings:
                self._load_embeddings()
                self._has_embeddings = True
            while self._blocks < blocks:
                self._load_block(self._blocks)
                self._blocks += 1
            if self.spec.final_norm and program.stop == self.spec.num_hidden_layers and not self._has_final_norm:
                self._encoder.set_final_norm(_pair(self._floats("encoder.final_norm.", ("weight", "bias")), ""))
                self._has_final_norm = True
            if any(capture.pooler for capture in program.captures) and not self._has_pooler:
                pooler = self._floats("pooler.dense.", ("weight", "bias"))
                self._encoder.set_pooler((pooler["weight"], pooler.get("bias")))
                self._has_pooler = True

    def _load_embeddings(self) -> None:
        tables = {
            name: _stored(self._weights([key])[key])
            for name, key in (
                ("words", "embeddings.word_embeddings.weight"),
                ("positions", "embeddings.position_embeddings.weight"),
                ("types", "embeddings.token_type_embeddings.weight"),
            )
            if key in self.spec.parameters()
        }
        small = self._floats(
            "embeddings.", ("LayerNorm.weight", "LayerNorm.bias", "projection.weight", "projection.bias")
        )
        self._encoder.load_embeddings(
            **tables, norm=_pair(small, "LayerNorm."), projection=_pair(small, "projection."), **self._relative()
        )

    def _relative(self) -> dict[str, Any]:
        """Return the arguments of `load_embeddings` that describe relative positions."""
        relative = self.spec.relative
        if isinstance(relative, Disentangled):
            vectors = self._floats("encoder.", ("rel_embeddings.weight", "LayerNorm.weight", "LayerNorm.bias"))
            return {
                "distance_vectors": vectors["rel_embeddings.weight"],
                "distance_norm": _pair(vectors, "LayerNorm."),
            }
        if relative is None:
            return {}
        longest = self.spec.positions.max_length
        table = self._floats("encoder.relative_attention_bias.", ("weight",))["weight"]
        buckets = relative.buckets_of(np.arange(1 - longest, longest))
        return {"distance_bias": np.ascontiguousarray(table[buckets].T)}

    def _reach(self, longest: int) -> None:
        """Make the distances within sequences of `longest` tokens known to the encoder."""
        relative = self.spec.relative
        assert isinstance(relative, Disentangled)
        with self._lock:
            if longest <= self._reached:
                return
            reached = max(512, 1 << (longest - 1).bit_length())  # seldom more
            vectors = relative.vectors_of(np.arange(1 - reached, reached))
            self._encoder.reach_distances(vectors.astype(np.int32))
            self._reached = reached

    def _load_block(self, block: int) -> None:
        before = self.spec.norm_position == "pre"
        keys, queries = self._distance_projections()
        names = {
            "query": "attention.self.query",
            "key": "attention.self.key",
            "value": "attention.self.value",
            "attention_output": "attention.output.dense",
            "intermediate": "intermediate.dense",
            "output": "output.dense",
            "gate": "intermediate.gate" if self.spec.gated else None,
            "attention_norm": "attention.LayerNorm" if before else "attention.output.LayerNorm",
            "feed_forward_norm": "LayerNorm" if before else "output.LayerNorm",
            "distance_keys": keys,
            "distance_queries": queries,
        }
        own = dict.fromkeys(f"{name}.{part}" for name in names.values() if name for part in ("weight", "bias"))
        arrays = self._floats(f"encoder.layer.{block}.", list(own))
        parts: dict[str, Any] = {part: _pair(arrays, f"{name}.") for part, name in names.items()}
        self._encoder.add_block(**parts)

    def _distance_projections(self) -> tuple[str | None, str | None]:
        """Return the names of the dense layers that make keys and queries of distances, or None for absent terms."""
        relative = self.spec.relative
        if not isinstance(relative, Disentangled):
            return None, None
        names = ("key", "query") if relative.shared_projections else ("pos_key_proj", "pos_query_proj")
        terms = (relative.content_to_position, relative.position_to_content)
        keys, queries = (
            f"attention.self.{name}" if has_term else None for name, has_term in zip(names, terms, strict=True)
        )
        return keys, queries

    def _floats(self, prefix: str, names: tuple[str, ...] | list[str]) -> dict[str, FloatArray]:
        """Return the weights that the spec has, keyed by their names after the prefix, as contiguous float32."""
        parameters = self.spec.parameters()
        wanted = [name for name in names if prefix + name in parameters]
        views = self._weights([prefix + name for name in wanted])
        return {name: np.ascontiguousarray(views[prefix + name].to_float32()) for name in wanted}


def _pair(arrays: Mapping[str, FloatArray], prefix: str) -> tuple[FloatArray, FloatArray | None] | None:
    """Return the weight and the bias, or None, of a dense layer or a norm; None if the model has no such part."""
    weight = arrays.get(f"{prefix}weight")
    return None if weight is None else (weight, arrays.get(f"{prefix}bias"))


def _stored(view: TensorView) -> tuple[npt.NDArray[Any], str]:
    """Return a table as it lies in its file, and its dtype's name; float64, which kernels do not read, as float32."""
    if view.dtype in ("BF16", "F16"):
        return np.require(np.frombuffer(view.buffer, dtype="<u2").reshape(view.shape), requirements="A"), view.dtype
    return view.to_float32(), "F32"


def _native_capture(capture: Capture, kinds: list[SegmentKind], out: FloatArray) -> _native.Capture:
    return _native.Capture(
        layers=capture.layers,
        fold=capture.fold,
        weights=capture.weights,
        segments=None if capture.segments is None else kinds.index(capture.segments),
        reduce=capture.reduce,
        pooler=capture.pooler,
        unnormed=capture.unnormed,
        attention=capture.attention,
        heads=capture.heads,
        out=out,
    )


def _native_segments(segments: Segments) -> _native.Segments:
    return _native.Segments(begin=segments.begin, end=segments.end, offsets=segments.offsets, weights=segments.weights)
