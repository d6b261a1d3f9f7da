"""Variants of a text that the inputs of a plan need (after a prompt, in lower case), and their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from layertap.features.plan import Input, InputVariant
from layertap.records import Record
from layertap.text.encoded import EncodedText
from layertap.text.tokenizer import TextTokenizer


def lengths_of(tokenizer: TextTokenizer, records: Sequence[Record]) -> list[int]:
    """Count the tokens of each record, special tokens included, without any limit."""
    plain = InputVariants(inputs=(Input(max_length=1),), tokenizer=tokenizer, lowercased=None)
    return [len(text) for (text,) in plain.encode(records)]


@dataclass(frozen=True, slots=True, kw_only=True)
class DetailInput:
    """The one input of a plan in whose tokens words, spans and details are found.

    Attributes:
        number: index of the input in `Plan.inputs`.
        variant: index of its variant among the texts that `InputVariants.encode` gives for a record.
        prompt_chars: number of characters of its prompt.
    """

    number: int = 0
    variant: int = 0
    prompt_chars: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class InputVariants:
    """The distinct variants among the inputs of a plan; each is tokenized once for every text.

    Attributes:
        inputs: inputs of the plan.
        tokenizer: tokenizer of the model.
        lowercased: the tokenizer with lower-casing before every other step, or None where no input asks for it.
        offsets: whether to keep the characters under each token.
    """

    inputs: tuple[Input, ...]
    tokenizer: TextTokenizer
    lowercased: TextTokenizer | None
    offsets: bool = False

    @cached_property
    def groups(self) -> dict[InputVariant, dict[int, Input]]:
        """Inputs of each variant, by their index in the plan."""
        inputs: dict[InputVariant, dict[int, Input]] = {}
        for number, own in enumerate(self.inputs):
            inputs.setdefault(own.variant, {})[number] = own
        return inputs

    def encode(self, records: Sequence[Record]) -> list[tuple[EncodedText, ...]]:
        """Tokenize records without a limit: for each record a tuple of its variants, in the order of `groups`."""
        return list(zip(*(self._encode(variant, records) for variant in self.groups), strict=True))

    def prompt_rows(self, number: int, *, cut: bool) -> int:
        """Count the rows that an input's prompt takes of every text, including special tokens before the prompt.

        The count follows sentence-transformers: the prompt is tokenized alone, and one special token at its end is not
        counted. Where a tokenizer joins the end of the prompt with the beginning of the text, the joint token counts as
        part of the prompt.

        Args:
            number: index of the input in the plan.
            cut: whether texts over the limit are cut on the right; the prompt is then cut as well.
        """
        own = self.inputs[number]
        if not own.prompt:
            return 0
        tokenizer = self._tokenizer(own.variant)
        prompt = tokenizer.encode([own.prompt])[0]
        ids = (prompt.limited(own.max_length) if cut else prompt).input_ids
        return len(ids) - int(int(ids[-1]) in tokenizer.special_ids)

    @cached_property
    def detail_input(self) -> DetailInput:
        """Input in whose tokens details are found: the input of hidden states, where a feature asks for any.

        Only `sentence_embedding` has a prompt, lower-casing or a smaller limit.
        """
        inputs = self.inputs
        number = max(
            range(len(inputs)), key=lambda i: (not inputs[i].prompt, not inputs[i].lowercase, inputs[i].max_length, -i)
        )
        return DetailInput(
            number=number,
            variant=list(self.groups).index(inputs[number].variant),
            prompt_chars=len(inputs[number].prompt),
        )

    def _encode(self, variant: InputVariant, records: Sequence[Record]) -> list[EncodedText]:
        """Tokenize one variant of records; given words one by one, or after a prompt as a text with spaces between."""
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
        assert self.lowercased is not None, "a folder that asks for lower case has this tokenizer"
        return self.lowercased
