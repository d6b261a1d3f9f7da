"""Whether the ids of a tokenizer have rows in a model's word table."""

from __future__ import annotations

from dataclasses import replace

from layertap.errors import TokenizerError
from layertap.models.config import short
from layertap.text.encoded import EncodedText
from layertap.text.tokenizer import TextTokenizer, pair_ids

SHARE_OF_TABLE = 0.5
"""Share of the rows of a word table that a tokenizer has at least; with fewer tokens there is a note."""

TOKENS_SHOWN = 3
"""Number of tokens without a row that a note names."""


def fitted(tokenizer: TextTokenizer, rows: int) -> TextTokenizer:
    """Return the tokenizer for a model whose word table has this many rows, or refuse the model.

    Tokens that were added to the vocabulary may lie beyond the table: only texts that use them cannot run.

    Raises:
        TokenizerError: a token of the vocabulary or of the template lies beyond the table; it is named.
    """
    notes = list(tokenizer.notes)
    tokens = {i: token for token, i in tokenizer.backend.get_vocab().items() if token}
    added = tokenizer.backend.get_added_tokens_decoder()
    size = len(tokens)
    if size < SHARE_OF_TABLE * rows:
        notes.append(
            f"the tokenizer has {size:,} tokens, and the model's word table {rows:,} rows: are they of one checkpoint?"
        )
    if tokenizer.max_id < rows:
        return replace(tokenizer, notes=tuple(notes))
    needed = {
        *tokenizer.prefix,
        *tokenizer.suffix,
        *pair_ids(tokenizer.backend, tokenizer.files[0]),
        *tokenizer.unknown.values(),
    }
    for i in needed:
        tokens.setdefault(i, "of the template")
    beyond = {i: token for i, token in sorted(tokens.items()) if i >= rows}
    # An added token and one of the vocabulary may have the same id: the library numbers added tokens anew.
    names_added = {token.content for token in added.values()}
    vocabulary = tokenizer.backend.get_vocab(with_added_tokens=False)
    own = {i: token for token, i in vocabulary.items() if i >= rows and token not in names_added}
    beyond |= own
    kept = [i for i in beyond if i in needed or i in own or i not in added]
    if kept:
        raise TokenizerError(
            f"{tokenizer.files[0]}: expected ids that have a row in the model's table of {rows}, found {len(beyond)} "
            f"tokens beyond it: the first is {short(beyond[kept[0]])} with id {kept[0]}; tokenizer and model are "
            "not of one checkpoint"
        )
    names = ", ".join(map(short, [*beyond.values()][:TOKENS_SHOWN])) + (", ..." if len(beyond) > TOKENS_SHOWN else "")
    notes.append(f"the model's word table has no row for {names}: a text that uses one is refused")
    return replace(tokenizer, without_row=beyond, notes=tuple(notes))


def fault_of(tokenizer: TextTokenizer, text: EncodedText) -> str | None:
    """Return why the model cannot run a text, or None: a token of it has no row in the word table."""
    if not tokenizer.without_row:
        return None
    used = next((i for i in text.input_ids.tolist() if i in tokenizer.without_row), None)
    if used is None:
        return None
    return (
        f"the token {short(tokenizer.without_row[used])} (id {used}) was added to the tokenizer, and the model's word "
        "table has no row for it; take it out of the text, or resize the table (resize_token_embeddings) and save "
        "the model"
    )
