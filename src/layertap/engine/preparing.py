"""Records into texts ready to be packed: worded, tokenised, cut, with their words and spans."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from layertap.engine.batching import PlannedText
from layertap.engine.length_policy import CutText, LengthPolicy, TooLongError
from layertap.engine.variants import InputVariants, Shown
from layertap.errors import InputError
from layertap.features.plan import Input
from layertap.records import Record
from layertap.text.encoded import EncodedText
from layertap.text.units import RecordUnits, UnitFinder, edges_of

TEXTS_AT_ONCE = 256
"""Texts handed to the tokenizer together."""

CHARACTERS_AT_ONCE = 1 << 20
"""Characters handed to the tokenizer together, unless one text has more."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PreparedText:
    """A record and its tokens.

    Attributes:
        record: as it came.
        texts: its tokens in each variant, without a limit.
        units: its words and spans, or None: neither is wanted.
        cuts: index into `Plan.inputs` -> its sequences; inputs that see the same ids have the same object.
        shown: which of these inputs units are of.
    """

    record: Record
    texts: tuple[EncodedText, ...]
    units: RecordUnits | None
    cuts: dict[int, CutText]
    shown: int = 0

    @property
    def num_tokens(self) -> int:
        """Of all different sequences."""
        return sum(cut.num_tokens for cut in {id(cut): cut for cut in self.cuts.values()}.values())

    @property
    def longest(self) -> int:
        """Tokens of the longest of these, of a text in windows of all its windows."""
        return max(cut.num_tokens for cut in self.cuts.values())

    def planned(self, index: int) -> Iterator[PlannedText]:
        """The record once for every different sequence of ids that the inputs see of it."""
        inputs: dict[int, set[int]] = {}
        for number, cut in self.cuts.items():
            inputs.setdefault(id(cut), set()).add(number)
        for numbers in inputs.values():
            yield PlannedText(index=index, cut=self.cuts[min(numbers)], units=self.units, inputs=frozenset(numbers))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Preparation:
    """How records become texts.

    Attributes:
        variants: how the plan's inputs word them.
        length_policy: what becomes of long ones.
        finder: which words and spans are wanted.
    """

    variants: InputVariants
    length_policy: LengthPolicy
    finder: UnitFinder

    def prepare(self, records: Iterable[Record]) -> Iterator[PreparedText]:
        """The records' texts, in their order; taken in small chunks.

        Raises:
            InputError: a record that the wanted units or the limit do not allow, or without any token.
        """
        groups = list(self.variants.groups.values())
        shown = self.variants.shown
        for chunk in _chunks(records):
            for record in chunk:
                self._check(record)
            for record, texts in zip(chunk, self.variants.encode(chunk), strict=True):
                try:
                    yield self._prepared(record, texts, groups, shown)
                except TooLongError as error:
                    raise InputError(f"record {label(record)}: {error}") from None

    def _prepared(
        self, record: Record, texts: tuple[EncodedText, ...], groups: list[dict[int, Input]], shown: Shown
    ) -> PreparedText:
        cuts: dict[int, CutText] = {}
        for text, inputs in zip(texts, groups, strict=True):
            if len(text) == 0:
                raise InputError(
                    f"record {label(record)}: its text has no token, and this tokenizer adds no special tokens"
                )
            by_size: dict[int, CutText] = {}
            for number, seen in inputs.items():
                size = min(self.length_policy.size(seen.max_length), len(text))
                if size not in by_size:
                    by_size[size] = self._cut(record, text, seen)
                cuts[number] = by_size[size]
        wanted = self.finder.words or self.finder.spans
        units = self.finder.find(record, texts[shown.place], shift=shown.shift) if wanted else None
        return PreparedText(record=record, texts=texts, units=units, cuts=cuts, shown=shown.number)

    def _cut(self, record: Record, text: EncodedText, seen: Input) -> CutText:
        edges: npt.NDArray[np.bool_] | None = None
        if self.length_policy.long == "window" and len(text) > self.length_policy.size(seen.max_length):
            edges = edges_of(record, text, self.finder, prompt=seen.prompt)
        return self.length_policy.cut(text, seen.max_length, edges)

    def _check(self, record: Record) -> None:
        try:
            self.finder.check(record)
        except InputError as error:
            raise InputError(f"record {label(record)}: {error}") from None


def label(record: Record) -> str:
    """What to call a record in messages."""
    return f"row {record.row}" if record.id is None else f"{record.id!r} (row {record.row})"


def _chunks(records: Iterable[Record]) -> Iterator[list[Record]]:
    chunk: list[Record] = []
    characters = 0
    for record in records:
        chunk.append(record)
        characters += len(record.text) + len(record.pair or "")
        if len(chunk) == TEXTS_AT_ONCE or characters >= CHARACTERS_AT_ONCE:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk
