"""Batches of texts: grouped by the inputs that they serve, sorted by length, packed under a token budget."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from layertap.engine.length_policy import CutText
from layertap.engine.segments import UnitRows
from layertap.features.program import SegmentKind
from layertap.packing import IntArray, PackedBatch, pack
from layertap.text.encoded import EncodedText
from layertap.text.units import RecordUnits


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlannedText:
    """One text as a set of inputs sees it.

    Attributes:
        index: position of the record in its chunk.
        cut: sequences of the text under the limit of these inputs.
        units: words and spans of the text, or None where no feature needs them.
        inputs: indices into `Plan.inputs` of the inputs that see exactly these ids.
        repeats: positions in the chunk of the other records with the same text, which share its results.
    """

    index: int
    cut: CutText
    units: RecordUnits | None
    inputs: frozenset[int]
    repeats: tuple[int, ...] = ()

    @property
    def positions(self) -> tuple[int, ...]:
        """Positions in the chunk of all records with this text."""
        return (self.index, *self.repeats)


def batches_of(texts: Iterable[PlannedText], *, batch_tokens: int) -> Iterator[list[PlannedText]]:
    """Yield the texts of each set of inputs in batches, shortest first, with at most `batch_tokens` tokens each.

    The batches of a set are about equally large, so that none is too small to occupy all threads. A text that is longer
    than `batch_tokens` is a batch of its own. The composition of batches depends on nothing but the arguments.
    """
    groups: dict[frozenset[int], list[PlannedText]] = {}
    for text in texts:
        groups.setdefault(text.inputs, []).append(text)
    for group in groups.values():
        group.sort(key=lambda text: text.cut.num_tokens)
        total = sum(text.cut.num_tokens for text in group)
        count = -(-total // batch_tokens)
        part: list[PlannedText] = []
        tokens = before = closed = 0
        for text in group:
            share_is_reached = before * count >= (closed + 1) * total
            if part and (share_is_reached or tokens + text.cut.num_tokens > batch_tokens):
                yield part
                part, tokens, closed = [], 0, closed + 1
            part.append(text)
            tokens += text.cut.num_tokens
            before += text.cut.num_tokens
        if part:
            yield part


def pack_texts(
    texts: Sequence[PlannedText],
    *,
    position_ids: Callable[[IntArray], IntArray],
    token_types: bool,
    cls_index: int | None,
) -> PackedBatch:
    """Pack the sequences of texts end to end.

    Args:
        texts: texts of one set of inputs.
        position_ids: function from the ids of a sequence to its positions.
        token_types: whether the encoder has more than one token type.
        cls_index: index of the CLS token in each sequence (-1: the last token), or None where there is none.
    """
    sequences = [sequence for text in texts for sequence in text.cut.sequences]
    windowed = len(sequences) > len(texts)
    return pack(
        [sequence.input_ids for sequence in sequences],
        position_ids=position_ids,
        token_type_ids=_token_types(sequences) if token_types else None,
        record_index=[text.index for text in texts],
        content=[sequence.content for sequence in sequences],
        pair_content=[sequence.pair_content for sequence in sequences]
        if any(sequence.pair_content is not None for sequence in sequences)
        else None,
        own=[own for text in texts for own in own_rows(text.cut)] if windowed else None,
        content_offset=[offset for text in texts for offset in content_offsets(text.cut)],
        counts=[len(text.cut.sequences) for text in texts] if windowed else None,
        cls_index=cls_index,
    )


def own_rows(cut: CutText) -> Iterator[tuple[int, int]]:
    """Yield (begin, end) for each sequence: the rows that count as the text's own.

    Special tokens before the text count in the first window, those after the text in the last one.
    """
    last = len(cut.sequences) - 1
    if last == 0:
        yield 0, len(cut.sequences[0])
        return
    for i, (sequence, window) in enumerate(zip(cut.sequences, cut.windows, strict=True)):
        begin = sequence.content[0]
        yield (
            0 if i == 0 else begin + window.own_begin - window.begin,
            len(sequence) if i == last else begin + window.own_end - window.begin,
        )


def content_offsets(cut: CutText) -> Iterator[int]:
    """Return, for each sequence, the index in the text of its first token."""
    return (window.begin for window in cut.windows) if cut.windows else iter((0,))


def unit_rows(texts: Sequence[PlannedText]) -> dict[SegmentKind, UnitRows]:
    """Collect the words and spans of the texts of a batch, where features need them."""
    rows_of: dict[SegmentKind, UnitRows] = {}
    units = [text.units for text in texts if text.units is not None]
    if not units:
        return rows_of
    kinds: Mapping[SegmentKind, list[IntArray]] = {
        "words": [unit.words for unit in units if unit.words is not None],
        "spans": [unit.spans for unit in units if unit.spans is not None],
    }
    for kind, ranges in kinds.items():
        if ranges:
            ends = np.cumsum([len(rows) for rows in ranges])
            rows_of[kind] = UnitRows(ranges=np.concatenate(ranges), texts=np.concatenate([[0], ends]).astype(np.int32))
    return rows_of


def _token_types(sequences: Sequence[EncodedText]) -> list[IntArray] | None:
    if all(sequence.token_type_ids is None for sequence in sequences):
        return None
    return [
        np.zeros(len(sequence), dtype=np.int32) if sequence.token_type_ids is None else sequence.token_type_ids
        for sequence in sequences
    ]
