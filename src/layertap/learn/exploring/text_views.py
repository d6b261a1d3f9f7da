"""Views of single texts beside the map: their tokens, and attentions."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from layertap.engine.extractor import Extractor
from layertap.engine.progress import status_on
from layertap.engine.variants import lengths_of
from layertap.errors import OptionError
from layertap.learn.exploring.corpus import Corpus
from layertap.learn.exploring.sentences import Sentence, gives_attentions, sentence_bytes, sentence_of
from layertap.words import counted

SENTENCE_BYTES = 20_000_000
"""Part of a page that texts with tokens may take."""

MOST_TOKENS = 128
"""Tokens of a text that is asked for with its tokens."""

USUAL_TOKENS = 48
"""Tokens of those that are drawn."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TextViews:
    """Views of single texts, which a page shows beside the map.

    Attributes:
        lengths: number of tokens of each text, or None where no model is at hand to count them.
        sentences: texts with tokens and attentions.
        layer_names: names of the hidden states of the model.
        blocks, heads: number of blocks, and of heads of each.
        why_no_sentences, why_no_attention: what the page says where there are none.
    """

    lengths: Sequence[int] | None = None
    sentences: tuple[Sentence, ...] = ()
    layer_names: tuple[str, ...] = ()
    blocks: int = 0
    heads: int = 0
    why_no_sentences: str = ""
    why_no_attention: str = ""

    def as_facts(self) -> dict[str, Any]:
        """Return what a page states of these, as JSON values."""
        return {
            "sentences": [sentence.as_facts() for sentence in self.sentences],
            "layer_names": list(self.layer_names),
            "blocks": self.blocks,
            "heads": self.heads,
            "why_no_sentences": self.why_no_sentences,
            "why_not_this_sentence": (
                f"This page holds tokens and attentions of {counted(len(self.sentences), 'text')}, and this text is "
                "not among them; --sentence ROW of layertap explore adds it."
            ),
            "why_no_attention": self.why_no_attention,
        }


def texts_of(
    extractor: Extractor, corpus: Corpus, *, number: int, rows: Collection[int], seed: int, progress: bool
) -> TextViews:
    """Compute the lengths of the texts, and what a page shows of single ones.

    Args:
        extractor: the model.
        corpus: the texts.
        number: number of texts with tokens.
        rows: rows of the input that are among these.
        seed: seed of the sample of others.
        progress: show progress on standard error.

    Raises:
        OptionError: a text of `rows` has more than 128 tokens.
    """
    lengths = lengths_of(extractor.tokenizer, corpus.records)
    with status_on(sys.stderr, shown=progress) as say:
        say("explore: tokens and attentions")
        sentences = sentences_of(extractor, corpus, lengths, number=number, rows=rows, seed=seed)
    spec = extractor.facts.spec
    return TextViews(
        lengths=lengths,
        sentences=tuple(sentences),
        layer_names=tuple(f"hidden_states[{i}]" for i in range(spec.num_hidden_layers + 1)),
        blocks=spec.num_hidden_layers,
        heads=spec.num_attention_heads,
        why_no_sentences=f"No text of at most {MOST_TOKENS} tokens is kept with its tokens in this page.",
        why_no_attention=""
        if gives_attentions(extractor)
        else "This model, as it was run, gives no attention probabilities.",
    )


def sentences_of(
    extractor: Extractor,
    corpus: Corpus,
    lengths: Sequence[int],
    *,
    number: int,
    rows: Collection[int],
    seed: int,
) -> list[Sentence]:
    """Compute the texts with tokens: those asked for, then a random sample of others, as far as there is room.

    Raises:
        OptionError: a text that is asked for has more than 128 tokens.
    """
    limit = extractor.facts.max_length_override or extractor.facts.max_length
    counts = [min(length, limit) for length in lengths]
    asked = [i for i, row in enumerate(corpus.rows) if row in rows]
    for i in asked:
        if counts[i] > MOST_TOKENS:
            raise OptionError(
                f"row {corpus.rows[i]} has {counts[i]:,} tokens, and a page keeps attentions of at most {MOST_TOKENS} "
                "tokens; choose another row, or cut texts with --max-length"
            )
    drawn = np.random.default_rng(seed).permutation(len(corpus.records)).tolist()
    usual = [i for i in drawn if i not in asked and 3 <= counts[i] <= USUAL_TOKENS]
    if not asked and not usual:
        usual = [i for i in sorted(drawn, key=counts.__getitem__) if counts[i] <= MOST_TOKENS]
    chosen, room = list(asked), SENTENCE_BYTES - sum(sentence_bytes(extractor, counts[i]) for i in asked)
    for i in usual:
        room -= sentence_bytes(extractor, counts[i])
        if len(chosen) >= max(number, len(asked)) or room < 0:
            break
        chosen.append(i)
    return [sentence_of(extractor, corpus.records[i].text, i) for i in sorted(chosen)]
