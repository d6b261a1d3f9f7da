"""Content of a page that a server shows: any text is computed when it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from layertap.engine.extractor import Extractor
from layertap.learn.exploring.sentences import gives_attentions
from layertap.page.content import PageContent

MOST_TOKENS = 256
"""Tokens of a text that a page shows: its attentions grow with their square."""

MOST_CHARACTERS = 20_000
"""Characters of a text that a page sends and a server counts the tokens of."""


NO_CORPUS = {
    "count": 0,
    "total": 0,
    "sampled": False,
    "texts": [],
    "rows": [],
    "ids": None,
    "columns": [],
    "label": None,
    "layers": [],
    "start": 0,
    "extent": [1, 1, 0, 0],
}
"""Facts of a page that has no texts of its own."""


def token_limit(extractor: Extractor) -> int:
    """Return the tokens of a text that can be shown: what the model reads, and no more than 256."""
    return min(MOST_TOKENS, extractor.facts.max_length_override or extractor.facts.max_length)


def live(content: PageContent, extractor: Extractor) -> PageContent:
    """Return the content of a page for a server that computes any text."""
    notes = [*content.facts["notes"], "A text that you type is sent to the server that this page came from."]
    return replace(content, facts={**content.facts, **_live_facts(extractor), "notes": notes})


def sentence_page(extractor: Extractor, name: str, *, commands: Mapping[str, str]) -> PageContent:
    """Return the content of a page without a corpus: tokens and attentions of texts that are typed.

    Args:
        extractor: the model.
        name: name of the model.
        commands: name of a view -> the Python lines that give its numbers.
    """
    spec = extractor.facts.spec
    facts: dict[str, Any] = {
        **NO_CORPUS,
        "about": name,
        "notes": [],
        "layer_names": [f"hidden_states[{i}]" for i in range(spec.num_hidden_layers + 1)],
        "blocks": spec.num_hidden_layers,
        "heads": spec.num_attention_heads,
        "probe": None,
        "sentences": [],
        "commands": dict(commands),
    }
    return live(PageContent(title=f"{name}: what each layer sees", facts=facts), extractor)


def _live_facts(extractor: Extractor) -> dict[str, Any]:
    return {
        "live": {"most_tokens": token_limit(extractor), "most_characters": MOST_CHARACTERS},
        "why_no_attention": ""
        if gives_attentions(extractor)
        else "This model, as it is run here, gives no attention probabilities.",
    }
