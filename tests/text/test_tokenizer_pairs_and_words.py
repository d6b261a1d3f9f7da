"""Pairs and given words: equal to transformers', ids, types, offsets and word ids."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from layertap.errors import OptionError, TokenizerError, UsageError
from layertap.text.encoded import EncodedText
from layertap.text.tokenizer import TextTokenizer

pytest.importorskip("transformers", minversion="5", reason="written against transformers 5's tokenizers")

KINDS = ("bert", "roberta", "xlm-roberta")
SPECIALS = ("[CLS]", "[SEP]", "[MASK]", "[UNK]", "<s>", "</s>", "<mask>", "<unk>", "<pad>")
PIECES = st.one_of(
    st.characters(exclude_categories=["Cs"]),
    st.sampled_from(
        [*SPECIALS, *" \n\t\0\r", "\u200d", "\u200b", "\ufe0f", "\u0301", "\u0323", "\ufb01", "\u00bd", "\u0130"]
    ),
    st.sampled_from(["the ", "bank", " river", "12,345.67", "\u4f60\u597d", "\u05e9\u05dc\u05d5\u05dd", "don't"]),
    st.sampled_from(["\U0001f926\U0001f3fc\u200d\u2642\ufe0f", "\U0001d518", "\U0001f1e9\U0001f1ea", "\u0bb8\u0bcd"]),
)
TEXTS = st.lists(PIECES, max_size=12).map("".join)
LISTS_OF_WORDS = st.lists(st.lists(st.lists(PIECES, max_size=4).map("".join), max_size=8), min_size=1, max_size=3)


def assert_same(encoded: EncodedText, expected: Any, i: int, *, side: str = "right") -> None:
    assert encoded.input_ids.tolist() == expected["input_ids"][i]
    types = encoded.token_type_ids
    assert (types.tolist() if types is not None else [0] * len(encoded)) == expected["token_type_ids"][i]
    own = [encoded.content] if encoded.pair_content is None else [encoded.content, encoded.pair_content]
    assert encoded.offsets is not None
    offsets = np.array(expected["offset_mapping"][i])
    if side == "left":
        # transformers cuts first and takes the spaces out of the offsets then, as if the text began at the cut
        offsets[[begin for begin, _ in own]] = encoded.offsets[[begin for begin, _ in own]]
    np.testing.assert_array_equal(encoded.offsets, offsets)
    sequences: list[int | None] = [None] * len(encoded)
    for number, (begin, end) in enumerate(own):
        sequences[begin:end] = [number] * (end - begin)
    assert sequences == expected.sequence_ids(i)
    for array in (encoded.input_ids, encoded.offsets, encoded.token_type_ids, encoded.word_ids):
        assert array is None or array.dtype == np.int32


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=100, deadline=None)
@given(pairs=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=3))
def test_pairs_as_transformers(kinds: dict[str, Any], kind: str, pairs: list[tuple[str, str]]) -> None:
    firsts, seconds = [first for first, _ in pairs], [second for _, second in pairs]
    expected = kinds[kind].theirs(firsts, seconds, return_offsets_mapping=True, return_token_type_ids=True)
    for i, encoded in enumerate(kinds[kind].ours.encode(firsts, seconds, offsets=True)):
        assert_same(encoded, expected, i)
        assert (encoded.token_type_ids is None) == (not any(expected["token_type_ids"][i]))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=100, deadline=None)
@given(texts=st.lists(TEXTS, min_size=1, max_size=3))
def test_offsets_as_transformers(kinds: dict[str, Any], kind: str, texts: list[str]) -> None:
    expected = kinds[kind].theirs(texts, return_offsets_mapping=True, return_token_type_ids=True)
    plain = kinds[kind].ours.encode(texts)
    for i, encoded in enumerate(kinds[kind].ours.encode(texts, offsets=True)):
        assert_same(encoded, expected, i)
        assert encoded.token_type_ids is encoded.pair_content is encoded.word_ids is plain[i].offsets is None
        assert plain[i].input_ids.tolist() == encoded.input_ids.tolist()


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=150, deadline=None)
@given(lists=LISTS_OF_WORDS)
def test_words_as_transformers(kinds: dict[str, Any], kind: str, lists: list[list[str]]) -> None:
    expected = kinds[kind].theirs_for_words(
        lists, is_split_into_words=True, return_offsets_mapping=True, return_token_type_ids=True
    )
    for i, encoded in enumerate(kinds[kind].ours.encode_words(lists)):
        assert_same(encoded, expected, i)
        assert encoded.word_ids is not None
        assert encoded.word_ids.tolist() == [-1 if word is None else word for word in expected.word_ids(i)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["right", "left"])
@settings(max_examples=60, deadline=None)
@given(pair=st.tuples(TEXTS, TEXTS), room=st.integers(1, 20))
def test_a_pair_is_cut_longest_first(
    kinds: dict[str, Any], kind: str, side: Any, pair: tuple[str, str], room: int
) -> None:
    theirs, ours = kinds[kind].theirs, kinds[kind].ours
    whole = ours.encode([pair[0]], [pair[1]], offsets=True)[0]
    max_length = theirs.num_special_tokens_to_add(pair=True) + room
    theirs.truncation_side = side
    expected = theirs(
        [pair[0]],
        [pair[1]],
        truncation="longest_first",
        max_length=max_length,
        return_offsets_mapping=True,
        return_token_type_ids=True,
    )
    theirs.truncation_side = "right"
    short = whole.limited(max_length, side)
    assert_same(short, expected, 0, side=side)
    assert short.cut_tokens == len(whole) - len(short)
    assert short.limited(max_length, side) is short


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["right", "left"])
@settings(max_examples=60, deadline=None)
@given(words=st.lists(st.lists(PIECES, max_size=4).map("".join), max_size=8), room=st.integers(1, 12))
def test_words_are_cut_as_transformers_cuts(
    kinds: dict[str, Any], kind: str, side: Any, words: list[str], room: int
) -> None:
    theirs, ours = kinds[kind].theirs_for_words, kinds[kind].ours
    theirs.truncation_side = side
    expected = theirs(
        [words],
        is_split_into_words=True,
        truncation=True,
        max_length=2 + room,
        return_offsets_mapping=True,
        return_token_type_ids=True,
    )
    theirs.truncation_side = "right"
    short = ours.encode_words([words])[0].limited(2 + room, side)
    assert_same(short, expected, 0, side=side)
    assert short.word_ids is not None
    assert short.word_ids.tolist() == [-1 if word is None else word for word in expected.word_ids(0)]


def test_pairs_beside_single_texts(kinds: dict[str, Any]) -> None:
    ours: TextTokenizer = kinds["bert"].ours
    single, pair, empty = ours.encode(["the bank", "the bank", ""], [None, "river", ""])
    assert (single.content, single.pair_content, single.token_type_ids) == ((1, 3), None, None)
    assert (pair.content, pair.pair_content) == ((1, 3), (4, 5))
    assert pair.token_type_ids is not None
    assert pair.token_type_ids.tolist() == [0, 0, 0, 0, 1, 1]
    assert (empty.content, empty.pair_content, len(empty)) == ((1, 1), (2, 2), 3)
    assert pair.input_ids[:4].tolist() == single.input_ids.tolist()
    assert ours.encode([], []) == []


def test_special_tokens_typed_in_pairs_and_words_are_counted(kinds: dict[str, Any]) -> None:
    ours: TextTokenizer = kinds["bert"].ours
    pairs = ours.encode(["[SEP] a [UNK]", "a"], ["[UNK] \u3fff [CLS]", "b"])
    assert [pair.typed_specials for pair in pairs] == [4, 0]
    words = ours.encode_words([["[SEP]", "a [UNK]", "\u3fff"], ["a"], []])
    assert [text.typed_specials for text in words] == [2, 0, 0]


@pytest.mark.parametrize("kind", KINDS)
def test_lone_surrogates_in_pairs_and_words(kinds: dict[str, Any], kind: str) -> None:
    ours: TextTokenizer = kinds[kind].ours
    texts, clean = ["a\ud83d b\udc00", "the bank"], ["a\ufffd b\ufffd", "the bank"]
    for found, expected in (
        (ours.encode(texts, offsets=True), ours.encode(clean, offsets=True)),
        (ours.encode(texts, [None, texts[0]], offsets=True), ours.encode(clean, [None, clean[0]], offsets=True)),
        (ours.encode_words([texts, ["a"]]), ours.encode_words([clean, ["a"]])),
    ):
        for one, other in zip(found, expected, strict=True):
            assert one.input_ids.tolist() == other.input_ids.tolist()
            np.testing.assert_array_equal(one.offsets, other.offsets)
    assert [text.replaced_surrogates for text in ours.encode(texts, offsets=True)] == [2, 0]
    assert [text.replaced_surrogates for text in ours.encode(texts, [texts[0], texts[0]])] == [4, 2]
    assert [text.replaced_surrogates for text in ours.encode_words([texts, ["a"]])] == [2, 0]
    # the index of a character stays what it is in Python
    encoded = ours.encode(["\ud83d the"], offsets=True)[0]
    assert encoded.offsets is not None
    assert encoded.offsets[encoded.content[1] - 1, 1] == 5


def test_words_without_a_token_are_absent(kinds: dict[str, Any]) -> None:
    encoded = kinds["bert"].ours.encode_words([["", "the", " ", "\u200b", "bank", ""]])[0]
    assert encoded.word_ids.tolist() == [-1, 1, 4, -1]
    assert encoded.content == (1, 3)
    assert kinds["bert"].ours.encode_words([["the"]], offsets=False)[0].offsets is None
    nothing = kinds["bert"].ours.encode_words([[], [""]])
    assert [(text.content, text.word_ids.tolist()) for text in nothing] == [((1, 1), [-1, -1])] * 2
    assert kinds["bert"].ours.encode_words([]) == []


def test_a_word_of_ten_thousand_characters(kinds: dict[str, Any]) -> None:
    words = ["the", "bank" * 2_500, "river"]
    for kind in kinds.values():
        expected = kind.theirs_for_words([words], is_split_into_words=True)
        encoded = kind.ours.encode_words([words])[0]
        assert encoded.input_ids.tolist() == expected["input_ids"][0]
        assert encoded.word_ids.tolist() == [-1 if word is None else word for word in expected.word_ids(0)]


def byte_level(folder: Path, pre_tokenizer: Any, **config: Any) -> TextTokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizer
    backend.add_special_tokens(["</s>"])
    backend.save(str(folder / "tokenizer.json"))
    config |= {"tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return TextTokenizer.load(folder, model_type="modernbert")


SPLIT = pre_tokenizers.Split("-", "isolated")


@pytest.mark.parametrize(
    ("pre_tokenizer", "spaces"),
    [
        (pre_tokenizers.ByteLevel(add_prefix_space=False), [1, 1, 1]),
        (pre_tokenizers.ByteLevel(add_prefix_space=True), [1, 1, 1]),
        (pre_tokenizers.Sequence([pre_tokenizers.ByteLevel(add_prefix_space=False), SPLIT]), [1, 1, 1]),
        # the splits of a word are not words; transformers leaves these too
        (pre_tokenizers.Sequence([SPLIT, pre_tokenizers.ByteLevel(add_prefix_space=False)]), [0, 0, 1]),
    ],
    ids=["off", "on", "first of several", "behind another"],
)
def test_byte_level_words_get_one_space(tmp_path: Path, pre_tokenizer: Any, spaces: list[int]) -> None:
    ours = byte_level(tmp_path, pre_tokenizer)
    encoded = ours.encode_words([["a", "b-c", " d"]])[0]
    space = ours.backend.token_to_id("\u0120")
    assert encoded.word_ids is not None
    assert [int((encoded.input_ids[encoded.word_ids == i] == space).sum()) for i in range(3)] == spaces
    # what texts get is unchanged
    assert (
        space not in byte_level(tmp_path, pre_tokenizers.ByteLevel(add_prefix_space=False)).encode(["a"])[0].input_ids
    )


def test_the_copy_for_words_keeps_what_the_text_form_does_not_hold(tmp_path: Path) -> None:
    split = byte_level(tmp_path, pre_tokenizers.ByteLevel(add_prefix_space=False), split_special_tokens=True)
    assert len(split.encode_words([["</s>"]])[0]) == len(" </s>")
    assert split.lowercased().encode(["</s>"])[0].input_ids.tolist() == split.encode(["</s>"])[0].input_ids.tolist()


def test_several_threads_may_ask_for_words(kinds: dict[str, Any]) -> None:
    ours = kinds["roberta"].ours.lowercased()  # has made no copy yet
    expected = kinds["roberta"].ours.encode_words([["the", "bank"]])[0].input_ids.tolist()
    found: list[list[int]] = []
    threads = [
        threading.Thread(target=lambda: found.append(ours.encode_words([["the", "bank"]])[0].input_ids.tolist()))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 8


@pytest.mark.parametrize("given", ["the", [["a", 1]], [["a"], "the"], [["a", None]]])
def test_what_is_no_list_of_words_is_refused(kinds: dict[str, Any], given: Any) -> None:
    with pytest.raises(UsageError, match=r"text \d"):
        kinds["bert"].ours.encode_words(given)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [("ab", "one text where"), (["a"], "1 second texts beside 2"), (["a", 1], "second text 1 is int, not str or None")],
)
def test_pairs_that_do_not_fit_are_refused(kinds: dict[str, Any], pairs: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        kinds["bert"].ours.encode(["a", "b"], pairs)


def test_a_template_that_turns_pairs_round_is_refused_when_a_pair_comes(tmp_path: Path) -> None:
    backend = Tokenizer(models.WordLevel({"a": 0, "b": 1, "<s>": 2}, unk_token="a"))
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $B:1 $A:0", special_tokens=[("<s>", 2)]
    )
    backend.save(str(tmp_path / "tokenizer.json"))
    ours = TextTokenizer.load(tmp_path, model_type="modernbert")
    assert ours.encode(["b"], [None])[0].input_ids.tolist() == [2, 1]
    with pytest.raises(TokenizerError, match=r"template for pairs holds the texts \[1, 0\] in this order"):
        ours.encode(["a"], ["b"])


def test_a_limit_without_room_for_a_pair_is_refused(kinds: dict[str, Any]) -> None:
    pair = kinds["roberta"].ours.encode(["a"], ["b"])[0]
    with pytest.raises(OptionError, match="adds 4 special tokens to every pair, so at least 5 are needed"):
        pair.limited(4)
