"""The stream: records -> ids -> packed batches -> captures -> features, in input order and bounded memory.

Records are taken a window at a time. Within a window, sequences are sorted by length and packed; a window leaves
whole, in input order. Its size is bounded in tokens and in bytes of results, not in records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from layertap.backends.base import Backend
from layertap.engine.batching import batches_of, segments_of
from layertap.engine.summary import RunSummary
from layertap.engine.wording import Wordings
from layertap.errors import InputError, NonFiniteError
from layertap.features.plan import Plan
from layertap.features.program import Capture
from layertap.features.vectors import finish
from layertap.models.spec import EncoderSpec
from layertap.packing import PackedBatch
from layertap.records import Array, FeatureBatch, FeatureSchema, Ragged, Record
from layertap.text.encoded import EncodedText
from layertap.text.tokenizer import TextTokenizer

WINDOW_BATCHES = 16
"""Token budgets a window: enough texts of each length to fill batches with nearly equal ones."""

WINDOW_RESULT_BYTES = 128 << 20
"""Bytes of results that a window may hold; a window has at least one record."""

TEXTS_AT_ONCE = 256
"""Texts handed to the tokenizer together."""

CHARACTERS_AT_ONCE = 1 << 20
"""Characters handed to the tokenizer together, unless one text has more."""

ProgressCallback = Callable[[int, int], None]
"""Called after every packed batch with the records finished by it and the tokens run."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pipeline:
    """Runs one plan over streams of records.

    Attributes:
        plan: what to compute.
        spec: the encoder.
        tokenizer: text -> ids.
        lowercased: the same for inputs in lower case; None where no input is.
        backend: runs programs.
        batch_tokens: packed tokens a batch at most.
        keep_non_finite: hand NaN and infinity over instead of raising.
    """

    plan: Plan
    spec: EncoderSpec
    tokenizer: TextTokenizer
    lowercased: TextTokenizer | None
    backend: Backend
    batch_tokens: int
    keep_non_finite: bool

    @property
    def wordings(self) -> Wordings:
        """How the plan's inputs word texts."""
        return Wordings(inputs=self.plan.inputs, tokenizer=self.tokenizer, lowercased=self.lowercased)

    def new_summary(self) -> RunSummary:
        """A summary with nothing counted yet."""
        everything = frozenset(range(len(self.plan.inputs)))
        return RunSummary(
            layers_run=max(program.stop for program in self.plan.programs(everything)),
            layers=self.spec.num_hidden_layers,
            limits=tuple(
                tuple(seen.max_length for seen in inputs.values()) for inputs in self.wordings.groups.values()
            ),
        )

    def run(
        self, records: Iterable[Record], summary: RunSummary, on_progress: ProgressCallback | None = None
    ) -> Iterator[FeatureBatch]:
        """Yields the features of the records, in their order, a window at a time.

        Raises:
            NonFiniteError: NaN or infinity in a result, naming the first records.
        """
        wordings = self.wordings
        prompt_rows = [wordings.prompt_rows(number) for number in range(len(self.plan.inputs))]
        for window, texts in self._windows(records, wordings):
            summary.count_texts(texts)
            results = WindowResults(len(window), self.plan.schemas)
            waiting = wordings.count(texts)
            for inputs, batch in batches_of(
                wordings.sequences(texts),
                batch_tokens=self.batch_tokens,
                position_ids=self.spec.positions.position_ids,
                cls_index=self.tokenizer.cls_index,
            ):
                self._run_batch(inputs, batch, window, results, prompt_rows[min(inputs)])
                summary.tokens += batch.num_tokens
                np.subtract.at(waiting, batch.record_index, 1)
                finished = int((waiting[batch.record_index] == 0).sum())
                summary.records += finished
                if on_progress is not None:
                    on_progress(finished, batch.num_tokens)
            features = results.features()
            if not self.keep_non_finite:
                refuse_non_finite(window, features)
            yield FeatureBatch(records=window, features=features)

    def _run_batch(
        self,
        inputs: frozenset[int],
        batch: PackedBatch,
        window: Sequence[Record],
        results: WindowResults,
        prompt_rows: int,
    ) -> None:
        for program in self.plan.programs(inputs):
            kinds = self.plan.segment_kinds(program)
            segments = {kind: segments_of(batch, kind, prompt_rows=prompt_rows) for kind in kinds}
            captures = self.backend.run(program, batch, segments)
            if not self.keep_non_finite:
                for capture, values in captures.items():
                    refuse_non_finite_capture(capture, values, batch, window)
            for name in self.plan.features_of(inputs):
                if all(c in captures for reading in self.plan.readings[name] for c in reading.captures):
                    results.put(finish(self.plan, name, captures, segments, batch), batch)

    def _windows(
        self, records: Iterable[Record], wordings: Wordings
    ) -> Iterator[tuple[list[Record], list[tuple[EncodedText, ...]]]]:
        max_tokens = self.batch_tokens * WINDOW_BATCHES
        per_token, per_record = _result_bytes(self.plan.schemas)
        window: list[Record] = []
        texts: list[tuple[EncodedText, ...]] = []
        tokens = 0
        for record, text in _encoded(records, wordings):
            length = wordings.length(text)
            too_big = tokens + length > max_tokens or (
                (tokens + length) * per_token + (len(window) + 1) * per_record > WINDOW_RESULT_BYTES
            )
            if window and too_big:
                yield window, texts
                window, texts, tokens = [], [], 0
            window.append(record)
            texts.append(text)
            tokens += length
        if window:
            yield window, texts


class WindowResults:
    """The results of one window, put in as batches finish, taken out in record order."""

    def __init__(self, num_records: int, schemas: Sequence[FeatureSchema]) -> None:
        self._num_records = num_records
        self._schemas = {schema.name: schema for schema in schemas}
        self._dense: dict[str, Array] = {}
        self._rows: dict[str, list[Array]] = {}

    def put(self, arrays: dict[str, Array], batch: PackedBatch) -> None:
        """Puts arrays of one batch in: [B, ...] where dense, token-major [T, ...] where ragged."""
        for name, array in arrays.items():
            if not self._schemas[name].ragged:
                if name not in self._dense:
                    self._dense[name] = np.empty((self._num_records, *array.shape[1:]), dtype=array.dtype)
                self._dense[name][batch.record_index] = array
                continue
            if name not in self._rows:
                self._rows[name] = [array[:0]] * self._num_records
            parts = np.split(array, batch.cu_seqlens[1:-1])
            for index, part in zip(batch.record_index, parts, strict=True):
                self._rows[name][index] = part

    def features(self) -> dict[str, Array | Ragged]:
        """Name -> array or `Ragged`, in the order of the schemas."""
        return {
            name: Ragged.from_rows(self._rows[name]) if schema.ragged else self._dense[name]
            for name, schema in self._schemas.items()
        }


def refuse_non_finite_capture(capture: Capture, values: Array, batch: PackedBatch, window: Sequence[Record]) -> None:
    """Raises `NonFiniteError` if the model itself gave NaN or infinity: stored as bits it would not show."""
    if np.isfinite(values).all():
        return
    rows = np.flatnonzero(~np.isfinite(values).all(axis=1))
    sequences = rows if capture.reduce else np.searchsorted(batch.cu_seqlens, rows, side="right") - 1
    bad = np.unique(batch.record_index[sequences])
    layers = ", ".join(map(str, capture.layers))
    raise _non_finite(f"hidden_states[{layers}]", [window[i] for i in bad])


def refuse_non_finite(records: Sequence[Record], features: dict[str, Array | Ragged]) -> None:
    """Raises `NonFiniteError` if a floating-point result holds NaN or infinity, as float16 does beyond 65,504."""
    for name, result in features.items():
        values = result.values if isinstance(result, Ragged) else result
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise _non_finite(name, [records[i] for i in range(len(records)) if not np.isfinite(result[i]).all()])


def _non_finite(what: str, bad: Sequence[Record]) -> NonFiniteError:
    named = ", ".join(map(_label, bad[:5])) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
    return NonFiniteError(
        f"{what}: NaN or infinity in the result of record {named}; a wider precision may help, "
        "non_finite='keep' (--non-finite keep) hands it over as it is"
    )


def _label(record: Record) -> str:
    return f"row {record.row}" if record.id is None else f"{record.id!r} (row {record.row})"


def _encoded(records: Iterable[Record], wordings: Wordings) -> Iterator[tuple[Record, tuple[EncodedText, ...]]]:
    for chunk in _chunks(records):
        for record, worded in zip(chunk, wordings.encode([record.text for record in chunk]), strict=True):
            if any(len(text) == 0 for text in worded):
                raise InputError(
                    f"record {_label(record)}: its text has no token, and this tokenizer adds no special tokens"
                )
            yield record, worded


def _chunks(records: Iterable[Record]) -> Iterator[list[Record]]:
    chunk: list[Record] = []
    characters = 0
    for record in records:
        chunk.append(record)
        characters += len(record.text)
        if len(chunk) == TEXTS_AT_ONCE or characters >= CHARACTERS_AT_ONCE:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def _result_bytes(schemas: Sequence[FeatureSchema]) -> tuple[int, int]:
    """Bytes a token and bytes a record."""
    per_token = per_record = 0
    for schema in schemas:
        size = int(np.prod(schema.shape, dtype=np.int64)) * np.dtype(schema.dtype).itemsize
        if schema.ragged:
            per_token += size
        else:
            per_record += size
    return per_token, per_record
