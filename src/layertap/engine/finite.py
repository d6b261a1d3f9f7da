"""Checks for NaN and infinity in what the model gives and in results, with the records that they belong to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from layertap.engine.batching import PlannedText
from layertap.engine.preparing import label
from layertap.errors import NonFiniteError
from layertap.features.program import Capture, SegmentKind
from layertap.packing import PackedBatch, Segments
from layertap.records import Array, AttentionMaps, Feature, Ragged, Record


def check_capture(
    capture: Capture,
    values: Array,
    batch: PackedBatch,
    segments: Mapping[SegmentKind, Segments],
    texts: Sequence[PlannedText],
    records: Sequence[Record],
) -> None:
    """Refuse a capture in which the model itself gave NaN or infinity; features of bits would not show it.

    Args:
        capture: the capture that was run.
        values: its values.
        batch: the batch that it ran on.
        segments: the batch's segments.
        texts: the batch's texts.
        records: records of the chunk.

    Raises:
        NonFiniteError: naming the layers and the first records.
    """
    if np.isfinite(values).all():
        return
    if capture.attention is not None:
        squares = np.square(batch.lengths.astype(np.int64))
        ends = np.cumsum(squares) * (len(values) // int(squares.sum()))
        bad = np.searchsorted(ends, np.flatnonzero(~np.isfinite(values)), side="right")
        raise _error(f"attentions[{capture.layers[0] - 1}]", _records_of(texts, bad, records))
    rows = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if capture.segments is None:
        sequences = np.searchsorted(batch.cu_seqlens, rows, side="right") - 1
        bad = np.searchsorted(batch.sequences, sequences, side="right") - 1
    else:
        owners = segments[capture.segments].texts
        bad = rows if owners is None else np.searchsorted(owners, rows, side="right") - 1
    layers = ", ".join(map(str, capture.layers))
    raise _error(f"hidden_states[{layers}]", _records_of(texts, bad, records))


def check_features(records: Sequence[Record], features: Mapping[str, Feature]) -> None:
    """Refuse floating-point results that hold NaN or infinity, as float16 does beyond 65,504.

    Raises:
        NonFiniteError: naming the feature and the first records.
    """
    for name, result in features.items():
        values = result.values if isinstance(result, Ragged | AttentionMaps) else result
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise _error(name, [records[i] for i in range(len(records)) if not np.isfinite(result[i]).all()])


def _records_of(
    texts: Sequence[PlannedText], numbers: npt.NDArray[np.integer[Any]], records: Sequence[Record]
) -> list[Record]:
    """Return the records of the texts with these numbers in a batch, in the order of the chunk."""
    return [records[i] for i in sorted(i for number in set(numbers.tolist()) for i in texts[number].positions)]


def _error(what: str, bad: Sequence[Record]) -> NonFiniteError:
    named = ", ".join(map(label, bad[:5])) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
    return NonFiniteError(
        f"{what}: NaN or infinity in the result of record {named}; a wider precision may help, "
        "non_finite='keep' (--non-finite keep) hands it over as it is",
        what=what,
        rows=tuple(record.row for record in bad),
    )
