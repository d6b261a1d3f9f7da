"""Texts as the inputs of a plan word them: after a prompt, in lower case; and how many rows the prompt takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from layertap.engine.batching import PlannedSequence, sequences_of
from layertap.features.plan import Input, Wording
from layertap.text.encoded import EncodedText
from layertap.text.tokenizer import TextTokenizer


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Wordings:
    """The different wordings among a plan's inputs, each tokenised once a text.

    Attributes:
        inputs: those of the plan.
        tokenizer: text -> ids.
        lowercased: the same with lower-casing before everything else, or None where no input asks for it.
    """

    inputs: tuple[Input, ...]
    tokenizer: TextTokenizer
    lowercased: TextTokenizer | None

    @property
    def groups(self) -> dict[Wording, dict[int, Input]]:
        """Wording -> the inputs that see it, by their index."""
        found: dict[Wording, dict[int, Input]] = {}
        for number, seen in enumerate(self.inputs):
            found.setdefault(seen.wording, {})[number] = seen
        return found

    def encode(self, texts: Sequence[str]) -> list[tuple[EncodedText, ...]]:
        """One tuple a text: its ids in each wording, in the order of `groups`."""
        worded = [
            self._tokenizer(wording).encode([wording.prompt + text for text in texts] if wording.prompt else texts)
            for wording in self.groups
        ]
        return list(zip(*worded, strict=True))

    def sequences(self, texts: Sequence[tuple[EncodedText, ...]]) -> Iterator[PlannedSequence]:
        """What to run: every text in every wording, cut to each limit."""
        for i, inputs in enumerate(self.groups.values()):
            yield from sequences_of([worded[i] for worded in texts], inputs)

    def count(self, texts: Sequence[tuple[EncodedText, ...]]) -> npt.NDArray[np.int64]:
        """int64 [N], how many sequences each text becomes."""
        counts = np.zeros(len(texts), dtype=np.int64)
        for i, inputs in enumerate(self.groups.values()):
            limits = np.array([seen.max_length for seen in inputs.values()])
            counts += [len(np.unique(np.minimum(limits, len(worded[i])))) for worded in texts]
        return counts

    def length(self, worded: tuple[EncodedText, ...]) -> int:
        """Tokens of a text in all its wordings together, each cut to the longest limit."""
        longest = (max(seen.max_length for seen in inputs.values()) for inputs in self.groups.values())
        return sum(min(len(text), limit) for text, limit in zip(worded, longest, strict=True))

    def prompt_rows(self, number: int) -> int:
        """Rows that an input's prompt takes in every sequence, with what the template puts before it.

        Counted as sentence-transformers does: the prompt is tokenised alone, cut to the limit, and one special token
        at its end is not counted. Where a tokenizer joins the prompt's end with the text's beginning, the joint token
        counts as the prompt's.
        """
        seen = self.inputs[number]
        if not seen.prompt:
            return 0
        tokenizer = self._tokenizer(seen.wording)
        ids = tokenizer.encode([seen.prompt])[0].limited(seen.max_length).input_ids
        return len(ids) - int(int(ids[-1]) in tokenizer.special_ids)

    def _tokenizer(self, wording: Wording) -> TextTokenizer:
        if not wording.lowercase:
            return self.tokenizer
        assert self.lowercased is not None, "made where the folder asks for lower case"
        return self.lowercased
