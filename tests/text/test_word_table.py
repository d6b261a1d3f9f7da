"""Tokenizers that do not fit a model's word table: added tokens, far too few tokens, and tokens that are needed."""

from __future__ import annotations

import json

import pytest
from tokenizers import Tokenizer

from layertap import Extractor
from layertap.errors import InputError, TokenizerError
from layertap.records import Record


def with_added(folder, *tokens):
    """Add tokens to the `tokenizer.json` of a folder, and no rows to its model."""
    path = str(folder / "tokenizer.json")
    tokenizer = Tokenizer.from_file(path)
    assert tokenizer.add_tokens(list(tokens)) == len(tokens)
    tokenizer.save(path)
    return folder


@pytest.fixture
def folder(make_checkpoint, tmp_path):
    return make_checkpoint(tmp_path / "model")


def test_only_texts_that_use_a_token_without_a_row_are_refused(folder):
    before = Extractor.from_pretrained(folder).extract(["a good film"], "last_hidden_state.mean")
    extractor = Extractor.from_pretrained(with_added(folder, "<laugh>", "<cry>"))
    assert (extractor.extract(["a good film"], "last_hidden_state.mean") == before).all()
    assert extractor.tokenizer.notes == (
        "the model's word table has no row for '<laugh>', '<cry>': a text that uses one is refused",
    )
    for given in ("a film <cry>", ("a", "b <cry>"), Record.of_words(0, ["a", "<cry>"])):
        with pytest.raises(InputError, match=r"record row 1: the token '<cry>' \(id \d+\) was added to the tokenizer"):
            extractor.extract(["a", given if not isinstance(given, Record) else Record.of_words(1, ["a", "<cry>"])])


def test_tokens_that_every_text_needs_refuse_the_model(folder):
    path = folder / "tokenizer.json"
    stored = json.loads(path.read_text())
    stored["model"]["vocab"]["film2"] = 400
    path.write_text(json.dumps(stored))
    with pytest.raises(TokenizerError, match="'film2' with id 400; tokenizer and model are not of one checkpoint"):
        Extractor.from_pretrained(with_added(folder, "<laugh>"))


def test_a_tokenizer_with_few_of_the_rows_is_noted(folder):
    path = folder / "tokenizer.json"
    stored = json.loads(path.read_text())
    stored["model"]["vocab"] = {token: i for token, i in stored["model"]["vocab"].items() if i < 40}
    path.write_text(json.dumps(stored))
    (note,) = Extractor.from_pretrained(folder).tokenizer.notes
    assert note.startswith("the tokenizer has 40 tokens, and the model's word table ")
    assert note.endswith(" rows: are they of one checkpoint?")


def test_inspect_shows_the_note(folder, capsys):
    from layertap.cli.main import main

    assert main(["inspect", str(with_added(folder, "<laugh>"))]) == 0
    assert "no row for '<laugh>'" in " ".join(capsys.readouterr().out.split())
