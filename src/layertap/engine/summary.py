"""What a run did: counted as it goes, told at its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from layertap.text.encoded import EncodedText


@dataclass(slots=True, kw_only=True)
class RunSummary:
    """Counts of one run; they grow while the run goes on.

    Attributes:
        records: records done.
        tokens: tokens run through the encoder, special tokens included, once for every time that they ran.
        cut_texts, cut_tokens: limit -> texts over it, and the tokens they lost; only limits that cut a text.
        empty_texts: texts without a token of their own; `mean(special=False)` of them is a zero vector.
        texts_with_specials: texts in which special tokens were typed.
        texts_with_surrogates: texts in which lone surrogates became U+FFFD.
        layers_run: blocks run for the deepest feature.
        layers: blocks of the model.
        limits: what features see at most, in tokens, for each wording of a text (mostly one); several where
            `sentence_embedding` has a limit of its own.
    """

    records: int = 0
    tokens: int = 0
    cut_texts: dict[int, int] = field(default_factory=dict)
    cut_tokens: dict[int, int] = field(default_factory=dict)
    empty_texts: int = 0
    texts_with_specials: int = 0
    texts_with_surrogates: int = 0
    layers_run: int
    layers: int
    limits: tuple[tuple[int, ...], ...]

    def count_texts(self, texts: Sequence[tuple[EncodedText, ...]]) -> None:
        """Counts texts, each in all its wordings, as the tokenizer gave them, before any limit."""
        for worded in texts:
            longest: dict[int, int] = {}
            for text, limits in zip(worded, self.limits, strict=True):
                for limit in limits:
                    longest[limit] = max(longest.get(limit, 0), len(text))
            for limit, length in longest.items():
                if length > limit:
                    self.cut_texts[limit] = self.cut_texts.get(limit, 0) + 1
                    self.cut_tokens[limit] = self.cut_tokens.get(limit, 0) + length - limit
            text = min(worded, key=len)  # the one without a prompt
            begin, end = text.content
            self.empty_texts += begin == end
            self.texts_with_specials += text.typed_specials > 0
            self.texts_with_surrogates += text.replaced_surrogates > 0

    def notes(self) -> list[str]:
        """What a person should know of the texts, a sentence each; empty where all went as usual."""
        cut = [
            (count, f"cut at {limit} tokens, {self.cut_tokens[limit]:,} tokens lost")
            for limit, count in sorted(self.cut_texts.items())
        ]
        said = (
            *cut,
            (self.empty_texts, "empty: special tokens only, zero vectors where these are left out"),
            (self.texts_with_specials, "with special tokens typed in them, taken as such"),
            (self.texts_with_surrogates, "with lone surrogates, replaced by U+FFFD"),
        )
        return [f"{count:,} {'text' if count == 1 else 'texts'} {what}" for count, what in said if count]
