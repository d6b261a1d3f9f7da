"""Everything that `BatchEncoding` tells of tokens, words and characters, against transformers."""

from __future__ import annotations

import pickle

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import layertap.hf as hf  # noqa: E402
from layertap.errors import OptionError  # noqa: E402

TEXTS = ["A good, dull  film.", "hello"]
PAIRS = (TEXTS, ["the story", "who can say it?"])


@pytest.fixture(scope="module")
def tokenizers(make_checkpoint, tmp_path_factory):
    folder = make_checkpoint(tmp_path_factory.mktemp("encoding") / "bert")
    return transformers.BertTokenizer.from_pretrained(folder), hf.AutoTokenizer.from_pretrained(folder)


def encoded(tokenizer, kind):
    if kind == "words":
        return tokenizer([["A", "good", "film"], ["hello"]], is_split_into_words=True, padding=True)
    return tokenizer(*(PAIRS if kind == "pairs" else (TEXTS,)), padding=True)


def answer(batch, method, *arguments):
    """What a method returns, or that it has no answer."""
    try:
        return getattr(batch, method)(*arguments)
    except (TypeError, OptionError):
        return None


@pytest.mark.parametrize("kind", ["texts", "pairs", "words"])
def test_every_token_word_and_character(tokenizers, kind):
    theirs, ours = (encoded(tokenizer, kind) for tokenizer in tokenizers)
    assert ours.n_sequences == (2 if kind == "pairs" else 1)
    assert ours.input_ids == theirs.input_ids
    sequences = range(ours.n_sequences)
    width = len(ours.input_ids[0])
    for row in range(2):
        assert ours.word_ids(row) == theirs.word_ids(row)
        for token in range(width):
            for method in ("token_to_word", "token_to_sequence", "token_to_chars"):
                own = answer(ours, method, row, token)
                assert own == answer(theirs, method, row, token), (method, row, token)
                assert own == answer(ours, method, row, token - width)
        for index in range(22):
            for sequence in sequences:
                for method in ("word_to_tokens", "word_to_chars", "char_to_token", "char_to_word"):
                    own = answer(ours, method, row, index, sequence)
                    assert own == answer(theirs, method, row, index, sequence), (method, row, index, sequence)
    assert ours.token_to_chars(1) == theirs.token_to_chars(1)
    span = ours.word_to_tokens(1)
    assert (span.start, span.end) == (theirs.word_to_tokens(1).start, theirs.word_to_tokens(1).end)
    assert ours.word_to_chars(0).end == 1


def test_everything_that_transformers_has(tokenizers):
    theirs, ours = (encoded(tokenizer, "texts") for tokenizer in tokenizers)
    public = {name for name in dir(theirs) if not name.startswith("_")}
    assert public <= set(dir(ours)) | set(ours)
    again = pickle.loads(pickle.dumps(ours))
    assert again.tokens() == ours.tokens()
    assert again.word_to_tokens(2) == ours.word_to_tokens(2)


def test_rows_that_are_not_there(tokenizers):
    batch = encoded(tokenizers[1], "texts")
    with pytest.raises(OptionError, match="row 7: the batch has 2 rows"):
        batch.word_to_tokens(7, 0)
    with pytest.raises(OptionError, match="words and characters are counted from 0"):
        batch.char_to_word(-1)
    assert batch.word_to_tokens(1, 99) is None
    padded = tokenizers[1].pad({"input_ids": [[1, 2]]})
    assert padded.n_sequences is None
    with pytest.raises(OptionError, match="not after pad"):
        padded.token_to_word(0)


def test_tensors_become_arrays_and_arrays_tensors(tokenizers):
    theirs, ours = (encoded(tokenizer, "texts") for tokenizer in tokenizers)
    for kind in ("pt", "np", "pt"):
        theirs.convert_to_tensors(kind)
        ours.convert_to_tensors(kind)
        assert type(ours["input_ids"]) is type(theirs["input_ids"])
        assert ours["input_ids"].tolist() == theirs["input_ids"].tolist()
