"""`NativeBackend`: programs over packed batches on the kernels in `native/`.

Python's part is to load blocks as programs reach them and to lay out what a run needs; the C++ checks all of it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from layertap.backends.base import Backend, FloatArray, Weights, rows_needed
from layertap.backends.facts import row_of
from layertap.backends.native import _native
from layertap.features.program import Capture, Program, SegmentKind
from layertap.models.positions import Disentangled, PositionTable, rotary_frequencies
from layertap.models.spec import EncoderSpec
from layertap.packing import PackedBatch, Segments
from layertap.tensors import TensorView


class NativeBackend(Backend):
    """Runs one model's programs on this machine's processor.

    The same text gives the same bits in every batch, with every other feature beside it, on any number of threads.

    Args:
        spec: what to run; one that `supports` has nothing against.
        weights: canonical names -> their stored tensors, checked; called as blocks are first reached.
        precision: "float32", "float32-high", "bfloat16" or "int8"; one that the instruction set has.
        threads: of a run.
        instruction_set: one of `_native.instruction_sets()`.
    """

    name = "native"
    batch_tokens = row_of("native", "cpu").batch_tokens

    def __init__(
        self, spec: EncoderSpec, weights: Weights, *, precision: str, threads: int, instruction_set: str
    ) -> None:
        self.spec = spec
        self.instruction_set = instruction_set
        self.threads = threads
        self._weights = weights
        self._lock = Lock()
        self._blocks = 0
        self._has_embeddings = False
        self._tables: dict[str, tuple[npt.NDArray[Any], str]] = {}
        self._has_final_norm = False
        self._has_pooler = False
        self._reached = 0  # tokens of the longest sequence whose distances are there
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
        """See `Backend.run`."""
        self._load(program)
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
            captures=[_as_tuple(capture, kinds, results[capture]) for capture in program.captures],
            segments=[_as_arrays(segments[kind]) for kind in kinds],
            threads=self.threads,
        )
        return results

    def stage_seconds(self) -> dict[str, float]:
        """Seconds that all runs so far spent in each stage, threads added up."""
        seconds: dict[str, float] = self._encoder.stage_seconds()
        return seconds

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights that are loaded, the embedding tables aside, which stay in their file."""
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
                found = self._floats("encoder.final_norm.", ("weight", "bias"))
                self._encoder.set_final_norm(found["weight"], found.get("bias"))
                self._has_final_norm = True
            if any(capture.pooler for capture in program.captures) and not self._has_pooler:
                found = self._floats("pooler.", ("dense.weight", "dense.bias"))
                self._encoder.set_pooler(found["dense.weight"], found.get("dense.bias"))
                self._has_pooler = True

    def _load_embeddings(self) -> None:
        tables = {
            name: self._weights([key])[key]
            for name, key in (
                ("words", "embeddings.word_embeddings.weight"),
                ("positions", "embeddings.position_embeddings.weight"),
                ("types", "embeddings.token_type_embeddings.weight"),
            )
            if key in self.spec.parameters()
        }
        stored = {name: _stored(view) for name, view in tables.items()}
        self._tables = stored  # the encoder reads them where they lie
        small = self._floats(
            "embeddings.", ("LayerNorm.weight", "LayerNorm.bias", "projection.weight", "projection.bias")
        )
        self._encoder.set_embeddings(
            words=stored["words"][0],
            words_type=stored["words"][1],
            positions=stored.get("positions", (None, ""))[0],
            positions_type=stored.get("positions", (None, "F32"))[1],
            types=stored.get("types", (None, ""))[0],
            types_type=stored.get("types", (None, "F32"))[1],
            norm_weight=small.get("LayerNorm.weight"),
            norm_bias=small.get("LayerNorm.bias"),
            projection=small.get("projection.weight"),
            projection_bias=small.get("projection.bias"),
        )
        self._load_relative()

    def _load_relative(self) -> None:
        relative = self.spec.relative
        if isinstance(relative, Disentangled):
            found = self._floats("encoder.", ("rel_embeddings.weight", "LayerNorm.weight", "LayerNorm.bias"))
            self._encoder.set_distances(
                vectors=found["rel_embeddings.weight"],
                norm_weight=found.get("LayerNorm.weight"),
                norm_bias=found.get("LayerNorm.bias"),
            )
        elif relative is not None:
            longest = self.spec.positions.max_length
            table = self._floats("encoder.relative_attention_bias.", ("weight",))["weight"]
            buckets = relative.buckets_of(np.arange(1 - longest, longest))
            self._encoder.set_distance_bias(np.ascontiguousarray(table[buckets].T))

    def _reach(self, longest: int) -> None:
        """Sequences of so many tokens can be run: their distances are known."""
        if not isinstance(self.spec.relative, Disentangled):
            return
        with self._lock:
            if longest <= self._reached:
                return
            reached = max(512, 1 << (longest - 1).bit_length())  # seldom more
            vectors = self.spec.relative.vectors_of(np.arange(1 - reached, reached))
            self._encoder.reach_distances(vectors.astype(np.int32))
            self._reached = reached

    def _load_block(self, block: int) -> None:
        dense = [
            "attention.self.query",
            "attention.self.key",
            "attention.self.value",
            "attention.output.dense",
            "intermediate.dense",
            "output.dense",
        ]
        if self.spec.gated:
            dense.append("intermediate.gate")
        before = self.spec.norm_position == "pre"
        norms = ("attention.LayerNorm", "LayerNorm") if before else ("attention.output.LayerNorm", "output.LayerNorm")
        names = [f"{name}.{part}" for name in (*dense, *norms) for part in ("weight", "bias")]
        keys, queries = self._projections_of_distances()
        own = [f"{name}.{part}" for name in (keys, queries) if name for part in ("weight", "bias")]
        found = self._floats(f"encoder.layer.{block}.", list(dict.fromkeys(names + own)))

        def projection(name: str | None) -> tuple[FloatArray, FloatArray | None] | None:
            return None if name is None else (found[f"{name}.weight"], found.get(f"{name}.bias"))

        self._encoder.add_block(
            weights=[found[f"{name}.weight"] for name in dense],
            biases=[found.get(f"{name}.bias") for name in dense],
            norms=[found.get(f"{name}.{part}") for name in norms for part in ("weight", "bias")],
            distance_keys=projection(keys),
            distance_queries=projection(queries),
        )

    def _projections_of_distances(self) -> tuple[str | None, str | None]:
        """Which dense layers of a block make keys and queries of distances."""
        relative = self.spec.relative
        if not isinstance(relative, Disentangled):
            return None, None
        names = ("key", "query") if relative.shared_projections else ("pos_key_proj", "pos_query_proj")
        terms = (relative.content_to_position, relative.position_to_content)
        keys, queries = (
            f"attention.self.{name}" if is_there else None for name, is_there in zip(names, terms, strict=True)
        )
        return keys, queries

    def _floats(self, prefix: str, names: tuple[str, ...] | list[str]) -> dict[str, FloatArray]:
        """Those of the weights that the spec has, by their names after the prefix, as contiguous float32."""
        parameters = self.spec.parameters()
        wanted = [name for name in names if prefix + name in parameters]
        views = self._weights([prefix + name for name in wanted])
        return {name: np.ascontiguousarray(views[prefix + name].to_float32()) for name in wanted}


def _stored(view: TensorView) -> tuple[npt.NDArray[Any], str]:
    """A table as it lies in its file, and its dtype's name; float64, which kernels do not read, as float32."""
    if view.dtype in ("BF16", "F16"):
        return np.require(np.frombuffer(view.buffer, dtype="<u2").reshape(view.shape), requirements="A"), view.dtype
    return view.to_float32(), "F32"


def _as_tuple(capture: Capture, kinds: list[SegmentKind], out: FloatArray) -> tuple[object, ...]:
    return (
        list(capture.layers),
        capture.fold,
        None if capture.weights is None else list(capture.weights),
        -1 if capture.segments is None else kinds.index(capture.segments),
        capture.reduce,
        capture.pooler,
        capture.unnormed,
        capture.attention,
        None if capture.heads is None else list(capture.heads),
        out,
    )


def _as_arrays(segments: Segments) -> tuple[object, ...]:
    def ints(values: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
        return np.ascontiguousarray(values, dtype=np.int32)

    weights = None if segments.weights is None else np.ascontiguousarray(segments.weights, dtype=np.float32)
    return ints(segments.begin), ints(segments.end), ints(segments.offsets), weights
