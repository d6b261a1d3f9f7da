"""Words and spans of real texts find their tokens, with tokenizers of every kind."""

from __future__ import annotations

import json
import shutil
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from layertap.text.encoded import EncodedText
from layertap.text.tokenizer import TextTokenizer
from layertap.text.words import rows_of_words, rows_under, whitespace_words
from tests.selection import slow_except, stress_except

TOKENIZERS = ("bert-base-uncased", "bert-base-multilingual-cased", "roberta-base", "ModernBERT", "unigram of XLM-R")
USUAL = ("bert-base-uncased", "roberta-base", "unigram of XLM-R")
LANGUAGES = ("en", "de", "ru", "ar", "hi", "zh")
Ranges = list[tuple[int, int]]


def batches(items: Sequence[tuple[str, Ranges]]) -> Iterator[tuple[list[str], list[Ranges]]]:
    for begin in range(0, len(items), 2_000):
        texts, ranges = zip(*items[begin : begin + 2_000], strict=True)
        yield list(texts), list(ranges)


def int_rows(ranges: Ranges) -> npt.NDArray[np.int32]:
    return np.array(ranges, dtype=np.int32).reshape(-1, 2)


def count_aligned(tokenizer: TextTokenizer, items: Sequence[tuple[str, Ranges]]) -> tuple[int, list[str]]:
    """How many ranges there are, and those without a token or with a character at an end that no token covers."""
    total, missed = 0, []
    for texts, lists in batches(items):
        for text, ranges, encoded in zip(texts, lists, tokenizer.encode(texts, offsets=True), strict=True):
            total += len(ranges)
            missed += [text[begin:end] for begin, end in uncovered(text, ranges, encoded)]
    return total, missed


def uncovered(text: str, ranges: Ranges, encoded: EncodedText) -> Iterator[tuple[int, int]]:
    assert encoded.offsets is not None
    for (begin, end), (first, last) in zip(ranges, rows_under(int_rows(ranges), encoded.offsets).tolist(), strict=True):
        outside = text[begin : encoded.offsets[first, 0]] + text[encoded.offsets[last - 1, 1] : end]
        if first == last or not all(map(is_stripped, outside)):
            yield begin, end


def is_stripped(letter: str) -> bool:
    """Whether an uncased BERT drops it with the accents: an answer may end with a vowel sign."""
    return unicodedata.category(letter) == "Mn"


# --- Universal Dependencies ------------------------------------------------------------------------------------------


def sentences(path: Path) -> Iterator[tuple[str, Ranges]]:
    """Each sentence's raw text, and the characters of its words.

    The words of a multiword token (`gonna`: `gon`, `na`) share its letters out where they spell it, and else each
    is all of it.
    """
    text, tokens, inside, behind = "", [], [], 0
    for line in path.read_text(encoding="utf-8").split("\n"):
        if line.startswith("# text = "):
            text, tokens, behind = line.removeprefix("# text = "), [], 0
        elif line and not line.startswith("#"):
            number, form, *_ = line.split("\t")
            if "-" in number:
                behind, inside = int(number.split("-")[1]), []
                tokens.append((form, inside))
            elif "." not in number:  # an empty node is not in the text
                if int(number) <= behind:
                    inside.append(form)
                else:
                    tokens.append((form, []))
        elif not line and tokens:
            yield text, word_ranges(text, tokens)
            tokens = []


def word_ranges(text: str, tokens: list[tuple[str, list[str]]]) -> Ranges:
    at, ranges = 0, []
    for form, words in tokens:
        while text[at].isspace():
            at += 1
        assert text.startswith(form, at), (text, form)
        ranges.append((at, at + len(form)))
        if words and "".join(words) == form:
            ends = (at + np.cumsum([len(word) for word in words])).tolist()
            ranges += list(zip([at, *ends], ends, strict=False))
        elif words:
            ranges += [(at, at + len(form))] * len(words)
        at += len(form)
    assert not text[at:].strip()
    return ranges


def treebank(folder: Path) -> list[tuple[str, Ranges]]:
    return list(chain.from_iterable(map(sentences, sorted(folder.glob("*.conllu")))))


@pytest.fixture(scope="module")
def english(shared_data: Path) -> list[tuple[str, Ranges]]:
    return treebank(shared_data / "ud_english_ewt")


@pytest.fixture(scope="module")
def chinese(shared_data: Path) -> list[tuple[str, Ranges]]:
    return treebank(shared_data / "ud_chinese_gsdsimp")


@pytest.mark.parametrize("name", stress_except(TOKENIZERS, usual=[], slow=USUAL))
def test_every_gold_word_of_english_ewt_has_its_tokens(
    real_tokenizers: dict[str, TextTokenizer], english: list[tuple[str, Ranges]], name: str
) -> None:
    assert len(english) == 12_544 + 2_001 + 2_077
    total, missed = count_aligned(real_tokenizers[name], english)
    print(f"\nUD English EWT, {name}: {total - len(missed):,} of {total:,} words")  # noqa: T201 - quoted
    # the words and the multiword tokens
    assert total == 204_577 + 25_147 + 25_094 + 2_614 + 359 + 354
    assert missed == []


@pytest.mark.parametrize("name", slow_except(TOKENIZERS, "bert-base-uncased", "roberta-base"))
def test_every_gold_word_of_chinese_gsd_has_its_tokens(
    real_tokenizers: dict[str, TextTokenizer], chinese: list[tuple[str, Ranges]], name: str
) -> None:
    assert len(chinese) == 1_000
    total, missed = count_aligned(real_tokenizers[name], chinese)
    print(f"\nUD Chinese GSDSimp, {name}: {total - len(missed):,} of {total:,} words")  # noqa: T201 - quoted
    assert total == 12_663 + 12_012
    assert missed == []


# --- XQuAD -----------------------------------------------------------------------------------------------------------


def paragraphs(path: Path) -> list[tuple[str, Ranges]]:
    """Each paragraph and the characters of its answers."""
    items = []
    for article in json.loads(path.read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            answers = [answer for question in paragraph["qas"] for answer in question["answers"]]
            ranges = [(answer["answer_start"], answer["answer_start"] + len(answer["text"])) for answer in answers]
            assert [paragraph["context"][begin:end] for begin, end in ranges] == [a["text"] for a in answers]
            items.append((paragraph["context"], ranges))
    return items


@pytest.mark.parametrize("name", stress_except(TOKENIZERS, usual=[], slow=USUAL))
def test_every_answer_of_xquad_is_covered_by_its_tokens(
    real_tokenizers: dict[str, TextTokenizer], shared_data: Path, name: str
) -> None:
    for language in LANGUAGES:
        items = paragraphs(shared_data / f"xquad_paragraphs/xquad.{language}.json")
        total, missed = count_aligned(real_tokenizers[name], items)
        print(f"\nXQuAD {language}, {name}: {total - len(missed):,} of {total:,} answers")  # noqa: T201 - quoted
        assert total == 1_190
        assert missed == []


# --- any text --------------------------------------------------------------------------------------------------------

PIECES = st.one_of(
    st.characters(),
    st.sampled_from([*"ab 1.\t\n\0\x1c", "\u00a0", "\u3000", "\u2028", "\u200b", "\u200d", "\ufe0f", "\ufeff"]),
    st.sampled_from(
        ["\u0301", "\u0323", "e\u0301\u0323", "\u1e69", "\u0130", "\ufb01", "\u00bd", "\u2126", "\u1100\u1161"]
    ),
    st.sampled_from(
        ["\U0001f926\U0001f3fc\u200d\u2642\ufe0f", "\U0001f1e9\U0001f1ea", "\U0001d518", "\ud83d", "\udc00"]
    ),
    st.sampled_from(
        ["\u4f60\u597d", "\u3042", "\uac00", "\u05e9\u05dc\u05d5\u05dd", "\u0639\u0627\u0644\u064d", "\u0bb8\u0bcd"]
    ),
    st.sampled_from(["12,345.67", "don't", "[SEP]", " [MASK] ", "</s>", "<mask>", "<unk>", "[UNK]", "gonna", "  "]),
)


def naive_rows(text_range: tuple[int, int], offsets: Ranges) -> list[int]:
    wanted = set(range(*text_range))
    rows = [row for row, (begin, end) in enumerate(offsets) if not wanted.isdisjoint(range(begin, end))]
    return [rows[0], rows[-1] + 1] if rows else [0, 0]


@pytest.mark.parametrize("name", slow_except(TOKENIZERS, *USUAL))
@settings(max_examples=80, deadline=None)
@given(
    text=st.lists(PIECES, max_size=25).map("".join), ranges=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)))
)
def test_any_text_is_aligned_character_by_character(
    real_tokenizers: dict[str, TextTokenizer], name: str, text: str, ranges: Ranges
) -> None:
    encoded = real_tokenizers[name].encode([text], offsets=True)[0]
    assert encoded.offsets is not None
    assert encoded.input_ids.tolist() == real_tokenizers[name].encode([text])[0].input_ids.tolist()
    assert not encoded.offsets[: encoded.content[0]].any()
    assert not encoded.offsets[encoded.content[1] :].any()
    assert encoded.offsets.max() <= len(text)
    words = whitespace_words(text).tolist()
    wanted = [*words, *((min(pair), max(pair)) for pair in ranges)]
    offsets = [(begin, end) for begin, end in encoded.offsets.tolist()]
    assert rows_under(int_rows(wanted), encoded.offsets).tolist() == [naive_rows(one, offsets) for one in wanted]


@pytest.mark.parametrize("name", slow_except(TOKENIZERS, *USUAL))
@pytest.mark.parametrize("piece", ["ab", "\u4f60", "\U0001f926", "e\u0301", "1", "[SEP]", "\u200d"])
def test_a_word_of_ten_thousand_characters(real_tokenizers: dict[str, TextTokenizer], name: str, piece: str) -> None:
    word = (piece * 10_000)[:10_000]
    encoded = real_tokenizers[name].encode([f"The {word} end"], offsets=True)[0]
    assert encoded.offsets is not None
    before, long, after = rows_under(whitespace_words(f"The {word} end"), encoded.offsets).tolist()
    begin, end = encoded.content
    assert before == [begin, begin + 1]
    assert after == [end - 1, end]
    if long == [0, 0]:
        assert piece == "\u200d"  # normalizers drop it; byte-level tokenizers have none that does
        assert name not in ("roberta-base", "ModernBERT")
        return
    # nothing but the space before the word, as a token of its own, may stand between
    assert long[1] == after[0]
    assert encoded.offsets[before[1] : long[0]].tolist() in ([], [[3, 4]], [[4, 4]])


@pytest.mark.parametrize(
    ("name", "model_type"),
    [
        pytest.param("bert-base-uncased", "bert", marks=pytest.mark.slow),
        ("roberta-base", "roberta"),
        pytest.param("modernbert-large", "modernbert", marks=pytest.mark.slow),
    ],
)
def test_the_words_of_english_ewt_are_encoded_as_by_transformers(
    shared_data: Path, tmp_path: Path, name: str, model_type: str
) -> None:
    transformers = pytest.importorskip("transformers", minversion="5")
    shutil.copytree(shared_data / "tokenizers" / name, tmp_path, dirs_exist_ok=True, copy_function=shutil.copyfile)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}), encoding="utf-8")
    spaced = {"add_prefix_space": True} if model_type == "roberta" else {}
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, **spaced)
    if model_type == "modernbert":
        # transformers 5 takes the option and does nothing for a tokenizer without a class of its own; 4 did this
        theirs.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    texts = sentences(shared_data / "ud_english_ewt/en_ewt-ud-dev.conllu")
    lists = [[text[begin:end] for begin, end in ranges] for text, ranges in texts]
    expected = theirs(lists, is_split_into_words=True, return_offsets_mapping=True, verbose=False)
    found = TextTokenizer.load(tmp_path, model_type=model_type).encode_words(lists)
    for i, encoded in enumerate(found):
        assert encoded.word_ids is not None
        assert encoded.offsets is not None
        assert encoded.input_ids.tolist() == expected["input_ids"][i]
        assert encoded.word_ids.tolist() == [-1 if word is None else word for word in expected.word_ids(i)]
        assert encoded.offsets.tolist() == [list(pair) for pair in expected["offset_mapping"][i]]
        rows = rows_of_words(encoded.word_ids, len(lists[i]))
        assert (rows[:, 0] < rows[:, 1]).all()
        # the words' rows are the content, one after the other
        np.testing.assert_array_equal(rows[1:, 0], rows[:-1, 1])
        assert (rows[0, 0], rows[-1, 1]) == encoded.content
