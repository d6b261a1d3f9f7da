"""Summary of a run: counts that grow while it goes on, and notes for its end."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from layertap.engine.batching import PlannedText
from layertap.engine.preparing import PreparedText
from layertap.engine.texts import has_white_space
from layertap.packing import IntArray
from layertap.text.windows import Window
from layertap.words import counted

BY_LIMIT = ("cut_texts", "cut_tokens", "windowed_texts", "windows")
OF_TEXTS = (
    "empty_words",
    "empty_spans",
    "cut_words",
    "cut_spans",
    "empty_texts",
    "texts_with_specials",
    "texts_with_surrogates",
    "texts_with_spaced_words",
    "own_tokens",
    "unknown_tokens",
)

MANY_UNKNOWN = 0.1
"""Share of unknown tokens past which a run warns.

With all-MiniLM-L6-v2 (an English vocabulary) short English sentences have 0.00, with an emoji in each 0.08; Korean has
0.06, Japanese 0.18, Georgian 0.19, Tamil 0.24, Chinese 0.61, Thai 0.85 (300 sentences of Tatoeba each).
"""


@dataclass(slots=True, kw_only=True)
class RunSummary:
    """Counts of one run; they grow while the run goes on.

    Attributes:
        records: number of finished records.
        tokens: number of tokens of the finished texts, special tokens included: those of each sequence that the
            plan's inputs see, whether it ran or was equal to another that did.
        repeated_texts, repeated_tokens: number of texts that were equal to another of their chunk and did not run
            again, and of their tokens; `tokens - repeated_tokens` ran through the encoder.
        cut_texts, cut_tokens: limit -> number of texts over it, and of tokens that they lost; only limits that cut a
            text.
        windowed_texts, windows: limit -> number of texts run in several windows, and of these windows.
        empty_words, empty_spans: number of words and spans without a token; their vectors are zero.
        cut_words, cut_spans: number of words and spans that were cut off entirely; their vectors are zero.
        empty_texts: number of texts without a token of their own; `mean(special=False)` of them is a zero vector.
        texts_with_specials: number of texts in which special tokens were typed.
        texts_with_surrogates: number of texts in which lone surrogates became U+FFFD.
        texts_with_spaced_words: number of texts given as words of which one holds white space.
        own_tokens: number of the texts' own tokens: special tokens and prompts left out, nothing cut off.
        unknown_tokens: number of these that are the tokenizer's unknown token ([UNK], <unk>), which stands for every
            character or word that its vocabulary lacks.
        text_tokens: number of tokens of the texts within their limits, however often they ran.
        layers_run: number of blocks that the deepest feature needs.
        layers: number of blocks of the model.
        skipped: rows of a file that were left out because they could not be read; they are not among the records.
        reduced_batch_tokens: token budget that batches were reduced to because the memory of the device did not
            suffice for larger ones; 0 if it did.
        input_notes: remarks on the files: how the input was taken, what is unusual in it, and how it was written.
    """

    records: int = 0
    tokens: int = 0
    repeated_texts: int = 0
    repeated_tokens: int = 0
    cut_texts: dict[int, int] = field(default_factory=dict)
    cut_tokens: dict[int, int] = field(default_factory=dict)
    windowed_texts: dict[int, int] = field(default_factory=dict)
    windows: dict[int, int] = field(default_factory=dict)
    empty_words: int = 0
    empty_spans: int = 0
    cut_words: int = 0
    cut_spans: int = 0
    empty_texts: int = 0
    texts_with_specials: int = 0
    texts_with_surrogates: int = 0
    texts_with_spaced_words: int = 0
    own_tokens: int = 0
    unknown_tokens: int = 0
    text_tokens: int = 0
    layers_run: int
    layers: int
    skipped: int = 0
    reduced_batch_tokens: int = 0
    input_notes: tuple[str, ...] = ()

    @property
    def unknown_share(self) -> float:
        """Share of unknown tokens among the texts' own tokens, 0 to 1; 0 if there are no tokens."""
        return self.unknown_tokens / max(1, self.own_tokens)

    def count_texts(
        self, texts: Sequence[PreparedText], limits: Sequence[int], unknown_ids: Collection[int] = ()
    ) -> None:
        """Count texts that are about to run.

        Args:
            texts: prepared texts.
            limits: largest number of tokens of a sequence, for each of the plan's inputs.
            unknown_ids: ids of the tokens that stand for what the vocabulary lacks.
        """
        for prepared in texts:
            self._count_long(prepared, limits)
            self.text_tokens += prepared.num_tokens
            text = min(prepared.texts, key=len)  # the one without a prompt
            begin, end = text.content
            for first, last in (text.content, text.pair_content or (0, 0)):
                self.own_tokens += last - first
                self.unknown_tokens += sum(
                    int((text.input_ids[first:last] == unknown).sum()) for unknown in unknown_ids
                )
            self.empty_texts += begin == end and text.pair_content is None
            self.texts_with_specials += text.typed_specials > 0
            self.texts_with_surrogates += text.replaced_surrogates > 0
            self.texts_with_spaced_words += any(map(has_white_space, prepared.record.words or ()))
            if prepared.units is not None:
                self.empty_words += _empty(prepared.units.words)
                self.empty_spans += _empty(prepared.units.spans)
                windows = prepared.cuts[prepared.detail_input].windows
                if len(windows) == 1:
                    self.cut_words += _outside(prepared.units.words, windows[0])
                    self.cut_spans += _outside(prepared.units.spans, windows[0])

    def count_repeats(self, texts: Sequence[PlannedText]) -> None:
        """Count the repeats of a chunk's distinct texts (`merge_repeats`)."""
        self.repeated_texts += len({index for text in texts for index in text.repeats})
        self.repeated_tokens += sum(text.cut.num_tokens * len(text.repeats) for text in texts)

    def _count_long(self, prepared: PreparedText, limits: Sequence[int]) -> None:
        """Count a text over its limits; of inputs with the same limit, the one that sees most tokens counts."""
        lost: dict[int, int] = {}
        windows: dict[int, int] = {}
        for number, cut in prepared.cuts.items():
            limit = limits[number]
            if len(cut.sequences) > 1:
                windows[limit] = max(windows.get(limit, 0), len(cut.sequences))
            elif cut.sequences[0].cut_tokens:
                lost[limit] = max(lost.get(limit, 0), cut.sequences[0].cut_tokens)
        for limit, tokens in lost.items():
            self.cut_texts[limit] = self.cut_texts.get(limit, 0) + 1
            self.cut_tokens[limit] = self.cut_tokens.get(limit, 0) + tokens
        for limit, count in windows.items():
            self.windowed_texts[limit] = self.windowed_texts.get(limit, 0) + 1
            self.windows[limit] = self.windows.get(limit, 0) + count

    def counts(self) -> dict[str, Any]:
        """Return the counts of unusual texts as JSON values, without those that are 0."""
        by_limit = {name: {str(limit): n for limit, n in sorted(getattr(self, name).items())} for name in BY_LIMIT}
        return {name: value for name in (*BY_LIMIT, *OF_TEXTS) if (value := by_limit.get(name, getattr(self, name)))}

    def add_counts(self, counts: Mapping[str, Any]) -> None:
        """Add what `counts` of another summary returned."""
        for name in BY_LIMIT:
            own: dict[int, int] = getattr(self, name)
            for limit, count in counts.get(name, {}).items():
                own[int(limit)] = own.get(int(limit), 0) + count
        for name in OF_TEXTS:
            setattr(self, name, getattr(self, name) + counts.get(name, 0))

    def warnings(self) -> list[str]:
        """Return what makes the results doubtful, a sentence each; empty where nothing does."""
        return self.remarks_on_unknown() if self.unknown_share > MANY_UNKNOWN else []

    def remarks_on_unknown(self) -> list[str]:
        """Return a sentence about the share of unknown tokens, with advice where it is large; empty where it is 0."""
        if not self.unknown_tokens:
            return []
        count = f"{self.unknown_tokens:,} of {counted(self.own_tokens, 'token')} ({self.unknown_share:.1%})"
        few = f"{count} {'is' if self.unknown_tokens == 1 else 'are'} unknown to the tokenizer"
        if self.unknown_share <= MANY_UNKNOWN:
            return [few]
        why = "and the model cannot tell them apart: its vocabulary lacks the script or the symbols of these texts"
        return [f"{few}, {why}; take a model of their language, or a multilingual one"]

    def notes(self) -> list[str]:
        """Return notes about the input and unusual texts, a sentence each; empty where there are none.

        Warnings come first.
        """
        cut = [
            (count, f"cut at {limit} tokens, {self.cut_tokens[limit]:,} tokens lost")
            for limit, count in sorted(self.cut_texts.items())
        ]
        windowed = [
            (count, f"over {limit} tokens, run in {self.windows[limit]:,} windows")
            for limit, count in sorted(self.windowed_texts.items())
        ]
        said = (
            *cut,
            *windowed,
            (self.empty_texts, "empty: special tokens only, zero vectors where these are left out"),
            (self.texts_with_specials, "with special tokens typed in them, taken as such"),
            (self.texts_with_surrogates, "with lone surrogates, replaced by U+FFFD"),
            (self.repeated_texts, f"equal to another, {self.repeated_tokens:,} tokens not run again"),
            (
                self.texts_with_spaced_words,
                "of given words that hold white space; is each a word, or a text of a pair?",
            ),
        )
        notes = [*self.warnings(), *self.input_notes]
        notes += [f"{count:,} {'text' if count == 1 else 'texts'} {what}" for count, what in said if count]
        for count, unit, what in (
            (self.empty_words, "word", "without a token"),
            (self.empty_spans, "span", "without a token"),
            (self.cut_words, "word", "cut off"),
            (self.cut_spans, "span", "cut off"),
        ):
            if count:
                notes.append(f"{count:,} {unit if count == 1 else unit + 's'} {what}: zero vectors")
        if not self.warnings():
            notes += self.remarks_on_unknown()
        if self.reduced_batch_tokens:
            notes.append(
                f"batches reduced to {self.reduced_batch_tokens:,} tokens, as the memory of the device did not suffice "
                f"for larger ones; batch_tokens={self.reduced_batch_tokens} starts with that"
            )
        return notes


def _outside(rows: IntArray | None, window: Window) -> int:
    """Count words or spans that have tokens, but none in the window."""
    if rows is None:
        return 0
    begin, end = rows[:, 0], rows[:, 1]
    return int(((begin < end) & ((end <= window.begin) | (begin >= window.end))).sum())


def _empty(rows: IntArray | None) -> int:
    return 0 if rows is None else int((rows[:, 0] >= rows[:, 1]).sum())
