"""Sequences into packed batches: grouped by what they stand for, sorted by length, under a token budget."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from layertap.features.plan import Input
from layertap.features.program import SegmentKind
from layertap.packing import IntArray, PackedBatch, Segments, pack, simple_segments
from layertap.text.encoded import EncodedText


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlannedSequence:
    """One text as one set of inputs sees it.

    Attributes:
        index: which record, counted within its window.
        text: its ids, cut to the inputs' limit.
        inputs: indices into `Plan.inputs` that see exactly these ids.
    """

    index: int
    text: EncodedText
    inputs: frozenset[int]


def sequences_of(texts: Sequence[EncodedText], inputs: Mapping[int, Input]) -> Iterator[PlannedSequence]:
    """Each text once for every different sequence of ids that the inputs see of it.

    Args:
        texts: worded as these inputs have it.
        inputs: index into `Plan.inputs` -> input, all of one wording.
    """
    everything = frozenset(inputs)
    shortest = min(seen.max_length for seen in inputs.values())
    for index, text in enumerate(texts):
        if len(text) <= shortest:
            yield PlannedSequence(index=index, text=text, inputs=everything)
            continue
        by_length: dict[int, set[int]] = {}
        for number, seen in inputs.items():
            by_length.setdefault(min(len(text), seen.max_length), set()).add(number)
        for length, numbers in by_length.items():
            yield PlannedSequence(index=index, text=text.limited(length), inputs=frozenset(numbers))


def batches_of(
    sequences: Iterable[PlannedSequence],
    *,
    batch_tokens: int,
    position_ids: Callable[[IntArray], IntArray],
    cls_index: int | None,
) -> Iterator[tuple[frozenset[int], PackedBatch]]:
    """(inputs, batch) pairs: the sequences of one set of inputs, by length, at most `batch_tokens` a batch.

    A longer sequence is a batch of its own. Which sequences share a batch depends on nothing but the arguments.
    """
    groups: dict[frozenset[int], list[PlannedSequence]] = {}
    for sequence in sequences:
        groups.setdefault(sequence.inputs, []).append(sequence)
    for inputs, group in groups.items():
        group.sort(key=lambda sequence: len(sequence.text))
        for part in _under_budget(group, batch_tokens):
            yield (
                inputs,
                pack(
                    [sequence.text.input_ids for sequence in part],
                    position_ids=position_ids,
                    record_index=[sequence.index for sequence in part],
                    content=[sequence.text.content for sequence in part],
                    cls_index=cls_index,
                ),
            )


def _under_budget(sequences: Sequence[PlannedSequence], batch_tokens: int) -> Iterator[list[PlannedSequence]]:
    part: list[PlannedSequence] = []
    tokens = 0
    for sequence in sequences:
        if part and tokens + len(sequence.text) > batch_tokens:
            yield part
            part, tokens = [], 0
        part.append(sequence)
        tokens += len(sequence.text)
    if part:
        yield part


def segments_of(batch: PackedBatch, kind: SegmentKind, *, prompt_rows: int = 0) -> Segments:
    """The segments of one kind, one a sequence.

    Args:
        batch: the sequences.
        kind: which rows of each.
        prompt_rows: how many rows of each sequence are the prompt and what the template puts before it.
    """
    if kind == "cls":
        assert batch.cls_rows is not None, "the plan lets no cls through where the template has none"
        return simple_segments(batch.cls_rows, batch.cls_rows + np.int32(1))
    first, end = batch.cu_seqlens[:-1], batch.cu_seqlens[1:]
    begin = first
    if kind in ("content", "content_by_position"):
        first, end = batch.content_begin, batch.content_end
        begin = first
    elif kind in ("after_prompt", "after_prompt_by_position"):
        begin = np.minimum(first + np.int32(prompt_rows), end)
    if kind in ("tokens", "content", "after_prompt"):
        return simple_segments(begin, end)
    counted = np.arange(1, batch.num_tokens + 1, dtype=np.float32)
    return simple_segments(begin, end, weights=counted - np.repeat(first, batch.lengths).astype(np.float32))
