"""Equal texts of a chunk, found so that each runs once and its results are given to all of them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from layertap.engine.batching import PlannedText, content_offsets, own_rows
from layertap.packing import IntArray
from layertap.records import Record
from layertap.text.encoded import EncodedText


def merge_repeats(texts: Iterable[PlannedText]) -> list[PlannedText]:
    """Return each distinct text once, in the order of its first occurrence, with the positions of its repeats.

    Two texts are equal if everything that a result can depend on is equal: the inputs that they serve, the ids and
    token types of their sequences, which rows are the text's own and where they stand in it, and the rows of words and
    spans.
    """
    # The ids of a text's first sequence tell nearly all texts apart; only texts that share them are compared further.
    by_ids: dict[bytes, list[int]] = {}
    distinct: list[PlannedText] = []
    repeats: dict[int, list[int]] = {}
    for text in texts:
        same_ids = by_ids.setdefault(text.cut.sequences[0].input_ids.tobytes(), [])
        for number in same_ids:
            if _are_equal(distinct[number], text):
                repeats.setdefault(number, []).append(text.index)
                break
        else:
            same_ids.append(len(distinct))
            distinct.append(text)
    for number, positions in repeats.items():
        distinct[number] = replace(distinct[number], repeats=tuple(positions))
    return distinct


def repeated_share(records: Sequence[Record], lengths: Sequence[int]) -> float:
    """Estimate the share of the tokens of a sample, 0..1, that belongs to texts equal to an earlier one.

    Args:
        records: records of the sample.
        lengths: number of tokens of each record.
    """
    seen: set[Hashable] = set()
    repeated = 0
    for record, length in zip(records, lengths, strict=True):
        spans = None if record.spans is None else tuple(tuple(span) for span in record.spans)
        key = (record.text, record.pair, None if record.words is None else tuple(record.words), spans)
        repeated += length if key in seen else 0
        seen.add(key)
    return repeated / sum(lengths) if repeated else 0.0


def _are_equal(one: PlannedText, other: PlannedText) -> bool:
    """Return whether two texts with the same ids in their first sequence are equal in all that results depend on."""
    return (
        one.inputs == other.inputs
        and len(one.cut.sequences) == len(other.cut.sequences)
        and list(own_rows(one.cut)) == list(own_rows(other.cut))
        and list(content_offsets(one.cut)) == list(content_offsets(other.cut))
        and all(map(_are_equal_sequences, one.cut.sequences, other.cut.sequences))
        and (one.units is None) == (other.units is None)
        and (
            one.units is None
            or other.units is None
            or (
                _are_equal_arrays(one.units.words, other.units.words)
                and _are_equal_arrays(one.units.spans, other.units.spans)
            )
        )
    )


def _are_equal_sequences(one: EncodedText, other: EncodedText) -> bool:
    return (
        one.content == other.content
        and one.pair_content == other.pair_content
        and np.array_equal(one.input_ids, other.input_ids)
        and _are_equal_arrays(one.token_type_ids, other.token_type_ids)
    )


def _are_equal_arrays(one: IntArray | None, other: IntArray | None) -> bool:
    if one is None or other is None:
        return one is other
    return np.array_equal(one, other)
