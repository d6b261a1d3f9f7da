"""Files that are missing, damaged or of a kind that is not supported: one clear message each."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from layertap.errors import TokenizerError
from layertap.text.tokenizer import TextTokenizer
from tests.writing import write

VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##b", "b"]
ROBERTA = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "a": 4, "b": 5, "ab": 6, "<mask>": 7}


def fill(folder: Path, **files: object) -> Path:
    """Write files whose names have `__` in the place of the dot."""
    for name, content in files.items():
        write(folder / name.replace("__", "."), content)
    return folder


def vocab_txt(tokens: list[str], newline: str = "\n") -> bytes:
    return "".join(token + newline for token in tokens).encode()


def ids(folder: Path, text: str) -> list[int]:
    return TextTokenizer.load(folder, model_type="bert").encode([text])[0].input_ids.tolist()


@pytest.mark.parametrize(
    "data",
    [
        vocab_txt(VOCAB),
        vocab_txt(VOCAB)[:-1],
        vocab_txt(VOCAB, "\r\n"),
        b"\xef\xbb\xbf" + vocab_txt(VOCAB),
        vocab_txt([token + " " for token in VOCAB]),
        vocab_txt(VOCAB) + b"\n\n",
    ],
    ids=["plain", "no last newline", "CRLF", "BOM", "spaces", "empty lines"],
)
def test_vocab_txt_as_editors_leave_it(tmp_path: Path, data: bytes) -> None:
    assert ids(fill(tmp_path, vocab__txt=data), "ab b [PAD]") == [2, 5, 6, 7, 0, 3]


def test_of_a_repeated_token_the_last_line_counts(tmp_path: Path) -> None:
    assert ids(fill(tmp_path, vocab__txt=vocab_txt([*VOCAB, "a"])), "a") == [2, 8, 3]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"no tokenizer\.json, and not the vocab\.txt of BertTokenizer"),
        ({"vocab__txt": b"[PAD]\n[UNK]\n\xff\xfe\n"}, r"vocab\.txt: line 3 is not UTF-8"),
        ({"vocab__txt": b""}, r"vocab\.txt: unk_token '\[UNK\]' is not in the vocabulary"),
        ({"vocab__txt": vocab_txt([t for t in VOCAB if t != "[CLS]"])}, r"vocab\.txt: cls_token '\[CLS\]' is not"),
        ({"vocab__txt": vocab_txt([t.lower() for t in VOCAB])}, r"unk_token.*say so in tokenizer_config\.json"),
        ({"tokenizer__json": "{"}, r"tokenizer\.json: not usable as a tokenizer: .*line 1 column 1"),
        ({"tokenizer__json": ""}, r"tokenizer\.json: not usable as a tokenizer: .*EOF .*line 1"),
        ({"tokenizer__json": '{\n"version": "1.0"}'}, r"tokenizer\.json: .*line 2"),
        ({"tokenizer__json": b"\xff\xfe\x00"}, r"tokenizer\.json: not usable"),
        ({"spiece__model": b"x"}, r"a SentencePiece model \(spiece\.model\).*save_pretrained.*tokenizer\.json"),
        ({"sentencepiece__bpe__model": b"x"}, r"\(sentencepiece\.bpe\.model\)"),
        ({"vocab__json": ROBERTA, "merges__txt": "a b\n"}, r"not the vocab\.txt of BertTokenizer"),
    ],
)
def test_unusable_vocabularies_of_bert(tmp_path: Path, files: dict[str, object], message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        TextTokenizer.load(fill(tmp_path, **files), model_type="bert")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"vocab__json": ROBERTA}, r"not the vocab\.json and merges\.txt of RobertaTokenizer"),
        ({"vocab__txt": vocab_txt(VOCAB)}, r"not the vocab\.json and merges\.txt of RobertaTokenizer"),
        ({"vocab__json": '{"a": 0,\n"b" 1}', "merges__txt": ""}, r"vocab\.json: not valid JSON at line 2, column 5"),
        ({"vocab__json": [1], "merges__txt": ""}, r"vocab\.json: expected a JSON object, found list"),
        ({"vocab__json": {"a": "x"}, "merges__txt": ""}, r"vocab\.json and .*merges\.txt: not usable"),
        ({"vocab__json": ROBERTA, "merges__txt": "#version: 0.2\na b\nab\n"}, r"merges\.txt: line 3: .*found 'ab'"),
        ({"vocab__json": ROBERTA, "merges__txt": "a b c\n"}, r"merges\.txt: line 1: expected two tokens"),
        ({"vocab__json": ROBERTA, "merges__txt": b"a b\n\xff b\n"}, r"merges\.txt: line 2 is not UTF-8"),
        ({"vocab__json": ROBERTA, "merges__txt": "a c\n"}, r"merges\.txt: .*out of vocabulary"),
        ({"vocab__json": {"a": 0}, "merges__txt": ""}, r"vocab\.json: unk_token '<unk>' is not in the vocabulary"),
    ],
)
def test_unusable_vocabularies_of_roberta(tmp_path: Path, files: dict[str, object], message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        TextTokenizer.load(fill(tmp_path, **files), model_type="roberta")


@pytest.mark.parametrize(
    ("model_type", "file"),
    [
        ("xlm-roberta", "sentencepiece.bpe.model"),
        ("camembert", "sentencepiece.bpe.model"),
        ("albert", "spiece.model"),
        ("deberta-v2", "spm.model"),
    ],
)
def test_a_lone_sentencepiece_model_is_refused_with_the_way_out(tmp_path: Path, model_type: str, file: str) -> None:
    with pytest.raises(TokenizerError, match=f"{re.escape(file)}.*convert it once"):
        TextTokenizer.load(fill(tmp_path, **{file.replace(".", "__"): b"x"}), model_type=model_type)


def test_settings_of_albert_that_are_not_flags(tmp_path: Path) -> None:
    backend = Tokenizer(models.Unigram([("<pad>", 0.0), ("<unk>", 0.0), ("[CLS]", 0.0), ("[SEP]", 0.0)], unk_id=1))
    backend.save(str(tmp_path / "tokenizer.json"))
    for name in ("do_lower_case", "keep_accents", "add_prefix_space"):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({name: "no"}), encoding="utf-8")
        with pytest.raises(TokenizerError, match=f"{name}: expected true or false, found 'no'"):
            TextTokenizer.load(tmp_path, model_type="albert")


def test_an_unknown_id_of_deberta_beyond_its_vocabulary(tmp_path: Path) -> None:
    backend = Tokenizer(models.Unigram([("[PAD]", -1.0), ("[CLS]", -1.0), ("[SEP]", -1.0), ("[UNK]", -1.0)], unk_id=3))
    backend.save(str(tmp_path / "tokenizer.json"))
    for value in (4, -1, "3", True):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"unk_id": value}), encoding="utf-8")
        with pytest.raises(TokenizerError, match="unk_id: expected the id of the unknown token, below 4, found"):
            TextTokenizer.load(tmp_path, model_type="deberta-v2")


def test_a_vocabulary_of_albert_without_its_template(tmp_path: Path) -> None:
    backend = Tokenizer(models.Unigram([("<pad>", 0.0), ("<unk>", 0.0), ("[CLS]", 0.0)], unk_id=1))
    backend.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(TokenizerError, match=r"sep_token '\[SEP\]' is not in the vocabulary"):
        TextTokenizer.load(tmp_path, model_type="albert")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"tokenizer_config__json": "{"}, r"tokenizer_config\.json: not valid JSON at line 1, column 2"),
        ({"tokenizer_config__json": b'{"a": "\xff"}'}, r"tokenizer_config\.json: not valid JSON"),
        ({"tokenizer_config__json": "[" * 100_000}, r"tokenizer_config\.json: not valid JSON"),
        ({"tokenizer_config__json": []}, r"tokenizer_config\.json: expected a JSON object, found list"),
        ({"tokenizer_config__json": {"do_lower_case": "no"}}, r"config\.json: do_lower_case: expected true or false"),
        ({"tokenizer_config__json": {"strip_accents": 1}}, r"config\.json: strip_accents: .*found 1"),
        ({"tokenizer_config__json": {"tokenizer_class": 1}}, r"config\.json: tokenizer_class: expected a name"),
        ({"tokenizer_config__json": {"cls_token": 1}}, r"config\.json: cls_token: expected a token, found 1"),
        ({"tokenizer_config__json": {"cls_token": {"content": ""}}}, r"cls_token: expected a token"),
        ({"tokenizer_config__json": {"cls_token": {"content": "a", "lstrip": 1}}}, r"cls_token: expected a token"),
        ({"tokenizer_config__json": {"cls_token": "[NO]"}}, r"vocab\.txt: cls_token '\[NO\]' is not in the voc"),
        ({"tokenizer_config__json": {"extra_special_tokens": "x"}}, r"extra_special_tokens: expected a list"),
        ({"tokenizer_config__json": {"added_tokens_decoder": []}}, r"added_tokens_decoder: expected an object"),
        ({"tokenizer_config__json": {"added_tokens_decoder": {"0": 1}}}, r"added_tokens_decoder\[0\]: expected a tok"),
        (
            {"tokenizer_config__json": {"added_tokens_decoder": {"99": {"content": "<e>"}}}},
            r"'<e>' is declared as id 99, and the vocabulary leads to 8",
        ),
        ({"special_tokens_map__json": "["}, r"special_tokens_map\.json: not valid JSON at line 1"),
        ({"special_tokens_map__json": {"sep_token": 1}}, r"special_tokens_map\.json: sep_token: expected a token"),
        ({"added_tokens__json": {"<e>": "8"}}, r"added_tokens\.json: '<e>': expected a token and its id, found '8'"),
        ({"tokenizer_config__json": {"tokenizer_class": "BertJapaneseTokenizer"}}, r"Python only.*MeCab"),
        ({"tokenizer_config__json": {"tokenizer_class": "HerbertTokenizerFast"}}, r"HerbertTokenizer cannot be built"),
    ],
)
def test_unusable_settings(tmp_path: Path, files: dict[str, object], message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        TextTokenizer.load(fill(tmp_path, vocab__txt=vocab_txt(VOCAB), **files), model_type="bert")


def test_a_declared_id_does_not_move_a_token_of_the_vocabulary(tmp_path: Path) -> None:
    config = {"added_tokens_decoder": {"101": {"content": "[CLS]", "special": True}}}
    assert ids(fill(tmp_path, vocab__txt=vocab_txt(VOCAB), tokenizer_config__json=config), "a") == [2, 5, 3]


@pytest.fixture(scope="module")
def whole_files(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str, bytes]]:
    """(model_type, file name, content) of small tokenizer.json files."""
    bert = fill(tmp_path_factory.mktemp("bert"), vocab__txt=vocab_txt(VOCAB))
    roberta = fill(tmp_path_factory.mktemp("roberta"), vocab__json=ROBERTA, merges__txt="a b\n")
    return [
        (model_type, "tokenizer.json", TextTokenizer.load(folder, model_type=model_type).backend.to_str().encode())
        for model_type, folder in (("bert", bert), ("roberta", roberta))
    ]


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_damage_gives_a_tokenizer_or_a_tokenizer_error(
    tmp_path_factory: pytest.TempPathFactory, whole_files: list[tuple[str, str, bytes]], data: st.DataObject
) -> None:
    model_type, name, content = data.draw(st.sampled_from(whole_files))
    begin = data.draw(st.integers(0, len(content)))
    end = data.draw(st.one_of(st.just(len(content)), st.integers(begin, min(begin + 30, len(content)))))
    damage = data.draw(st.sampled_from([b"", b"0", b"-1", b"null", b"[]", b"{}", b'"', b"}", b"\xff", b"[CLS]", b"99"]))
    folder = tmp_path_factory.getbasetemp() / "damaged"
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(content[:begin] + damage + content[end:])
    try:
        TextTokenizer.load(folder, model_type=model_type).encode(["ab b <s> [UNK] z", ""])
    except TokenizerError as error:
        assert name in str(error)  # noqa: PT017 - both outcomes are right


def test_a_vocabulary_of_another_kind_is_used_as_it_stands(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models

    Tokenizer(models.WordLevel({"a": 0}, unk_token="a")).save(str(tmp_path / "tokenizer.json"))
    tokenizer = TextTokenizer.load(tmp_path, model_type="bert")
    assert tokenizer.cls_index is None
    assert tokenizer.encode(["b"])[0].input_ids.tolist() == [0]


def test_an_empty_vocabulary_is_refused(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models

    Tokenizer(models.BPE()).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(TokenizerError, match=r"tokenizer\.json: its vocabulary is empty"):
        TextTokenizer.load(tmp_path, model_type="other")


def test_a_vocabulary_without_its_unknown_token_is_named_when_it_is_missed(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models

    Tokenizer(models.WordLevel({"a": 0}, unk_token="u")).save(str(tmp_path / "tokenizer.json"))
    tokenizer = TextTokenizer.load(tmp_path, model_type="other")
    assert tokenizer.encode(["a"])[0].input_ids.tolist() == [0]
    with pytest.raises(TokenizerError, match=r"tokenizer\.json: "):
        tokenizer.encode(["b"])
