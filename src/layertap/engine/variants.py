"""Texts as the inputs of a plan word them: after a prompt, in lower case; and how many rows the prompt takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from layertap.features.plan import Input, InputVariant
from layertap.records import Record
from layertap.text.encoded import EncodedText
from layertap.text.tokenizer import TextTokenizer


def lengths_of(tokenizer: TextTokenizer, records: Sequence[Record]) -> list[int]:
    """Tokens of each record, special tokens included and nothing cut."""
    plain = InputVariants(inputs=(Input(max_length=1),), tokenizer=tokenizer, lowercased=None)
    return [len(text) for (text,) in plain.encode(records)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """The input of a plan in which words and spans are found, and which details are of.

    Attributes:
        number: its index in `Plan.inputs`.
        place: which of the texts that `InputVariants.encode` gives for a record is its variant.
        shift: characters of its prompt.
    """

    number: int = 0
    place: int = 0
    shift: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class InputVariants:
    """The different variants among a plan's inputs, each tokenised once a text.

    Attributes:
        inputs: those of the plan.
        tokenizer: text -> ids.
        lowercased: the same with lower-casing before everything else, or None where no input asks for it.
        offsets: keep the characters under each token.
    """

    inputs: tuple[Input, ...]
    tokenizer: TextTokenizer
    lowercased: TextTokenizer | None
    offsets: bool = False

    @property
    def groups(self) -> dict[InputVariant, dict[int, Input]]:
        """InputVariant -> the inputs that see it, by their index."""
        found: dict[InputVariant, dict[int, Input]] = {}
        for number, seen in enumerate(self.inputs):
            found.setdefault(seen.variant, {})[number] = seen
        return found

    def encode(self, records: Sequence[Record]) -> list[tuple[EncodedText, ...]]:
        """One tuple a record: its ids in each variant, in the order of `groups`; no limit."""
        return list(zip(*(self._encode(variant, records) for variant in self.groups), strict=True))

    def prompt_rows(self, number: int, *, cut: bool) -> int:
        """Rows that an input's prompt takes of every text, with what the template puts before it.

        Counted as sentence-transformers does: the prompt is tokenised alone, cut to the limit where texts are (`cut`:
        on the right), and one special token at its end is not counted. Where a tokenizer joins the prompt's end with
        the text's beginning, the joint token counts as the prompt's.
        """
        seen = self.inputs[number]
        if not seen.prompt:
            return 0
        tokenizer = self._tokenizer(seen.variant)
        prompt = tokenizer.encode([seen.prompt])[0]
        ids = (prompt.limited(seen.max_length) if cut else prompt).input_ids
        return len(ids) - int(int(ids[-1]) in tokenizer.special_ids)

    @property
    def shown(self) -> Shown:
        """That of hidden states, where any are asked for.

        Only `sentence_embedding` has a prompt, lower-casing or a smaller limit.
        """
        inputs = self.inputs
        number = max(
            range(len(inputs)), key=lambda i: (not inputs[i].prompt, not inputs[i].lowercase, inputs[i].max_length, -i)
        )
        return Shown(
            number=number,
            place=list(self.groups).index(inputs[number].variant),
            shift=len(inputs[number].prompt),
        )

    def _encode(self, variant: InputVariant, records: Sequence[Record]) -> list[EncodedText]:
        """Given words are tokenised one by one, but after a prompt: there they are a text with spaces between."""
        tokenizer = self._tokenizer(variant)
        given = [] if variant.prompt else [i for i, record in enumerate(records) if record.words is not None]
        if len(given) == len(records):
            return tokenizer.encode_words([record.words or () for record in records])
        texts = [variant.prompt + record.text for record in records] if variant.prompt else [r.text for r in records]
        paired = any(record.pair is not None for record in records)
        pairs = [record.pair for record in records] if paired else None
        encoded = tokenizer.encode(texts, pairs, offsets=self.offsets)
        if given:
            worded = tokenizer.encode_words([records[i].words or () for i in given])
            for i, text in zip(given, worded, strict=True):
                encoded[i] = text
        return encoded

    def _tokenizer(self, variant: InputVariant) -> TextTokenizer:
        if not variant.lowercase:
            return self.tokenizer
        assert self.lowercased is not None, "made where the folder asks for lower case"
        return self.lowercased
