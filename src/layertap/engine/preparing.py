"""Conversion of records to texts ready to be packed: tokenized, within the limit, with their words and spans."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from layertap.engine.batching import PlannedText
from layertap.engine.length_policy import CutText, LengthPolicy, TooLongError
from layertap.engine.variants import DetailInput, InputVariants
from layertap.errors import InputError
from layertap.features.plan import Input
from layertap.records import Record
from layertap.text.encoded import EncodedText
from layertap.text.units import RecordUnits, UnitFinder, edges_of
from layertap.text.word_table import fault_of

TEXTS_AT_ONCE = 256
"""Number of texts given to the tokenizer in one call."""

CHARACTERS_AT_ONCE = 1 << 20
"""Number of characters given to the tokenizer in one call, unless a single text has more."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PreparedText:
    """A record with its tokens.

    Attributes:
        record: the record itself.
        texts: tokens of each variant, without a limit.
        units: words and spans of the record, or None where no feature needs them.
        cuts: index into `Plan.inputs` -> sequences of that input; inputs that see the same ids share one object.
        detail_input: index of the input in whose tokens the units are found.
    """

    record: Record
    texts: tuple[EncodedText, ...]
    units: RecordUnits | None
    cuts: dict[int, CutText]
    detail_input: int = 0

    @property
    def num_tokens(self) -> int:
        """Tokens of all distinct sequences together."""
        return sum(cut.num_tokens for cut in {id(cut): cut for cut in self.cuts.values()}.values())

    @property
    def longest(self) -> int:
        """Tokens of the longest input; of a text in windows, the tokens of all its windows."""
        return max(cut.num_tokens for cut in self.cuts.values())

    def planned(self, index: int) -> Iterator[PlannedText]:
        """Yield the record once for every distinct sequence of ids among its inputs.

        Args:
            index: position of the record in its chunk.
        """
        inputs: dict[int, set[int]] = {}
        for number, cut in self.cuts.items():
            inputs.setdefault(id(cut), set()).add(number)
        for numbers in inputs.values():
            yield PlannedText(index=index, cut=self.cuts[min(numbers)], units=self.units, inputs=frozenset(numbers))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Preparation:
    """Conversion of records to prepared texts.

    Attributes:
        variants: variants of a text that the plan's inputs need.
        length_policy: treatment of texts over the limit.
        finder: finder of the words and spans that features need.
    """

    variants: InputVariants
    length_policy: LengthPolicy
    finder: UnitFinder

    def prepare(self, records: Iterable[Record]) -> Iterator[PreparedText]:
        """Yield the records as prepared texts, in their order; records are taken in groups (`groups_of`).

        Raises:
            InputError: a record has no token, lacks what a feature needs (for example, spans), or is over a limit that
                long='error' enforces.
        """
        for group in groups_of(records):
            yield from self.prepare_group(group)

    def prepare_group(self, records: Sequence[Record]) -> Iterator[PreparedText]:
        """Yield records as prepared texts, all of which are given to the tokenizer in one call; errors as in `prepare`.

        May be called by several threads at once.
        """
        groups = list(self.variants.groups.values())
        detail_input = self.variants.detail_input
        for record in records:
            self._check(record)
        for record, texts in zip(records, self.variants.encode(records), strict=True):
            try:
                yield self._prepared(record, texts, groups, detail_input)
            except TooLongError as error:
                raise InputError(f"record {label(record)}: {error}") from None

    def _prepared(
        self, record: Record, texts: tuple[EncodedText, ...], groups: list[dict[int, Input]], own: DetailInput
    ) -> PreparedText:
        cuts: dict[int, CutText] = {}
        for text, inputs in zip(texts, groups, strict=True):
            if len(text) == 0:
                raise InputError(
                    f"record {label(record)}: its text has no token, and this tokenizer adds no special tokens"
                )
            fault = fault_of(self.variants.tokenizer, text)
            if fault is not None:
                raise InputError(f"record {label(record)}: {fault}")
            by_size: dict[int, CutText] = {}
            for number, seen in inputs.items():
                size = min(self.length_policy.size(seen.max_length), len(text))
                if size not in by_size:
                    by_size[size] = self._cut(record, text, seen)
                cuts[number] = by_size[size]
        wanted = self.finder.words or self.finder.spans
        units = self.finder.find(record, texts[own.variant], shift=own.prompt_chars) if wanted else None
        return PreparedText(record=record, texts=texts, units=units, cuts=cuts, detail_input=own.number)

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
    """Return the name of a record for messages: its row, and its id where it has one."""
    return f"row {record.row}" if record.id is None else f"{record.id!r} (row {record.row})"


def groups_of(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Yield records in groups of at most `TEXTS_AT_ONCE` that end when they have `CHARACTERS_AT_ONCE` characters."""
    group: list[Record] = []
    characters = 0
    for record in records:
        group.append(record)
        characters += characters_of(record)
        if len(group) == TEXTS_AT_ONCE or characters >= CHARACTERS_AT_ONCE:
            yield group
            group, characters = [], 0
    if group:
        yield group


def characters_of(record: Record) -> int:
    """Count the characters of a record's text, or of its pair of texts."""
    return len(record.text) + len(record.pair or "")
