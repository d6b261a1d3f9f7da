"""A text that is encoded in pieces gives what it gives as a whole."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from layertap.text import tokenizer as room
from layertap.text.pieces import joined, may_be_cut, pieces_of
from layertap.text.tokenizer import TextTokenizer
from tests.selection import slow_except

ODD = [
    "\n",
    "\t",
    "  ",
    " ",
    " ",
    " a",
    "b ",
    "1 ",
    "Z",
    "don't ",
    "\u0301",
    "\u03a3 ",
    "\u0130",
    "\u00a0",
    "\u3000",
    "\u4f60",
]
PIECES = st.one_of(
    st.sampled_from([*ODD, "\u200d", "\ufb01 ", "\ud800", "``", ",5", "the bank ", "gonna", "x" * 120]),
    st.sampled_from(["[SEP]", " [MASK] ", "[UNK]", "</s>", " <mask>", "<unk>", "|||IP_ADDRESS|||", "   "]),
    st.characters(),
)
TEXTS = st.lists(PIECES, max_size=40).map("".join)
KINDS = ("bert", "roberta", "xlm-roberta")
REAL = ("bert-base-uncased", "bert-base-multilingual-cased", "roberta-base", "ModernBERT", "unigram of XLM-R")


def assert_same_in_pieces(tokenizer: TextTokenizer, text: str, size: int) -> None:
    assert may_be_cut(tokenizer.backend)
    whole = tokenizer.encode([text], offsets=True)[0]
    pieces = list(pieces_of(text, size))
    assert "".join(pieces) == text
    found = joined(tokenizer.encode(pieces, offsets=True), pieces)
    assert found.input_ids.tolist() == whole.input_ids.tolist()
    assert found.offsets is not None
    assert whole.offsets is not None
    assert found.offsets.tolist() == whole.offsets.tolist()
    assert found.content == whole.content
    assert found.typed_specials == whole.typed_specials
    assert found.replaced_surrogates == whole.replaced_surrogates
    assert (found.input_ids.dtype, found.offsets.dtype) == (np.int32, np.int32)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=150, deadline=None)
@given(text=TEXTS, size=st.integers(1, 30))
def test_any_text_in_pieces(kinds: dict[str, Any], kind: str, text: str, size: int) -> None:
    assert_same_in_pieces(kinds[kind].ours, text, size)
    assert_same_in_pieces(kinds[kind].ours.lowercased(), text, size)


@pytest.mark.parametrize("name", slow_except(REAL, "bert-base-uncased", "unigram of XLM-R"))
@settings(max_examples=100, deadline=None)
@given(text=TEXTS, size=st.integers(1, 30))
def test_any_text_in_pieces_with_real_vocabularies(
    real_tokenizers: dict[str, TextTokenizer], name: str, text: str, size: int
) -> None:
    tokenizer = real_tokenizers[name]
    if name == "unigram of XLM-R":
        # where its normalizer drops the first character of a text, or the one behind a special token, the library's
        # offsets of what follows are one too small
        letters = set(text.encode(errors="replace").decode())
        assume(all(map(tokenizer.backend.normalizer.normalize_str, letters)))
    assert_same_in_pieces(tokenizer, text, size)


@pytest.mark.parametrize("name", slow_except(REAL, "bert-base-uncased"))
def test_novels_in_pieces(real_tokenizers: dict[str, TextTokenizer], shared_data: Path, name: str) -> None:
    for path in sorted((shared_data / "novels_en").glob("*.txt"))[:2]:
        assert_same_in_pieces(real_tokenizers[name], path.read_text(encoding="utf-8")[:200_000], 1_000)


def test_pieces_end_where_a_text_may_be_cut() -> None:
    text = "one two  three, four\nfive six"
    assert list(pieces_of(text, 1)) == ["one", " two  three, four\nfive", " six"]
    assert list(pieces_of(text, 4)) == ["one two  three, four\nfive", " six"]
    assert list(pieces_of(text, 100)) == [text]
    assert list(pieces_of("", 1)) == [""]


def test_only_long_texts_are_cut(kinds: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    ours: TextTokenizer = kinds["bert"].ours
    texts, pairs = ["the bank " * 5, "", "the bank", "river"], [None, None, "the river " * 9, "bank"]
    expected = ours.encode(texts, pairs, offsets=True)
    seen: list[str] = []

    def watched(text: str, size: int) -> Any:
        seen.append(text)
        return pieces_of(text, size)

    monkeypatch.setattr(room, "pieces_of", watched)
    ours.encode(texts)
    assert seen == []
    monkeypatch.setattr(room, "LONG", 8)
    monkeypatch.setattr(room, "PIECE", 8)
    monkeypatch.setattr(room, "PIECES_AT_ONCE", 2)
    for one, other in zip(ours.encode(texts, pairs, offsets=True), expected, strict=True):
        assert one.input_ids.tolist() == other.input_ids.tolist()
        assert (one.content, one.pair_content) == (other.content, other.pair_content)
        np.testing.assert_array_equal(one.offsets, other.offsets)
    assert seen == texts[:1]


WHITESPACE = pre_tokenizers.WhitespaceSplit()
SAFE: dict[str, tuple[Any, Any, Any]] = {
    "plain": (None, WHITESPACE, None),
    "albert": (
        normalizers.Sequence(
            [normalizers.NFKD(), normalizers.Replace("``", '"'), normalizers.Replace(Regex(" {2,}"), " ")]
        ),
        pre_tokenizers.Metaspace(),
        None,
    ),
    "several": (normalizers.Lowercase(), pre_tokenizers.Sequence([WHITESPACE, pre_tokenizers.Punctuation()]), None),
}
UNSAFE: dict[str, tuple[Any, Any, Any]] = {
    "no pre-tokenizer": (None, None, None),
    "strip": (normalizers.Strip(), WHITESPACE, None),
    "prepend": (normalizers.Sequence([normalizers.NFC(), normalizers.Prepend("_")]), WHITESPACE, None),
    "replace a space": (normalizers.Replace("a b", "c"), WHITESPACE, None),
    "replace by a pattern": (normalizers.Replace(Regex("a.b"), "c"), WHITESPACE, None),
    "no regex": (None, pre_tokenizers.ByteLevel(use_regex=False), None),
    "one piece": (None, pre_tokenizers.Metaspace(split=False), None),
    "digits": (None, pre_tokenizers.Digits(), None),
    "digits first": (None, pre_tokenizers.Sequence([pre_tokenizers.Digits(), WHITESPACE]), None),
    "prefix in offsets": (None, WHITESPACE, processors.ByteLevel(trim_offsets=True, add_prefix_space=True)),
}


@pytest.mark.parametrize(
    ("parts", "expected"),
    [*zip(SAFE.values(), itertools.repeat(True)), *zip(UNSAFE.values(), itertools.repeat(False))],
    ids=[*SAFE, *UNSAFE],
)
def test_what_may_be_cut(parts: tuple[Any, Any, Any], expected: bool) -> None:
    backend = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    normalizer, pre_tokenizer, post_processor = parts
    if normalizer is not None:
        backend.normalizer = normalizer
    if pre_tokenizer is not None:
        backend.pre_tokenizer = pre_tokenizer
    if post_processor is not None:
        backend.post_processor = post_processor
    assert may_be_cut(backend) is expected


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        (AddedToken("<one>", lstrip=True, rstrip=True), True),
        (AddedToken("one"), True),
        (AddedToken("  "), True),
        (AddedToken(" "), False),
        (AddedToken("one two"), False),
        (AddedToken("one "), False),
        (AddedToken("one", lstrip=True), False),
        (AddedToken("one", rstrip=True), False),
        (AddedToken("<one", rstrip=True), False),
    ],
    ids=repr,
)
def test_added_tokens_that_hold_or_take_a_space(token: AddedToken, expected: bool) -> None:
    backend = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    backend.pre_tokenizer = WHITESPACE
    backend.add_tokens([token])
    assert may_be_cut(backend) is expected
