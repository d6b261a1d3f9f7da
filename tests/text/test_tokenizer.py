"""What a `TextTokenizer` does by itself; that it equals transformers' is tested in test_tokenizer_parity.py."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors

from layertap.errors import TokenizerError, UsageError
from layertap.models.registry import ARCHITECTURES
from layertap.text.styles import AS_IT_STANDS, CLASS_OF, GENERIC, PYTHON_ONLY, STYLES
from layertap.text.tokenizer import TextTokenizer
from layertap.text.word_table import fitted

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*SPECIALS, *"abcdefghij", *(f"##{c}" for c in "abcdefghij"), "A", "##A", "\u4f60", "\u597d", "\ufffd", "!"]


def write_bert(folder: Path, **config: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    if config:
        (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def write_roberta(folder: Path, **config: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *alphabet, "ab", "\u0120ab", "<mask>"]
    vocab = {token: i for i, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\na b\n\u0120 ab\n", encoding="utf-8")
    if config:
        (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def write_word_level(folder: Path, single: list[str], **config: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    vocab = {token: i for i, token in enumerate(["<unk>", "<sep>", "<cls>", "a", "b"])}
    backend = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(["<unk>", "<sep>", "<cls>"])
    if single:
        specials = [(token, vocab[token]) for token in ("<sep>", "<cls>")]
        backend.post_processor = processors.TemplateProcessing(single=single, special_tokens=specials)
    backend.save(str(folder / "tokenizer.json"))
    if config:
        (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    return TextTokenizer.load(write_bert(tmp_path_factory.mktemp("bert")), model_type="bert")


@pytest.fixture(scope="module")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    return TextTokenizer.load(write_roberta(tmp_path_factory.mktemp("roberta")), model_type="roberta")


def ids(tokenizer: TextTokenizer, text: str) -> list[int]:
    return tokenizer.encode([text])[0].input_ids.tolist()


def tokens(tokenizer: TextTokenizer, text: str) -> list[str | None]:
    return [tokenizer.backend.id_to_token(i) for i in ids(tokenizer, text)]


def test_bert_facts(bert: TextTokenizer) -> None:
    assert (bert.prefix, bert.suffix, bert.num_special_tokens, bert.cls_index) == ((2,), (3,), 2, 0)
    assert bert.special_ids == {0, 1, 2, 3, 4}
    assert bert.max_id == len(WORDS) - 1
    assert [path.name for path in bert.files] == ["vocab.txt"]
    assert tokens(bert, "abA \u4f60\u597d!") == ["[CLS]", "a", "##b", "##a", "\u4f60", "\u597d", "!", "[SEP]"]


def test_roberta_facts(roberta: TextTokenizer) -> None:
    assert (roberta.prefix, roberta.suffix, roberta.num_special_tokens, roberta.cls_index) == ((0,), (2,), 2, 0)
    assert roberta.special_ids == {0, 1, 2, 3, roberta.max_id}
    assert [path.name for path in roberta.files] == ["vocab.json", "merges.txt"]
    assert tokens(roberta, "ab ab") == ["<s>", "ab", "\u0120ab", "</s>"]


def test_the_config_decides_casing_accents_and_chinese(tmp_path: Path) -> None:
    cased = TextTokenizer.load(write_bert(tmp_path / "1", do_lower_case=False), model_type="bert")
    assert tokens(cased, "aA") == ["[CLS]", "a", "##A", "[SEP]"]
    assert tokens(cased, "\u00e1") == ["[CLS]", "[UNK]", "[SEP]"]
    stripped = TextTokenizer.load(
        write_bert(tmp_path / "2", do_lower_case=False, strip_accents=True, tokenize_chinese_chars=False),
        model_type="bert",
    )
    assert tokens(stripped, "\u00e1 \u4f60\u597d") == ["[CLS]", "a", "[UNK]", "[SEP]"]
    assert [path.name for path in stripped.files] == ["vocab.txt", "tokenizer_config.json"]


def test_truncation_and_padding_of_tokenizer_json_are_off(tmp_path: Path, bert: TextTokenizer) -> None:
    backend = Tokenizer.from_str(bert.backend.to_str())
    backend.enable_truncation(4)
    backend.enable_padding(length=8)
    backend.save(str(tmp_path / "tokenizer.json"))
    loaded = TextTokenizer.load(tmp_path, model_type="bert")
    assert ids(loaded, "a b c d e f g h i j") == ids(bert, "a b c d e f g h i j")
    assert ids(loaded, "a") == ids(bert, "a")
    assert loaded.notes == ()


def test_the_class_wins_over_tokenizer_json_and_says_so(tmp_path: Path, bert: TextTokenizer) -> None:
    bert.backend.save(str(tmp_path / "tokenizer.json"))
    config = tmp_path / "tokenizer_config.json"
    config.write_text('{"do_lower_case": false, "tokenizer_class": "BertTokenizer"}', encoding="utf-8")
    cased = TextTokenizer.load(tmp_path, model_type="bert")
    assert tokens(cased, "aA") == ["[CLS]", "a", "##A", "[SEP]"]
    assert len(cased.notes) == 1
    assert "normalizer" in cased.notes[0]
    assert "BertTokenizer" in cased.notes[0]
    config.write_text('{"do_lower_case": false, "tokenizer_class": "PreTrainedTokenizerFast"}', encoding="utf-8")
    as_stored = TextTokenizer.load(tmp_path, model_type="bert")
    assert tokens(as_stored, "aA") == ["[CLS]", "a", "##a", "[SEP]"]
    assert as_stored.notes == ()


def test_the_class_of_config_json_is_second_to_that_of_tokenizer_config(tmp_path: Path) -> None:
    folder = write_bert(tmp_path / "1")
    found = TextTokenizer.load(folder, model_type="roberta", tokenizer_class="BertTokenizerFast")
    assert tokens(found, "a") == ["[CLS]", "a", "[SEP]"]
    write_bert(tmp_path / "2", tokenizer_class="BertTokenizer")
    found = TextTokenizer.load(tmp_path / "2", model_type="roberta", tokenizer_class="RobertaTokenizer")
    assert tokens(found, "a") == ["[CLS]", "a", "[SEP]"]


def test_split_special_tokens_is_honoured(tmp_path: Path) -> None:
    split = TextTokenizer.load(write_bert(tmp_path, split_special_tokens=True), model_type="bert")
    assert "[SEP]" not in tokens(split, "a [SEP] b")[:-1]
    assert split.encode(["a [SEP] b"])[0].typed_specials == 0


@pytest.mark.parametrize(
    ("single", "config", "prefix", "suffix", "cls_index"),
    [
        ([], {}, (), (), None),
        (["$A", "<sep>", "<cls>"], {}, (), (1, 2), -1),
        (["$A", "<cls>", "<sep>"], {}, (), (2, 1), -2),
        (["<sep>", "<cls>", "$A"], {}, (1, 2), (), 1),
        (["<sep>", "$A"], {}, (1,), (), None),
        (["<sep>", "$A"], {"cls_token": "<sep>"}, (1,), (), 0),
        (["<cls>", "$A"], {"cls_token": "<sep>"}, (2,), (), None),
    ],
)
def test_templates(
    tmp_path: Path,
    single: list[str],
    config: dict[str, str],
    prefix: tuple[int, ...],
    suffix: tuple[int, ...],
    cls_index: int | None,
) -> None:
    tokenizer = TextTokenizer.load(write_word_level(tmp_path, single, **config), model_type="other")
    assert (tokenizer.prefix, tokenizer.suffix, tokenizer.cls_index) == (prefix, suffix, cls_index)
    empty, text = tokenizer.encode(["", "a b"])
    assert empty.input_ids.tolist() == [*prefix, *suffix]
    assert empty.content == (len(prefix), len(prefix))
    assert text.input_ids.tolist() == [*prefix, 3, 4, *suffix]
    assert text.content == (len(prefix), len(prefix) + 2)


@pytest.mark.parametrize("single", [["<cls>", "$A", "$A"], ["<cls>", "<sep>"]])
def test_a_template_that_repeats_or_drops_the_text_is_refused(tmp_path: Path, single: list[str]) -> None:
    with pytest.raises(TokenizerError, match=r"tokenizer\.json.*holds a text (2|0) times"):
        TextTokenizer.load(write_word_level(tmp_path, single), model_type="other")


def test_typed_special_tokens_are_content_and_counted(bert: TextTokenizer, roberta: TextTokenizer) -> None:
    texts = ["[CLS] a [SEP]", "a b", "", "[MASK][PAD]", "[cls]", "[UNK] z [UNK]", "z z z", "[UNK]"]
    found = bert.encode(texts)
    assert [text.typed_specials for text in found] == [2, 0, 0, 2, 0, 2, 0, 1]
    assert found[0].input_ids.tolist() == [2, 2, WORDS.index("a"), 3, 3]
    assert found[0].content == (1, 4)
    assert found[5].input_ids.tolist() == [2, 1, 1, 1, 3]
    assert [text.typed_specials for text in roberta.encode(["a<mask>b", "<s>", "<S>", " <unk> "])] == [1, 1, 0, 1]


def test_a_stripping_unknown_token_is_counted_too(tmp_path: Path, bert: TextTokenizer) -> None:
    backend = Tokenizer.from_str(bert.backend.to_str())
    backend.add_special_tokens([AddedToken("[UNK]", lstrip=True, rstrip=True, special=True)])
    backend.save(str(tmp_path / "tokenizer.json"))
    config = {"tokenizer_class": "TokenizersBackend", "unk_token": "[UNK]"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    tokenizer = TextTokenizer.load(tmp_path, model_type="bert")
    assert tokenizer.encode(["a  [UNK]  z"])[0].typed_specials == 1


def test_unknown_words_are_not_typed_specials_whatever_the_model(tmp_path: Path) -> None:
    word_level = TextTokenizer.load(write_word_level(tmp_path, ["<cls>", "$A"]), model_type="other")
    assert word_level.unknown == {"<unk>": 0}
    found = word_level.encode(["a q", "a <unk>", "q <sep> <unk>"])
    assert [text.typed_specials for text in found] == [0, 1, 2]

    unigram = tmp_path / "unigram"
    unigram.mkdir()
    backend = Tokenizer(models.Unigram([("<s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0), ("a", -2.0)], unk_id=1))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.add_special_tokens(["<s>", "<unk>"])
    backend.save(str(unigram / "tokenizer.json"))
    tokenizer = TextTokenizer.load(unigram, model_type="other")
    assert tokenizer.unknown == {"<unk>": 1}
    found = tokenizer.encode(["a q", "a <unk>", "q <s> <unk>"])
    assert [text.typed_specials for text in found] == [0, 1, 2]


def test_other_sequences_of_texts(bert: TextTokenizer) -> None:
    for texts in (("a", "b"), np.array(["a", "b"]), np.array(["a", "b"], dtype=object)):
        assert [text.input_ids.tolist() for text in bert.encode(texts)] == [ids(bert, "a"), ids(bert, "b")]


def test_lone_surrogates_become_replacement_characters(bert: TextTokenizer) -> None:
    found = bert.encode(["a", "a \ud800 \udfff", "\udc80", "b"])
    assert [text.replaced_surrogates for text in found] == [0, 2, 1, 0]
    plain = bert.encode(["a", "a \ufffd \ufffd", "\ufffd", "b"])
    assert [text.input_ids.tolist() for text in found] == [text.input_ids.tolist() for text in plain]
    assert [text.replaced_surrogates for text in plain] == [0, 0, 0, 0]


PIECES = st.one_of(
    st.characters(),
    st.characters(categories=["Cs"]),
    st.sampled_from([*SPECIALS, *"abcdefghij \n\0", "<mask>", " <s>"]),
)
TEXTS = st.lists(PIECES, max_size=20).map("".join)


@settings(max_examples=100, deadline=None)
@given(texts=st.lists(TEXTS, max_size=5))
def test_a_text_is_the_same_alone_and_in_company(bert: TextTokenizer, roberta: TextTokenizer, texts: list[str]) -> None:
    for tokenizer in (bert, roberta):
        together = tokenizer.encode(texts)
        assert len(together) == len(texts)
        for text, found in zip(texts, together, strict=True):
            (alone,) = tokenizer.encode([text])
            assert found.input_ids.tolist() == alone.input_ids.tolist()
            assert found.input_ids.dtype == np.int32
            assert (found.content, found.typed_specials) == (alone.content, alone.typed_specials)
            assert found.replaced_surrogates == sum("\ud800" <= c <= "\udfff" for c in text)
            begin, end = found.content
            assert tuple(found.input_ids[:begin].tolist()) == tokenizer.prefix
            assert tuple(found.input_ids[end:].tolist()) == tokenizer.suffix
            assert found.input_ids.max() <= tokenizer.max_id


def test_odd_but_defined_texts(bert: TextTokenizer, roberta: TextTokenizer) -> None:
    assert bert.encode([]) == []
    assert [ids(bert, text) for text in ("", " ", "\n\t ", "\0")] == [[2, 3]] * 4
    assert ids(bert, "a\0b") == ids(bert, "ab")
    assert len(ids(roberta, "\0")) == 3
    assert ids(bert, np.str_("a b")) == ids(bert, "a b")
    assert ids(bert, "a" * 101) == [2, 1, 3]


def test_a_long_text(bert: TextTokenizer) -> None:
    (text,) = bert.encode(["ab " * 100_000])
    assert len(text) == 200_002
    short = text.limited(512)
    assert len(short) == 512
    assert short.cut_tokens == 200_002 - 512


def test_what_is_not_a_list_of_texts_is_refused(bert: TextTokenizer) -> None:
    with pytest.raises(UsageError, match="put it into a list"):
        bert.encode("a b")
    for wrong in (3, None, ("a", "b"), b"a"):
        with pytest.raises(UsageError, match=f"text 1 is {type(wrong).__name__}, not str"):
            bert.encode(["a", wrong])  # type: ignore[list-item]


def test_lowercased(tmp_path: Path, make_checkpoint: Callable[..., Path]) -> None:
    kept = TextTokenizer.load(make_checkpoint(tmp_path, "roberta"), model_type="roberta")
    lowered = kept.lowercased()
    texts = ["The BANK", "\u03a3\u0391\u03a3 \u0130", "A</s>B <S>"]
    # letter by letter: no final sigma; special tokens are found as they are written
    wanted = ["the bank", "\u03c3\u03b1\u03c3 i\u0307", "a</s>b <s>"]
    found, expected = lowered.encode(texts), kept.encode(wanted)
    for one, other in zip(found[:2], expected[:2], strict=True):
        np.testing.assert_array_equal(one.input_ids, other.input_ids)
    assert (found[2].typed_specials, expected[2].typed_specials) == (1, 2)
    assert not np.array_equal(kept.encode(texts)[0].input_ids, found[0].input_ids)
    again = lowered.lowercased().encode(texts)
    for one, other in zip(found, again, strict=True):
        np.testing.assert_array_equal(one.input_ids, other.input_ids)


def test_check_fits(bert: TextTokenizer, tmp_path: Path) -> None:
    assert fitted(bert, len(WORDS)).notes == fitted(bert, len(WORDS) + 8).notes == bert.notes
    with pytest.raises(
        TokenizerError, match=rf"vocab\.txt: expected ids .* table of {len(WORDS) - 2}, found 2 tokens beyond it"
    ):
        fitted(bert, len(WORDS) - 2)
    folder = write_bert(tmp_path)
    with (folder / "vocab.txt").open("a", encoding="utf-8") as file:
        file.write("\n\n")  # empty lines stand for no token
    fitted(TextTokenizer.load(folder, model_type="bert"), len(WORDS))


def test_several_threads_may_call_it(bert: TextTokenizer) -> None:
    texts = [f"a{'b' * (i % 7)} c {i}" for i in range(300)]
    expected = [text.input_ids.tolist() for text in bert.encode(texts)]
    results: list[list[list[int]]] = []

    def work() -> None:
        results.append([text.input_ids.tolist() for text in bert.encode(texts)])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 4


def test_the_tables_fit_together() -> None:
    assert set(CLASS_OF) <= set(ARCHITECTURES)
    assert set(CLASS_OF.values()) <= set(STYLES)
    assert set(AS_IT_STANDS) <= set(ARCHITECTURES) - set(CLASS_OF)
    assert not set(STYLES) & (set(GENERIC) | set(PYTHON_ONLY))
    assert list(STYLES) == sorted(STYLES, key=str.lower)
