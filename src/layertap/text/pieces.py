"""Texts of millions of characters, encoded piece by piece: the same ids in a fraction of the memory.

The tokenizers library holds some hundred bytes a token while it works. Cut at a space between two letters or digits
(ASCII), a text gives the tokens of its pieces, if the tokenizer looks at nothing across that space. Which parts do
not is a literal table; a tokenizer with any other part encodes the text whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from layertap.text.encoded import EncodedText

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer

LONG = 1 << 18
"""Characters above which a text is encoded in pieces."""

PIECE = 1 << 17
"""Characters of a piece."""

PIECES_AT_ONCE = 8
"""Pieces that the library's threads work on together; their encodings are in memory at the same time."""

CUT = re.compile("(?<=[0-9A-Za-z]) (?=[0-9A-Za-z])")
EDGE = re.compile("[0-9A-Za-z]")

# They work letter by letter; a letter and a space are never composed.
NORMALIZERS = ("BertNormalizer", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Precompiled")
# They end a piece of theirs at every white space.
WHITESPACE_SPLITTERS = ("BertPreTokenizer", "WhitespaceSplit", "Whitespace")


def pieces_of(text: str, size: int) -> Iterator[str]:
    """Yield the text in pieces of `size` characters and as many more as it takes to the next place to cut."""
    begin = 0
    while (cut := CUT.search(text, begin + size)) is not None:
        yield text[begin : cut.start()]
        begin = cut.start()
    yield text[begin:]


def joined(parts: Sequence[EncodedText], pieces: Sequence[str]) -> EncodedText:
    """Return the whole text, of its encoded pieces."""
    first, last = parts[0], parts[-1]
    begin = first.content[0]
    own = [part.input_ids[slice(*part.content)] for part in parts]
    ids = np.concatenate([first.input_ids[:begin], *own, last.input_ids[last.content[1] :]])
    offsets = None
    if first.offsets is not None:
        offsets = np.zeros((len(ids), 2), dtype=np.int32)
        at, shift = begin, 0
        for part, piece in zip(parts, pieces, strict=True):
            assert part.offsets is not None
            inside = part.offsets[slice(*part.content)]
            offsets[at : at + len(inside)] = inside + shift
            at, shift = at + len(inside), shift + len(piece)
    return replace(
        first,
        input_ids=ids,
        offsets=offsets,
        content=(begin, begin + sum(map(len, own))),
        typed_specials=sum(part.typed_specials for part in parts),
        replaced_surrogates=sum(part.replaced_surrogates for part in parts),
    )


def may_be_cut(backend: Tokenizer) -> bool:
    """Return whether a text's tokens are those of its pieces."""
    return (
        _normalizes_locally(_state(backend.normalizer))
        and _splits_at_spaces(_state(backend.pre_tokenizer))
        and _keeps_offsets(_state(backend.post_processor))
        and not any(map(_reaches_over, backend.get_added_tokens_decoder().values()))
    )


def _state(part: Any) -> dict[str, Any]:
    return {"type": None} if part is None else json.loads(part.__getstate__())


def _normalizes_locally(state: dict[str, Any]) -> bool:
    if state["type"] == "Sequence":
        return all(map(_normalizes_locally, state["normalizers"]))
    if state["type"] == "Replace":
        # a plain string without a space lies on one side; runs of spaces are not cut
        pattern = state["pattern"]
        return pattern == {"Regex": " {2,}"} or not re.search(r"\s", pattern.get("String", " "))
    return state["type"] is None or state["type"] in NORMALIZERS


def _splits_at_spaces(state: dict[str, Any]) -> bool:
    if state["type"] == "Sequence":
        steps = state["pretokenizers"]
        return bool(steps) and steps[0]["type"] in WHITESPACE_SPLITTERS
    if state["type"] == "ByteLevel":
        return bool(state["use_regex"])  # that of GPT-2: a word takes the space before it along
    if state["type"] == "Metaspace":
        return bool(state["split"])  # the same
    return state["type"] in WHITESPACE_SPLITTERS


def _keeps_offsets(state: dict[str, Any]) -> bool:
    """Return whether offsets are right after a cut: not if a leading space is taken for the tokenizer's own."""
    if state["type"] == "Sequence":
        return all(map(_keeps_offsets, state["processors"]))
    return not (state.get("trim_offsets", False) and state.get("add_prefix_space", False))


def _reaches_over(token: AddedToken) -> bool:
    """Return whether an added token may hold or swallow the space where a text is cut."""
    content = token.content
    if any(map(str.isspace, content)):
        return not (content.isspace() and len(content) > 1)  # a run of spaces is not cut
    before = token.lstrip and EDGE.match(content[0]) is not None
    return before or (token.rstrip and EDGE.match(content[-1]) is not None)
