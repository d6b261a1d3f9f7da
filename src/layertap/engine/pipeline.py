"""Pipeline from records to features: ids, packed batches, captures, features, in input order and bounded memory.

Records are taken a chunk at a time. Within a chunk, texts are sorted by length and packed; the results of a chunk are
returned together, in input order. The size of a chunk is bounded in tokens and in bytes of results, not in records.

Where the backend works beside the processor (`Backend.overlaps`), the next chunk is prepared in a thread, and the next
batch is started before the results of the last one are fetched and stored. Where it works on the processor without
Python's lock (`Backend.leaves_python`), chunks begin with one batch and grow, and while the batches of one run, a
thread prepares about as many texts as the next one will hold.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from layertap.backends.base import Backend, OutOfMemoryError, Started
from layertap.data.slices import join
from layertap.engine.ahead import Ahead
from layertap.engine.batching import PlannedText, batches_of, pack_texts, unit_rows
from layertap.engine.details import Details
from layertap.engine.finite import check_capture, check_features
from layertap.engine.forecast import Forecast, result_bytes
from layertap.engine.parts import start_in_parts
from layertap.engine.preparing import Preparation, PreparedText, characters_of
from layertap.engine.read_ahead import ReadAhead
from layertap.engine.repeats import merge_repeats
from layertap.engine.results import ChunkResults
from layertap.engine.segments import segments_of
from layertap.engine.streaming import ProgressCallback
from layertap.engine.summary import RunSummary
from layertap.errors import BackendError
from layertap.features.plan import Plan
from layertap.features.program import SegmentKind
from layertap.features.vectors import finish, unit_counts
from layertap.models.spec import EncoderSpec
from layertap.packing import PackedBatch, Segments
from layertap.records import FeatureBatch, FeatureSchema, Record

CHUNK_BATCHES = 16
"""Size of a chunk in token budgets: enough texts of each length to fill batches with nearly equal lengths."""

CHUNK_GROWTH = 4
"""Size of a chunk over that of the chunk before, where chunks begin with one batch."""

CHUNK_RESULT_BYTES = 128 << 20
"""Limit of the results of a chunk in bytes, where the backend has none of its own; a chunk has at least one record."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Budget:
    """Token budget of the batches of one run; it shrinks where the memory of the device does not suffice.

    Attributes:
        tokens: the current budget.
        summary: counts of the run, in which a smaller budget is noted.
    """

    tokens: int
    summary: RunSummary | None = None

    def reduce(self, tokens: int) -> None:
        """Use smaller batches from now on."""
        self.tokens = tokens
        if self.summary is not None:
            self.summary.reduced_batch_tokens = tokens


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Chunk:
    """Chunk that is being run.

    Attributes:
        texts: the prepared texts of N records.
        records: the records.
        batches: texts to run together.
        results: results so far.
        waiting: int64 [N], number of batches that each record still needs.
        on_batch: function called after every batch.
    """

    texts: Sequence[PreparedText]
    records: Sequence[Record]
    batches: Sequence[list[PlannedText]]
    results: ChunkResults
    waiting: npt.NDArray[np.int64]
    on_batch: ProgressCallback | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _InFlight:
    """Batch that the backend has started on.

    Attributes:
        chunk: the chunk to which it belongs.
        texts: its texts.
        batch: the texts packed.
        runs: for each program, the segments that it reads and the function that waits for its captures.
    """

    chunk: _Chunk
    texts: Sequence[PlannedText]
    batch: PackedBatch
    runs: Sequence[tuple[Mapping[SegmentKind, Segments], Started]]


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
        unknown_ids = tuple(self.details.tokenizer.unknown.values())
        limits = [self.preparation.length_policy.size(seen.max_length) for seen in self.plan.inputs]

        def count(finished: int, tokens: int) -> None:
            summary.records += finished
            summary.tokens += tokens
            if on_progress is not None:
                on_progress(finished, tokens)

        budget = _Budget(tokens=self.batch_tokens, summary=summary)
        in_flight: deque[_InFlight] = deque()
        read_ahead = ReadAhead(self.preparation, records) if self.backend.leaves_python else None
        chunks = self.prepare(records) if read_ahead is None else self._chunks(read_ahead.texts(), batches=1)
        ahead = Ahead(chunks) if self.backend.overlaps else None
        try:
            while True:
                if ahead is not None and not ahead.is_ready:
                    yield from self._finish_all(in_flight)
                try:
                    texts = next(chunks if ahead is None else ahead, None)
                except Exception:
                    yield from self._finish_all(in_flight)  # results of everything read before the error
                    raise
                if texts is None:
                    break
                summary.count_texts(texts, limits, unknown_ids)
                planned = self._planned(texts)
                summary.count_repeats(planned)
                yield from self._run_planned(texts, planned, count, budget, in_flight, read_ahead)
            yield from self._finish_all(in_flight)
        finally:
            for helper in (ahead, read_ahead):
                if helper is not None:
                    helper.close()

    def prepare(self, records: Iterable[Record]) -> Iterator[list[PreparedText]]:
        """Yield records as texts ready to run, in chunks of bounded size; nothing is computed by the backend.

        A chunk holds enough texts to fill batches with nearly equal lengths, and its results stay within the limit of
        the backend, else `CHUNK_RESULT_BYTES`, unless a single text has more. Any part of a chunk can be run by itself.

        Raises:
            InputError: a record does not fit the plan.
        """
        return self._chunks(self.preparation.prepare(records), batches=CHUNK_BATCHES)

    def _chunks(self, texts: Iterable[PreparedText], *, batches: int) -> Iterator[list[PreparedText]]:
        """Yield texts in chunks, the first of which holds this many batches; later ones grow up to `CHUNK_BATCHES`."""
        max_tokens = self.batch_tokens * batches
        max_bytes = self.backend.chunk_result_bytes or CHUNK_RESULT_BYTES
        chunk: list[PreparedText] = []
        tokens = held = 0
        for text in texts:
            length = text.num_tokens
            own_bytes = result_bytes(self.schemas, text.longest)
            if chunk and (tokens + length > max_tokens or held + own_bytes > max_bytes):
                yield chunk
                chunk, tokens, held = [], 0, 0
                max_tokens = min(max_tokens * CHUNK_GROWTH, self.batch_tokens * CHUNK_BATCHES)
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
        in_flight: deque[_InFlight] = deque()
        budget = _Budget(tokens=self.batch_tokens)
        finished = [*self._run_planned(texts, self._planned(texts), on_batch, budget, in_flight)]
        (batch,) = [*finished, *self._finish_all(in_flight)]
        return batch

    def _planned(self, texts: Sequence[PreparedText]) -> list[PlannedText]:
        """Return what is to run of a chunk: by the rule `repeat`, equal texts once."""
        planned = [part for i, text in enumerate(texts) for part in text.planned(i)]
        return merge_repeats(planned) if self.plan.rules.repeat else planned

    def _run_planned(
        self,
        texts: Sequence[PreparedText],
        planned: Sequence[PlannedText],
        on_batch: ProgressCallback | None,
        budget: _Budget,
        in_flight: deque[_InFlight],
        read_ahead: ReadAhead | None = None,
    ) -> Iterator[FeatureBatch]:
        """Start the batches of a chunk, and yield the results of chunks whose last batch is finished by then.

        Before each batch, records of the next chunk are read: by the last one, as many as the chunk may grow to.
        """
        chunk = _Chunk(
            texts=texts,
            records=[text.record for text in texts],
            batches=list(batches_of(planned, batch_tokens=budget.tokens)),
            results=ChunkResults(len(texts), self.plan.schemas),
            waiting=np.bincount([i for part in planned for i in part.positions], minlength=len(texts)),
            on_batch=on_batch,
        )
        next_characters = self._next_characters(texts) if read_ahead is not None else 0
        for number, together in enumerate(chunk.batches, start=1):
            if read_ahead is not None:
                read_ahead.read(next_characters * number // len(chunk.batches))
            yield from self._advance(chunk, together, budget, in_flight)

    def _next_characters(self, texts: Sequence[PreparedText]) -> int:
        """Estimate the characters of the chunk after one with these texts."""
        most_tokens = self.batch_tokens * CHUNK_BATCHES
        growth = min(CHUNK_GROWTH, most_tokens / sum(text.num_tokens for text in texts))
        return int(growth * sum(characters_of(text.record) for text in texts))

    def _advance(
        self, chunk: _Chunk, texts: Sequence[PlannedText], budget: _Budget, in_flight: deque[_InFlight]
    ) -> Iterator[FeatureBatch]:
        """Start a batch, in halves where the device's memory does not suffice, and finish those before it."""
        while len(texts) == 1 or sum(text.cut.num_tokens for text in texts) <= budget.tokens:
            try:
                in_flight.append(self._start(chunk, texts, budget.tokens))
            except OutOfMemoryError as error:
                if in_flight:
                    yield from self._finish_all(in_flight)
                else:
                    budget.reduce(_smaller_budget(texts, budget.tokens, error))
                continue
            while len(in_flight) > (1 if self.backend.overlaps else 0):
                yield from self._finish(in_flight.popleft())
            return
        middle = len(texts) // 2
        for half in (texts[:middle], texts[middle:]):
            yield from self._advance(chunk, half, budget, in_flight)

    def _start(self, chunk: _Chunk, texts: Sequence[PlannedText], batch_tokens: int) -> _InFlight:
        inputs = texts[0].inputs
        prompt_rows = self.prompt_rows[min(inputs)]
        batch = pack_texts(
            texts,
            position_ids=self.spec.positions.position_ids,
            token_types=self.spec.type_vocab_size > 1,
            cls_index=self.preparation.variants.tokenizer.cls_index,
        )
        units = unit_rows(texts)
        runs = []
        for program in self.plan.programs(inputs):
            kinds = self.plan.segment_kinds(program)
            segments = {kind: segments_of(batch, kind, prompt_rows=prompt_rows, units=units) for kind in kinds}
            started = start_in_parts(self.backend, program, batch, segments, batch_tokens=batch_tokens)
            runs.append((segments, started))
        return _InFlight(chunk=chunk, texts=texts, batch=batch, runs=runs)

    def _finish_all(self, in_flight: deque[_InFlight]) -> Iterator[FeatureBatch]:
        while in_flight:
            yield from self._finish(in_flight.popleft())

    def _finish(self, started: _InFlight) -> Iterator[FeatureBatch]:
        """Store the results of a batch, and yield those of its chunk where it was the last one."""
        chunk, texts, batch = started.chunk, started.texts, started.batch
        repeats = [(i, copy) for i, text in enumerate(texts) for copy in text.repeats]
        for segments, fetch in started.runs:
            captures = fetch()
            if not self.keep_non_finite:
                for capture, values in captures.items():
                    check_capture(capture, values, batch, segments, texts, chunk.records)
            for name in self.plan.features_of(texts[0].inputs):
                if all(c in captures for reading in self.plan.readings[name] for c in reading.captures):
                    counts = unit_counts(self.plan, name, segments)
                    chunk.results.put(finish(self.plan, name, captures, segments), batch.record_index, counts, repeats)
        served = np.array([i for part in texts for i in part.positions])
        chunk.waiting[served] -= 1  # a batch serves one set of inputs, so that no record is in it twice
        if chunk.on_batch is not None:
            tokens = sum(part.cut.num_tokens * len(part.positions) for part in texts)
            chunk.on_batch(int((chunk.waiting[served] == 0).sum()), tokens)
        if not chunk.waiting.any():
            yield self._results(chunk)

    def _results(self, chunk: _Chunk) -> FeatureBatch:
        features = chunk.results.features()
        if not self.keep_non_finite:
            check_features(chunk.records, features)
        return FeatureBatch(records=chunk.records, features=features | self.details.of(chunk.texts))


def _smaller_budget(texts: Sequence[PlannedText], batch_tokens: int, error: OutOfMemoryError) -> int:
    """Return half the tokens of a batch that did not fit into the memory of the device.

    Raises:
        BackendError: the batch is a single sequence.
    """
    tokens = sum(text.cut.num_tokens for text in texts)
    sequences = [len(sequence) for text in texts for sequence in text.cut.sequences]
    if len(sequences) == 1 or min(tokens, batch_tokens) <= max(sequences):
        raise BackendError(
            f"{error}, and a single sequence of {max(sequences):,} tokens does not fit; choose a half precision "
            "(precision='bfloat16'), a smaller max_length or window, or another device"
        ) from error
    return max(min(tokens, batch_tokens) // 2, max(sequences) if len(texts) == 1 else 1)
