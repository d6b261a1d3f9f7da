"""Pipeline from records to features: ids, packed batches, captures, features, in input order and bounded memory.

Records are taken a chunk at a time. Within a chunk, texts are sorted by length and packed; the results of a chunk are
returned together, in input order. The size of a chunk is bounded in tokens and in bytes of results, not in records.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from layertap.backends.base import Backend
from layertap.data.slices import join
from layertap.engine.batching import PlannedText, batches_of, pack_texts, unit_rows
from layertap.engine.details import Details
from layertap.engine.finite import check_capture, check_features
from layertap.engine.forecast import Forecast, result_bytes
from layertap.engine.parts import run_in_parts
from layertap.engine.preparing import Preparation, PreparedText
from layertap.engine.repeats import merge_repeats
from layertap.engine.segments import segments_of
from layertap.engine.streaming import ProgressCallback
from layertap.engine.summary import RunSummary
from layertap.features.plan import Plan
from layertap.features.vectors import finish, unit_counts
from layertap.models.spec import EncoderSpec
from layertap.records import Array, AttentionMaps, Feature, FeatureBatch, FeatureSchema, Ragged, Record

CHUNK_BATCHES = 16
"""Size of a chunk in token budgets: enough texts of each length to fill batches with nearly equal lengths."""

CHUNK_RESULT_BYTES = 128 << 20
"""Limit of the results of a chunk in bytes; a chunk has at least one record."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pipeline:
    """One plan over records: `run` is the whole stream, `prepare` and `run_chunk` are its two steps.

    Attributes:
        plan: the plan to run.
        spec: numbers of the encoder.
        preparation: conversion of records to ids.
        prompt_rows: for each of the plan's inputs, the rows that its prompt takes of every text.
        details: columns about tokens and words beside the features.
        backend: backend that runs programs.
        batch_tokens: token budget of a batch.
        keep_non_finite: whether NaN and infinity are returned instead of refused.
    """

    plan: Plan
    spec: EncoderSpec
    preparation: Preparation
    prompt_rows: tuple[int, ...]
    details: Details
    backend: Backend
    batch_tokens: int
    keep_non_finite: bool

    @property
    def schemas(self) -> tuple[FeatureSchema, ...]:
        """Schemas of all results, features first, then details, in output order."""
        return (*self.plan.schemas, *self.details.schemas)

    def refuse_past(self, limit: int, records: Sequence[Record]) -> None:
        """Refuse records whose results would exceed a limit in bytes; tokenize them only if they might.

        Raises:
            OptionError: the results would exceed the limit.
        """
        if self.preparation.length_policy.long != "window":
            longest = max(seen.max_length for seen in self.plan.inputs)
            if result_bytes(self.schemas, longest) * len(records) <= limit:
                return
        lengths = (text.longest for text in self.preparation.prepare(records))
        Forecast.of(self.schemas, lengths).refuse_past(limit)

    def new_summary(self) -> RunSummary:
        """Make a summary in which nothing is counted yet."""
        everything = frozenset(range(len(self.plan.inputs)))
        return RunSummary(
            layers_run=max(program.stop for program in self.plan.programs(everything)),
            layers=self.spec.num_hidden_layers,
        )

    def run(
        self, records: Iterable[Record], summary: RunSummary, on_progress: ProgressCallback | None = None
    ) -> Iterator[FeatureBatch]:
        """Yield the features of records in their order, a chunk at a time: `prepare`, then `run_chunk`.

        Raises:
            InputError: a record does not fit the plan (for example, it lacks spans, or is over a limit that
                long='error' enforces).
            NonFiniteError: a result holds NaN or infinity; the message names the first such records.
        """
        limits = [self.preparation.length_policy.size(seen.max_length) for seen in self.plan.inputs]

        def count(finished: int, tokens: int) -> None:
            summary.records += finished
            summary.tokens += tokens
            if on_progress is not None:
                on_progress(finished, tokens)

        for chunk in self.prepare(records):
            summary.count_texts(chunk, limits)
            planned = self._planned(chunk)
            summary.count_repeats(planned)
            yield self._run_planned(chunk, planned, count)

    def prepare(self, records: Iterable[Record]) -> Iterator[list[PreparedText]]:
        """Yield records as texts ready to run, in chunks of bounded size; nothing is computed by the backend.

        A chunk holds enough texts to fill batches with nearly equal lengths, and its results stay within
        `CHUNK_RESULT_BYTES`, unless a single text has more. Any part of a chunk can be run by itself.

        Raises:
            InputError: a record does not fit the plan.
        """
        max_tokens = self.batch_tokens * CHUNK_BATCHES
        chunk: list[PreparedText] = []
        tokens = held = 0
        for text in self.preparation.prepare(records):
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

    def run_chunk(self, texts: Sequence[PreparedText], on_batch: ProgressCallback | None = None) -> FeatureBatch:
        """Compute the features of prepared texts. May be called by several threads at once.

        Args:
            texts: texts from `prepare`: a chunk, a part of one, or texts of several.
            on_batch: function called after every packed batch with the records finished by it and the tokens of its
                texts.

        Returns:
            The texts' records in their order, with their features and details.

        Raises:
            NonFiniteError: a result holds NaN or infinity; the message names the first such records.
        """
        if not texts:
            return FeatureBatch(records=[], features={schema.name: join(schema, ()) for schema in self.schemas})
        return self._run_planned(texts, self._planned(texts), on_batch)

    def _planned(self, texts: Sequence[PreparedText]) -> list[PlannedText]:
        """Return what is to run of a chunk: by the rule `repeat`, equal texts once."""
        planned = [part for i, text in enumerate(texts) for part in text.planned(i)]
        return merge_repeats(planned) if self.plan.rules.repeat else planned

    def _run_planned(
        self, texts: Sequence[PreparedText], planned: Sequence[PlannedText], on_batch: ProgressCallback | None
    ) -> FeatureBatch:
        records = [text.record for text in texts]
        results = ChunkResults(len(texts), self.plan.schemas)
        waiting = np.bincount([i for part in planned for i in part.positions], minlength=len(texts))
        for together in batches_of(planned, batch_tokens=self.batch_tokens):
            self._run_batch(together, records, results)
            served = np.array([i for part in together for i in part.positions])
            waiting[served] -= 1  # a batch serves one set of inputs, so that no record is in it twice
            if on_batch is not None:
                tokens = sum(part.cut.num_tokens * len(part.positions) for part in together)
                on_batch(int((waiting[served] == 0).sum()), tokens)
        features = results.features()
        if not self.keep_non_finite:
            check_features(records, features)
        return FeatureBatch(records=records, features=features | self.details.of(texts))

    def _run_batch(self, texts: Sequence[PlannedText], records: Sequence[Record], results: ChunkResults) -> None:
        inputs = texts[0].inputs
        prompt_rows = self.prompt_rows[min(inputs)]
        batch = pack_texts(
            texts,
            position_ids=self.spec.positions.position_ids,
            token_types=self.spec.type_vocab_size > 1,
            cls_index=self.preparation.variants.tokenizer.cls_index,
        )
        units = unit_rows(texts)
        repeats = [(i, copy) for i, text in enumerate(texts) for copy in text.repeats]
        for program in self.plan.programs(inputs):
            kinds = self.plan.segment_kinds(program)
            segments = {kind: segments_of(batch, kind, prompt_rows=prompt_rows, units=units) for kind in kinds}
            captures = run_in_parts(self.backend, program, batch, segments, batch_tokens=self.batch_tokens)
            if not self.keep_non_finite:
                for capture, values in captures.items():
                    check_capture(capture, values, batch, segments, texts, records)
            for name in self.plan.features_of(inputs):
                if all(c in captures for reading in self.plan.readings[name] for c in reading.captures):
                    counts = unit_counts(self.plan, name, segments)
                    results.put(finish(self.plan, name, captures, segments), batch.record_index, counts, repeats)


class ChunkResults:
    """Results of one chunk, collected as batches finish and returned in the order of records."""

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
        repeats: Sequence[tuple[int, int]] = (),
    ) -> None:
        """Add the arrays of one batch.

        Args:
            arrays: arrays by feature: dense [N, ...], ragged token-major [M, ...], attention maps [M].
            record_index: int64 [N], positions of the records in the chunk.
            counts: int64 [N], number of the M values that belong to each record; None for dense arrays.
            repeats: further records of the chunk with the results of one of the N: pairs of its number and theirs.
        """
        sources, copies = [source for source, _ in repeats], [copy for _, copy in repeats]
        for name, array in arrays.items():
            if counts is None:
                if name not in self._dense:
                    self._dense[name] = np.empty((self._num_records, *array.shape[1:]), dtype=array.dtype)
                self._dense[name][record_index] = array
                if copies:
                    self._dense[name][copies] = array[sources]
                continue
            if name not in self._rows:
                self._rows[name] = [array[:0]] * self._num_records
            ends = np.cumsum(counts)
            for index, (begin, end) in zip(record_index, pairwise([0, *ends.tolist()]), strict=True):
                self._rows[name][index] = array[begin:end]
            for source, copy in repeats:
                self._rows[name][copy] = self._rows[name][record_index[source]]

    def features(self) -> dict[str, Feature]:
        """Return the features by name (array, `Ragged` or `AttentionMaps`), in the order of the schemas."""
        return {name: self._feature(schema) for name, schema in self._schemas.items()}

    def _feature(self, schema: FeatureSchema) -> Feature:
        if schema.ragged:
            return Ragged.from_rows(self._rows[schema.name])
        if not schema.maps:
            return self._dense[schema.name]
        maps = self._rows[schema.name]
        lengths = np.array([math.isqrt(len(own) // math.prod(schema.shape)) for own in maps], dtype=np.int64)
        return AttentionMaps(np.concatenate(maps), lengths, schema.shape)
