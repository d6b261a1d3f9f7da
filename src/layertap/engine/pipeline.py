"""The stream: records -> ids -> packed batches -> captures -> features, in input order and bounded memory.

Records are taken a chunk at a time. Within a chunk, texts are sorted by length and packed; a chunk leaves whole, in
input order. Its size is bounded in tokens and in bytes of results, not in records.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from layertap.backends.base import Backend
from layertap.engine.batching import PlannedText, batches_of, pack_texts, unit_rows
from layertap.engine.details import Details
from layertap.engine.forecast import Forecast, result_bytes
from layertap.engine.parts import run_in_parts
from layertap.engine.preparing import Preparation, PreparedText, label
from layertap.engine.segments import segments_of
from layertap.engine.streaming import ProgressCallback as ProgressCallback
from layertap.engine.summary import RunSummary
from layertap.errors import NonFiniteError
from layertap.features.plan import Plan
from layertap.features.program import Capture, SegmentKind
from layertap.features.vectors import finish, unit_counts
from layertap.models.spec import EncoderSpec
from layertap.packing import PackedBatch, Segments
from layertap.records import Array, AttentionMaps, Feature, FeatureBatch, FeatureSchema, Ragged, Record

CHUNK_BATCHES = 16
"""Token budgets a chunk: enough texts of each length to fill batches with nearly equal ones."""

CHUNK_RESULT_BYTES = 128 << 20
"""Bytes of results that a chunk may hold; a chunk has at least one record."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pipeline:
    """Runs one plan over streams of records.

    Attributes:
        plan: what to compute.
        spec: the encoder.
        preparation: records -> ids.
        details: what is said of tokens and words beside the features.
        backend: runs programs.
        batch_tokens: packed tokens a batch at most.
        keep_non_finite: hand NaN and infinity over instead of raising.
    """

    plan: Plan
    spec: EncoderSpec
    preparation: Preparation
    details: Details
    backend: Backend
    batch_tokens: int
    keep_non_finite: bool

    @property
    def schemas(self) -> tuple[FeatureSchema, ...]:
        """Of the features and the details, in output order."""
        return (*self.plan.schemas, *self.details.schemas)

    def refuse_past(self, limit: int, records: Sequence[Record]) -> None:
        """Refuses records whose results would take more bytes than the limit; tokenizes them only if they might.

        Raises:
            OptionError: they would.
        """
        if self.preparation.cutting.long != "window":
            longest = max(seen.max_length for seen in self.plan.inputs)
            if result_bytes(self.schemas, longest) * len(records) <= limit:
                return
        lengths = (text.longest for text in self.preparation.prepare(records))
        Forecast.of(self.schemas, lengths).refuse_past(limit)

    def new_summary(self) -> RunSummary:
        """A summary with nothing counted yet."""
        everything = frozenset(range(len(self.plan.inputs)))
        return RunSummary(
            layers_run=max(program.stop for program in self.plan.programs(everything)),
            layers=self.spec.num_hidden_layers,
        )

    def run(
        self, records: Iterable[Record], summary: RunSummary, on_progress: ProgressCallback | None = None
    ) -> Iterator[FeatureBatch]:
        """Yields the features of the records, in their order, a chunk at a time.

        Raises:
            InputError: a record that cannot be had as asked.
            NonFiniteError: NaN or infinity in a result, naming the first records.
        """
        wordings, cutting = self.preparation.wordings, self.preparation.cutting
        cut = cutting.long == "truncate" and cutting.truncate_side == "right"
        limits = [self.preparation.cutting.size(seen.max_length) for seen in self.plan.inputs]
        prompt_rows = [wordings.prompt_rows(number, cut=cut) for number in range(len(self.plan.inputs))]
        for chunk in self._chunks(self.preparation.prepare(records)):
            chunk_records = [text.record for text in chunk]
            summary.count_texts(chunk, limits)
            results = ChunkResults(len(chunk), self.plan.schemas)
            planned = [part for i, text in enumerate(chunk) for part in text.planned(i)]
            waiting = np.bincount([part.index for part in planned], minlength=len(chunk))
            for texts in batches_of(planned, batch_tokens=self.batch_tokens):
                batch = self._run_batch(texts, chunk_records, results, prompt_rows[min(texts[0].inputs)])
                summary.tokens += batch.num_tokens
                np.subtract.at(waiting, batch.record_index, 1)
                finished = int((waiting[batch.record_index] == 0).sum())
                summary.records += finished
                if on_progress is not None:
                    on_progress(finished, batch.num_tokens)
            features = results.features()
            if not self.keep_non_finite:
                refuse_non_finite(chunk_records, features)
            yield FeatureBatch(records=chunk_records, features=features | self.details.of(chunk))

    def _run_batch(
        self, texts: Sequence[PlannedText], records: Sequence[Record], results: ChunkResults, prompt_rows: int
    ) -> PackedBatch:
        inputs = texts[0].inputs
        batch = pack_texts(
            texts,
            position_ids=self.spec.positions.position_ids,
            token_types=self.spec.type_vocab_size > 1,
            cls_index=self.preparation.wordings.tokenizer.cls_index,
        )
        units = unit_rows(texts)
        for program in self.plan.programs(inputs):
            kinds = self.plan.segment_kinds(program)
            segments = {kind: segments_of(batch, kind, prompt_rows=prompt_rows, units=units) for kind in kinds}
            captures = run_in_parts(self.backend, program, batch, segments, batch_tokens=self.batch_tokens)
            if not self.keep_non_finite:
                for capture, values in captures.items():
                    refuse_non_finite_capture(capture, values, batch, segments, records)
            for name in self.plan.features_of(inputs):
                if all(c in captures for reading in self.plan.readings[name] for c in reading.captures):
                    counts = unit_counts(self.plan, name, segments)
                    results.put(finish(self.plan, name, captures, segments), batch.record_index, counts)
        return batch

    def _chunks(self, texts: Iterable[PreparedText]) -> Iterator[list[PreparedText]]:
        max_tokens = self.batch_tokens * CHUNK_BATCHES
        chunk: list[PreparedText] = []
        tokens = held = 0
        for text in texts:
            length = text.num_tokens
            own_bytes = result_bytes(self.schemas, text.longest)
            if chunk and (tokens + length > max_tokens or held + own_bytes > CHUNK_RESULT_BYTES):
                yield chunk
                chunk, tokens, held = [], 0, 0
            chunk.append(text)
            tokens += length
            held += own_bytes
        if chunk:
            yield chunk


class ChunkResults:
    """The results of one chunk, put in as batches finish, taken out in record order."""

    def __init__(self, num_records: int, schemas: Sequence[FeatureSchema]) -> None:
        self._num_records = num_records
        self._schemas = {schema.name: schema for schema in schemas}
        self._dense: dict[str, Array] = {}
        self._rows: dict[str, list[Array]] = {}

    def put(
        self,
        arrays: dict[str, Array],
        record_index: npt.NDArray[np.int64],
        counts: npt.NDArray[np.int64] | None,
    ) -> None:
        """Puts arrays of one batch in.

        Args:
            arrays: [N, ...] where dense, token-major [M, ...] where ragged, [M] of maps.
            record_index: int64 [N], whose they are.
            counts: int64 [N], how many of the M are each record's; None where dense.
        """
        for name, array in arrays.items():
            if counts is None:
                if name not in self._dense:
                    self._dense[name] = np.empty((self._num_records, *array.shape[1:]), dtype=array.dtype)
                self._dense[name][record_index] = array
                continue
            if name not in self._rows:
                self._rows[name] = [array[:0]] * self._num_records
            ends = np.cumsum(counts)
            for index, (begin, end) in zip(record_index, pairwise([0, *ends.tolist()]), strict=True):
                self._rows[name][index] = array[begin:end]

    def features(self) -> dict[str, Feature]:
        """Name -> array, `Ragged` or `AttentionMaps`, in the order of the schemas."""
        return {name: self._feature(schema) for name, schema in self._schemas.items()}

    def _feature(self, schema: FeatureSchema) -> Feature:
        if schema.ragged:
            return Ragged.from_rows(self._rows[schema.name])
        if not schema.maps:
            return self._dense[schema.name]
        maps = self._rows[schema.name]
        lengths = np.array([math.isqrt(len(own) // math.prod(schema.shape)) for own in maps], dtype=np.int64)
        return AttentionMaps(np.concatenate(maps), lengths, schema.shape)


def refuse_non_finite_capture(
    capture: Capture,
    values: Array,
    batch: PackedBatch,
    segments: dict[SegmentKind, Segments],
    records: Sequence[Record],
) -> None:
    """Raises `NonFiniteError` if the model itself gave NaN or infinity: stored as bits it would not show."""
    if np.isfinite(values).all():
        return
    if capture.attention is not None:
        squares = np.square(batch.lengths.astype(np.int64))
        ends = np.cumsum(squares) * (len(values) // int(squares.sum()))
        texts = np.searchsorted(ends, np.flatnonzero(~np.isfinite(values)), side="right")
        layer = capture.layers[0] - 1
        raise _non_finite(f"attentions[{layer}]", [records[i] for i in np.unique(batch.record_index[texts])])
    rows = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if capture.segments is None:
        sequences = np.searchsorted(batch.cu_seqlens, rows, side="right") - 1
        texts = np.searchsorted(batch.sequences, sequences, side="right") - 1
    else:
        owners = segments[capture.segments].texts
        texts = rows if owners is None else np.searchsorted(owners, rows, side="right") - 1
    layers = ", ".join(map(str, capture.layers))
    raise _non_finite(f"hidden_states[{layers}]", [records[i] for i in np.unique(batch.record_index[texts])])


def refuse_non_finite(records: Sequence[Record], features: dict[str, Feature]) -> None:
    """Raises `NonFiniteError` if a floating-point result holds NaN or infinity, as float16 does beyond 65,504."""
    for name, result in features.items():
        values = result.values if isinstance(result, Ragged | AttentionMaps) else result
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise _non_finite(name, [records[i] for i in range(len(records)) if not np.isfinite(result[i]).all()])


def _non_finite(what: str, bad: Sequence[Record]) -> NonFiniteError:
    named = ", ".join(map(label, bad[:5])) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
    return NonFiniteError(
        f"{what}: NaN or infinity in the result of record {named}; a wider precision may help, "
        "non_finite='keep' (--non-finite keep) hands it over as it is"
    )
