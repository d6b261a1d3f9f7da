"""Sources that features begin with: hidden states, attentions, the pooler, a folder's sentence embedding."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from keyword import iskeyword

from layertap.errors import FeatureError
from layertap.features.expr import Expr
from layertap.features.grammar import Form, Kind
from layertap.features.indexing import ATTENTIONS, HIDDEN_STATES, Selection, selection_of, selection_text
from layertap.features.unselected import Unselected

# Names of prompts that the text form can hold.
PROMPT_NAME = re.compile(r"[A-Za-z_][\w.-]{0,99}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class LastHiddenState(Expr):
    """`hidden_states[-1]`: [T, H] a text."""

    form = Form(kind=Kind.SOURCE, layers=False, unit="tokens")

    def __str__(self) -> str:
        return "last_hidden_state"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class HiddenLayers(Expr):
    """`hidden_states[selection]`: [T, H] for one layer, [T, L, H] for a list or a slice."""

    selection: Selection
    form: Form = field(init=False, compare=False)

    def __post_init__(self) -> None:
        several = not isinstance(self.selection, int)
        object.__setattr__(self, "form", Form(kind=Kind.SOURCE, layers=several, unit="tokens"))

    def __str__(self) -> str:
        return f"hidden_states[{selection_text(self.selection)}]"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class AttentionLayers(Expr):
    """`attentions[selection]`, attention probabilities: [A, T, T] for one layer, [L, A, T, T] for a list or a slice.

    Layers are counted from 0, the first block, as in transformers.
    """

    selection: Selection
    form: Form = field(init=False, compare=False)

    def __post_init__(self) -> None:
        several = not isinstance(self.selection, int)
        object.__setattr__(self, "form", Form(kind=Kind.SOURCE, layers=several, unit="maps"))

    def __str__(self) -> str:
        return f"attentions[{selection_text(self.selection)}]"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PoolerOutput(Expr):
    """The pooler head (dense + tanh) on the first token's last state: [H] a text."""

    form = Form(kind=Kind.SOURCE, layers=False, unit="text")

    def __str__(self) -> str:
        return "pooler_output"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SentenceEmbedding(Expr):
    """Sentence embedding as a sentence-transformers folder declares it: [D] a text.

    Attributes:
        prompt: name of one of the folder's prompts, or None: its default prompt, if it has one.
        normalized: False leaves out the normalization with which the folder's steps end, where they do.
    """

    prompt: str | None = None
    normalized: bool = True

    form = Form(kind=Kind.SOURCE, layers=False, unit="text")

    def __post_init__(self) -> None:
        if not isinstance(self.normalized, bool):
            raise FeatureError(f"sentence_embedding(normalized=...) takes True or False, not {self.normalized!r:.80}")
        if self.prompt is None or (isinstance(self.prompt, str) and PROMPT_NAME.fullmatch(self.prompt)):
            return
        raise FeatureError(
            "sentence_embedding(prompt=...) takes the name of one of the folder's prompts (letters, digits, _ . -), as "
            f"in sentence_embedding(prompt=query), not {self.prompt!r:.80}"
        )

    def __call__(self, *, prompt: str | None = None, normalized: bool = True) -> SentenceEmbedding:
        """Return the source with another of the folder's prompts, by name, or without its last normalization."""
        return SentenceEmbedding(prompt=prompt, normalized=normalized)

    def __str__(self) -> str:
        options = [] if self.normalized else ["normalized=False"]
        if self.prompt is not None:
            bare = self.prompt.isidentifier() and not iskeyword(self.prompt)
            options.insert(0, f"prompt={self.prompt if bare else json.dumps(self.prompt)}")
        return f"sentence_embedding({', '.join(options)})" if options else "sentence_embedding"


class HiddenStates(Unselected):
    """`hidden_states`, before layers are selected: `hidden_states[-1]`, `[[1, 6, 12]]`, `[-4:]`, `[:]`."""

    __slots__ = ()

    layered = HIDDEN_STATES

    def __getitem__(self, key: object) -> HiddenLayers:
        return HiddenLayers(selection=selection_of(key, HIDDEN_STATES))


class Attentions(Unselected):
    """`attentions`, before layers are selected: `attentions[0]` is the first block's, as in transformers."""

    __slots__ = ()

    layered = ATTENTIONS

    def __getitem__(self, key: object) -> AttentionLayers:
        return AttentionLayers(selection=selection_of(key, ATTENTIONS))


last_hidden_state = LastHiddenState()
"""Hidden states of the last block, `hidden_states[-1]`: [T, H] a text."""

hidden_states = HiddenStates()
"""Hidden states of every layer; select some in square brackets.

`hidden_states[6]` is [T, H] a text; a slice or a list, such as `hidden_states[-4:]`, gives [T, L, H]. Layer 0 is the
output of the embeddings, as in transformers.
"""

attentions = Attentions()
"""Attention probabilities; select layers in square brackets: `attentions[0]`, [A, T, T] a text, is the first block."""

pooler_output = PoolerOutput()
"""The pooler head (dense and tanh) on the first token's last state: [H] a text."""

sentence_embedding = SentenceEmbedding()
"""Sentence embedding as a sentence-transformers folder declares it: [D] a text. Call it for one of its prompts."""
