"""Forecast of a folder of features before it is made: shards, tokens, bytes, and hours on this machine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from layertap.data.inputs import InputSet
from layertap.data.survey import survey
from layertap.engine.streaming import Streams
from layertap.errors import InputError
from layertap.features.naming import Features
from layertap.jobs.folder.planning import Sample, first_records

TIMED_TEXTS = 256
TIMED_CHARACTERS = 1 << 17
"""Texts, and characters of them, that are run to measure the speed, which takes seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderForecast:
    """Estimated size and duration of a run to a folder, from the first texts of its inputs.

    Attributes:
        rows: number of rows.
        is_estimated: whether `rows` is estimated from the sizes of large inputs.
        inputs: number of inputs.
        shards: number of shards.
        shard_records: rows of a shard.
        tokens: number of tokens.
        size: bytes of the results.
        tokens_per_second: measured speed, or None if nothing was run.
    """

    rows: int
    is_estimated: bool
    inputs: int
    shards: int
    shard_records: int
    tokens: int
    size: int
    tokens_per_second: float | None

    @property
    def hours(self) -> float | None:
        """Estimated duration on one machine like this, or None if nothing was run."""
        return None if not self.tokens_per_second else self.tokens / self.tokens_per_second / 3600


def forecast_folder(
    inputs: InputSet, streams: Streams, features: Features | None, *, shard_records: int | None, details: Sequence[str]
) -> FolderForecast:
    """Estimate a run: large inputs are read in part, and the first texts are run once to measure the speed.

    Raises:
        InputError: an input cannot be read.
    """
    sample = Sample.of(inputs, streams, features)
    schemas = streams.schema(features, details=details)
    size = sample.shard_records(schemas) if shard_records is None else shard_records
    rows = shards = 0
    is_estimated = False
    for file in inputs:
        with file.input.open() as reader:
            look = survey(reader)
        if look.num_records is None:
            raise InputError(f"{file.input.name}: its rows cannot be counted")
        count = look.num_records + len(reader.errors) * (not look.estimated)
        rows += count
        shards += -(-count // size)
        is_estimated |= look.estimated
    return FolderForecast(
        rows=rows,
        is_estimated=is_estimated,
        inputs=len(inputs),
        shards=shards,
        shard_records=size,
        tokens=sample.tokens(rows),
        size=sample.forecast(schemas, num_records=rows).total,
        tokens_per_second=_speed(inputs, streams, features) if rows else None,
    )


def _speed(inputs: InputSet, streams: Streams, features: Features | None) -> float:
    """Return the tokens a second of a run of the first texts; a run before it loads the model."""
    records = list(islice(first_records(inputs), TIMED_TEXTS))
    characters = 0
    for count, record in enumerate(records, start=1):
        characters += len(record.text) + len(record.pair or "")
        if characters > TIMED_CHARACTERS:
            records = records[:count]
            break
    for _ in streams.stream(records[:8], features):
        pass
    started = time.perf_counter()
    stream = streams.stream(records, features)
    for _ in stream:
        pass
    return stream.summary.text_tokens / max(time.perf_counter() - started, 1e-9)
