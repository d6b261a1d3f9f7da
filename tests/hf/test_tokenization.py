"""Our tokenizers against transformers': calls, padding, truncation, conversions, files."""

from __future__ import annotations

import copy
import json
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

import layertap.hf as hf  # noqa: E402
from layertap.errors import OptionError, OutputError, TokenizerError, UnsupportedModelError  # noqa: E402

TEXTS = [
    "Hello world, this isn't a good film!",
    "The bank of the river [SEP] money </s> <pad>",
    "",
    "caf\u00e9 \u4f60\u597d \U0001f600",
    "  spaces   and\ttabs\n",
]
LONG = ["a good story about the river", "money of the bank and other things", "what a dull movie that was"]
KINDS = ("bert", "roberta")


@pytest.fixture(scope="session")
def tokenizers(checkpoint):
    """(transformers' tokenizer, ours)."""

    def get(kind: str, **keywords):
        folder = checkpoint(kind)
        return (
            transformers.AutoTokenizer.from_pretrained(folder, **keywords),
            hf.AutoTokenizer.from_pretrained(folder, **keywords),
        )

    return get


def assert_same(ours, theirs):
    assert list(ours.keys()) == list(theirs.keys())
    for name, expected in theirs.items():
        found = ours[name]
        assert type(found) is type(expected), name
        if isinstance(expected, list):
            assert found == expected, name
        else:
            assert found.dtype == expected.dtype, name
            assert np.array_equal(np.asarray(found), np.asarray(expected)), name


CALLS = [
    {},
    {"add_special_tokens": False},
    {"padding": True},
    {"padding": "longest", "return_tensors": "pt"},
    {"padding": True, "return_tensors": "np", "pad_to_multiple_of": 8},
    {"padding": "max_length", "max_length": 30, "truncation": True},
    {"padding": "max_length"},
    {"padding": True, "padding_side": "left"},
    {"truncation": True, "max_length": 5},
    {"truncation": "longest_first"},
    {"truncation": "do_not_truncate", "padding": "do_not_pad"},
    {"max_length": 4},
    {"max_length": 6, "padding": True, "truncation": True, "return_tensors": "pt"},
    {"return_offsets_mapping": True, "return_special_tokens_mask": True, "return_length": True},
    {"return_attention_mask": False, "return_token_type_ids": True},
    {"return_token_type_ids": False},
    {"truncation": True, "max_length": 6, "stride": 2, "return_overflowing_tokens": True},
    {
        "truncation": True,
        "max_length": 6,
        "return_overflowing_tokens": True,
        "padding": True,
        "return_tensors": "pt",
        "return_offsets_mapping": True,
    },
]


@pytest.mark.parametrize("keywords", CALLS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_calls(tokenizers, kind, keywords):
    theirs, ours = tokenizers(kind)
    assert_same(ours(TEXTS, **keywords), theirs(TEXTS, **keywords))
    assert_same(ours(TEXTS[0], **keywords), theirs(TEXTS[0], **keywords))


def test_mpnet(tmp_path):
    letters = "abcdefghijklmnopqrstuvwxyz,!'"
    words = ["<s>", "<pad>", "</s>", "<unk>", "[UNK]", *letters, *(f"##{c}" for c in letters), "film", "<mask>"]
    (tmp_path / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    (tmp_path / "config.json").write_text('{"model_type": "mpnet"}')
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ours = hf.AutoTokenizer.from_pretrained(tmp_path)
    assert type(ours) is hf.MPNetTokenizer
    assert_same(ours(TEXTS, padding=True), theirs(TEXTS, padding=True))
    assert_same(ours(TEXTS, LONG[0:1] * 5), theirs(TEXTS, LONG[0:1] * 5))
    with pytest.raises(UnsupportedModelError, match=r"found mpnet; layertap\.Extractor.from_pretrained runs it"):
        hf.AutoModel.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "keywords",
    [
        {},
        {"truncation": True, "max_length": 9, "padding": True},
        {"truncation": "only_first", "max_length": 40},
        {"truncation": "only_first", "max_length": 40, "stride": 3, "return_overflowing_tokens": True},
        {"truncation": "only_first", "max_length": 40, "return_tensors": "np", "padding": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("first_is_long", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_pairs(tokenizers, kind, keywords, first_is_long):
    theirs, ours = tokenizers(kind)
    keywords = dict(keywords)
    first, second = [" ".join([text] * 5) for text in LONG], LONG[::-1]
    if not first_is_long:
        first, second = second, first
        if keywords.get("truncation") == "only_first":
            keywords["truncation"] = "only_second"
    assert_same(ours(first, second, **keywords), theirs(first, second, **keywords))
    assert_same(ours(first[0], text_pair=second[0], **keywords), theirs(first[0], text_pair=second[0], **keywords))
    pairs = list(zip(first, second, strict=True))
    assert_same(ours(pairs, **keywords), theirs(pairs, **keywords))
    assert ours(pairs, **keywords).sequence_ids(1) == theirs(pairs, **keywords).sequence_ids(1)


def test_words(checkpoint):
    for kind, keywords in (("bert", {}), ("roberta", {"add_prefix_space": True})):
        theirs = transformers.AutoTokenizer.from_pretrained(checkpoint(kind), **keywords)
        ours = hf.AutoTokenizer.from_pretrained(checkpoint(kind), **keywords)
        words = [["Hello", "world"], ["a", "funny", "story!", ""]]
        split = {"is_split_into_words": True}
        assert_same(ours(words, padding=True, **split), theirs(words, padding=True, **split))
        assert_same(ours(words[0], **split), theirs(words[0], **split))
        assert_same(ours(words, words[::-1], **split), theirs(words, words[::-1], **split))
        assert ours(words, **split).word_ids(1) == theirs(words, **split).word_ids(1)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_text_and_lengths(tokenizers, data):
    theirs, ours = tokenizers(data.draw(st.sampled_from(KINDS)))
    letters = st.text(st.characters(codec="utf-8"), max_size=30)
    texts = data.draw(st.lists(letters, min_size=1, max_size=4))
    keywords = {
        "padding": data.draw(st.sampled_from([True, False, "max_length"])),
        "truncation": data.draw(st.sampled_from([True, False])),
        "max_length": data.draw(st.integers(3, 20)),
        "padding_side": data.draw(st.sampled_from(["left", "right"])),
        "verbose": False,
    }
    assert_same(ours(texts, **keywords), theirs(texts, **keywords))
    for text in texts:
        assert ours.tokenize(text) == theirs.tokenize(text)
        ids = ours.encode(text)
        assert ours.decode(ids) == theirs.decode(ids)


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_and_ids(tokenizers, kind):
    theirs, ours = tokenizers(kind)
    for text in TEXTS:
        tokens = ours.tokenize(text)
        assert tokens == theirs.tokenize(text)
        assert ours.tokenize(text, add_special_tokens=True) == theirs.tokenize(text, add_special_tokens=True)
        ids = ours.convert_tokens_to_ids(tokens)
        assert ids == theirs.convert_tokens_to_ids(tokens) == ours.encode(text, add_special_tokens=False)
        assert ours.convert_ids_to_tokens(ids) == tokens == ours.convert_ids_to_tokens(torch.tensor(ids))
        assert ours.convert_tokens_to_string(tokens) == theirs.convert_tokens_to_string(tokens)
        assert ours.encode(text, "film") == theirs.encode(text, "film")
        assert torch.equal(ours.encode(text, return_tensors="pt"), theirs.encode(text, return_tensors="pt"))
    assert ours.convert_tokens_to_ids("no such token") == ours.unk_token_id == theirs.unk_token_id
    assert ours.convert_ids_to_tokens(5) == theirs.convert_ids_to_tokens(5)
    assert ours.convert_ids_to_tokens(10**6) is None
    whole = ours.encode(TEXTS[1])
    assert ours.convert_ids_to_tokens(whole, skip_special_tokens=True) == theirs.convert_ids_to_tokens(
        whole, skip_special_tokens=True
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("clean", [True, False, None])
def test_decoding(tokenizers, kind, skip, clean):
    theirs, ours = tokenizers(kind)
    keywords = {"skip_special_tokens": skip, "clean_up_tokenization_spaces": clean}
    batch = ours(TEXTS, padding=True, return_tensors="pt")["input_ids"]
    expected = theirs.batch_decode(batch, **keywords)
    assert ours.batch_decode(batch, **keywords) == expected
    assert ours.decode(batch, **keywords) == expected
    assert ours.batch_decode(batch.numpy(), **keywords) == expected
    assert ours.decode(batch[0], **keywords) == theirs.decode(batch[0], **keywords)
    assert ours.decode(7, **keywords) == theirs.decode(7, **keywords)
    assert ours.batch_decode([7, 8], **keywords) == [ours.decode([7, 8], **keywords)]


ATTRIBUTES = (
    "vocab_size",
    "vocab",
    "model_max_length",
    "model_input_names",
    "padding_side",
    "truncation_side",
    "special_tokens_map",
    "all_special_tokens",
    "all_special_ids",
    "max_len_single_sentence",
    "max_len_sentences_pair",
    "pad_token_type_id",
    "clean_up_tokenization_spaces",
    "is_fast",
)


@pytest.mark.parametrize("kind", KINDS)
def test_attributes(tokenizers, kind):
    theirs, ours = tokenizers(kind)
    for name in ATTRIBUTES:
        assert getattr(ours, name) == getattr(theirs, name), name
    for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"):
        assert getattr(ours, f"{name}_token") == getattr(theirs, f"{name}_token"), name
        assert getattr(ours, f"{name}_token_id") == getattr(theirs, f"{name}_token_id"), name
    assert len(ours) == len(theirs)
    assert ours.get_vocab() == theirs.get_vocab()
    assert ours.get_added_vocab() == theirs.get_added_vocab()
    assert ours
    assert [ours.num_special_tokens_to_add(pair) for pair in (False, True)] == [
        theirs.num_special_tokens_to_add(pair) for pair in (False, True)
    ]
    ids = ours.encode(TEXTS[0])
    mask = ours.get_special_tokens_mask(ids, already_has_special_tokens=True)
    assert mask == theirs.get_special_tokens_mask(ids, already_has_special_tokens=True)
    assert type(ours).__name__ == type(theirs).__name__
    assert type(ours).__name__ in repr(ours)
    with pytest.raises(AttributeError, match="no_such"):
        _ = ours.no_such


def test_special_tokens_can_be_set(tokenizers):
    _, ours = tokenizers("roberta")
    ours.pad_token = ours.eos_token
    assert ours.pad_token_id == ours.eos_token_id
    assert ours(LONG, padding=True)["input_ids"][0][-1] == ours.eos_token_id
    ours.pad_token_id = 1
    assert ours.pad_token == "<pad>"
    ours.mask_token = None
    assert ours.mask_token is ours.mask_token_id is None
    with pytest.raises(OptionError, match="pad_token: expected a token of the vocabulary, found 'nope'"):
        ours.pad_token = "nope"
    ours.pad_token = None
    with pytest.raises(OptionError, match="no pad_token"):
        ours(LONG, padding=True)
    with pytest.raises(OptionError, match="expected a dictionary"):
        ours.add_special_tokens(["x"])


def test_results(tokenizers):
    theirs, ours = tokenizers("bert")
    found, expected = ours(LONG), theirs(LONG)
    assert found.input_ids == found["input_ids"] == expected.input_ids
    assert dict(found) == dict(expected)
    assert [row.ids for row in found[:2]] == [row.ids for row in expected[:2]]
    assert ours.pad(found)[:2]["input_ids"] == theirs.pad(expected)[:2]["input_ids"]
    assert found[1].tokens == found.tokens(1) == expected.tokens(1)
    assert found.word_ids(2) == expected.word_ids(2)
    assert found.char_to_token(1, 3) == expected.char_to_token(1, 3)
    assert found.char_to_token(4) == expected.char_to_token(4)
    assert found.token_to_chars(1, 2) == tuple(expected.token_to_chars(1, 2))
    assert found.token_to_chars(0) is None
    assert found.is_fast
    assert "input_ids" in found
    with pytest.raises(AttributeError, match="labels"):
        _ = found.labels
    tensors = ours(LONG, padding=True, return_tensors="pt")
    assert tensors.to("meta") is tensors
    assert tensors["input_ids"].device.type == "meta"
    tensors["labels"] = 1
    assert tensors.labels == 1
    assert ours([])["input_ids"] == []


def test_the_result_runs_a_model(checkpoint):
    for kind in KINDS:
        model = hf.AutoModel.from_pretrained(checkpoint(kind))
        tokenizer = hf.AutoTokenizer.from_pretrained(checkpoint(kind))
        assert model(**tokenizer(LONG, padding=True, return_tensors="pt"))[0].shape[0] == 3


@pytest.mark.parametrize("kind", KINDS)
def test_padding_afterwards(tokenizers, kind):
    theirs, ours = tokenizers(kind)
    rows = [ours(text) for text in LONG]
    for keywords in (
        {},
        {"return_tensors": "pt"},
        {"padding": "max_length", "max_length": 40},
        {"padding_side": "left", "pad_to_multiple_of": 8},
        {"padding": False},
    ):
        assert_same(ours.pad(rows, **keywords), theirs.pad([dict(row) for row in rows], **keywords))
    batch = {"input_ids": ours(LONG)["input_ids"]}
    assert_same(ours.pad(batch), theirs.pad(batch))
    assert_same(ours.pad(ours(LONG[0]), padding="max_length"), theirs.pad(theirs(LONG[0]), padding="max_length"))
    tensors = [{"input_ids": torch.tensor([1, 2]), "label": 1}, {"input_ids": torch.tensor([3]), "label": 0}]
    assert_same(ours.pad(tensors), theirs.pad(tensors))
    with pytest.raises(OptionError, match="with input_ids, found ids"):
        ours.pad({"ids": [1]})
    with pytest.raises(OptionError, match="not after pad"):
        ours.pad(rows).tokens(0)


def test_collators_of_transformers_take_our_tokenizers(tokenizers):
    theirs, ours = tokenizers("bert")
    rows = [dict(theirs(text)) | {"label": 1} for text in LONG]
    expected = transformers.DataCollatorWithPadding(theirs)([dict(row) for row in rows])
    found = transformers.DataCollatorWithPadding(ours)([dict(row) for row in rows])
    assert_same(found, expected)


KEYWORDS = [
    ("bert", {"do_lower_case": False}),
    ("bert", {"strip_accents": False}),
    ("bert", {"tokenize_chinese_chars": False}),
    ("bert", {"model_max_length": 7}),
    ("bert", {"padding_side": "left", "truncation_side": "left"}),
    ("bert", {"cls_token": "[CLS]", "mask_token": "[UNK]"}),
    ("roberta", {"add_prefix_space": True}),
    ("roberta", {"pad_token": "</s>"}),
    ("roberta", {"clean_up_tokenization_spaces": True}),
]


@pytest.mark.parametrize(("kind", "keywords"), KEYWORDS, ids=str)
def test_settings_as_keywords(checkpoint, tmp_path, kind, keywords):
    theirs = transformers.AutoTokenizer.from_pretrained(checkpoint(kind), **keywords)
    ours = hf.AutoTokenizer.from_pretrained(checkpoint(kind), **keywords)
    assert_same(ours(TEXTS, padding=True, truncation=True), theirs(TEXTS, padding=True, truncation=True))
    assert ours.special_tokens_map == theirs.special_tokens_map
    ours.save_pretrained(tmp_path)
    again = hf.AutoTokenizer.from_pretrained(tmp_path)
    assert again(TEXTS, truncation=True)["input_ids"] == ours(TEXTS, truncation=True)["input_ids"]
    assert again.special_tokens_map == ours.special_tokens_map
    assert (again.padding_side, again.model_max_length) == (ours.padding_side, ours.model_max_length)


@pytest.mark.parametrize("kind", KINDS)
def test_saved_tokenizers_are_read_by_both(tokenizers, kind, tmp_path):
    theirs, ours = tokenizers(kind)
    ours(LONG, padding=True, truncation=True, max_length=4)  # leaves nothing behind in the file
    files = ours.save_pretrained(tmp_path)
    assert sorted(Path(file).name for file in files) == ["tokenizer.json", "tokenizer_config.json"]
    stored = json.loads((tmp_path / "tokenizer.json").read_text())
    assert stored["truncation"] is stored["padding"] is None
    again = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert type(again) is type(theirs)
    assert_same(again(TEXTS), theirs(TEXTS))
    assert again.special_tokens_map == theirs.special_tokens_map
    assert again.model_max_length == theirs.model_max_length
    with pytest.raises(OptionError, match="legacy_format"):
        ours.save_pretrained(tmp_path, legacy_format=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        ours.save_pretrained(tmp_path / "file")


def test_classes(checkpoint, make_checkpoint, tmp_path):
    assert type(hf.BertTokenizer.from_pretrained(checkpoint("bert"))) is hf.BertTokenizer
    assert hf.BertTokenizerFast is hf.BertTokenizer
    for wrong, kind, right in ((hf.BertTokenizer, "roberta", "Roberta"), (hf.RobertaTokenizer, "bert", "Bert")):
        with pytest.raises(TokenizerError, match=f"use {right}Tokenizer, or AutoTokenizer"):
            wrong.from_pretrained(checkpoint(kind))
    folder = make_checkpoint(tmp_path / "m", "roberta")
    (folder / "config.json").unlink()
    (folder / "model.safetensors").unlink()
    assert type(hf.AutoTokenizer.from_pretrained(folder)) is hf.RobertaTokenizer
    (folder / "tokenizer_config.json").unlink()
    assert type(hf.RobertaTokenizer.from_pretrained(folder)) is hf.RobertaTokenizer
    assert type(hf.AutoTokenizer.from_pretrained(folder)) is hf.PreTrainedTokenizerFast
    assert type(hf.PreTrainedTokenizerFast.from_pretrained(checkpoint("bert"))) is hf.PreTrainedTokenizerFast
    with pytest.raises(OptionError, match=r"use BertTokenizer\.from_pretrained\(folder\)"):
        hf.BertTokenizer("vocab.txt")


@pytest.mark.parametrize("name", ["ElectraTokenizerFast", "ConvBertTokenizer"])
def test_classes_that_do_the_same(make_checkpoint, tmp_path, name):
    folder = make_checkpoint(tmp_path / "m", "bert")
    settings_file = folder / "tokenizer_config.json"
    settings_file.write_text(json.dumps(json.loads(settings_file.read_text()) | {"tokenizer_class": name}))
    assert type(hf.AutoTokenizer.from_pretrained(folder)) is hf.BertTokenizer
    assert hf.BertTokenizer.from_pretrained(folder).tokenize("a film") == ["a", "film"]


@pytest.mark.parametrize(
    ("keywords", "says"),
    [
        ({"text": 3}, "text 0: expected a str or a pair of them, found int"),
        ({"text": ["a", None]}, "text 1: expected a str"),
        ({"text": [["a", "b", "c"]]}, "is_split_into_words=True"),
        ({"text": ["a"], "is_split_into_words": True, "text_pair": "b"}, "expected a list of words"),
        ({"text": ["a"], "text_pair": ["b", "c"]}, "one for each text"),
        ({"text": ["a"], "text_pair": "b"}, "one for each text"),
        ({"text": "half \ud800"}, "lone surrogate"),
        ({"text": ["a", "b c"], "return_tensors": "pt"}, "padding=True"),
        ({"text": ["a", "b c"], "return_tensors": "np"}, "padding=True"),
        ({"text": "a", "return_tensors": "tf"}, "expected 'pt', 'np' or None, found 'tf'"),
        ({"text": "a", "padding": "longer"}, "padding: expected one of True, 'longest'"),
        ({"text": "a", "padding": 1}, "padding: expected"),
        ({"text": "a", "truncation": "left"}, "truncation: expected"),
        ({"text": "a", "padding_side": "top"}, "padding_side: expected"),
        ({"text": "a b c d", "max_length": -1}, "max_length: expected 0 or more"),
        ({"text": "a b c d", "max_length": 3, "stride": 5}, "max_length 3 with stride 5 cannot be kept"),
        ({"text": "a b", "text_pair": "c", "max_length": 4, "truncation": "only_first", "stride": 9}, "kept"),
        ({"text": "a", "max_length": 7, "padding": True, "truncation": True, "pad_to_multiple_of": 4}, "multiple"),
        ({"text": "a", "pad_to_max_length": True}, "write padding='max_length'"),
        ({"text": "a", "text_target": "b"}, "text_target"),
        ({"text": "a", "return_tensor": "pt"}, "did you mean 'return_tensors'"),
    ],
    ids=str,
)
def test_calls_that_are_refused(tokenizers, keywords, says):
    with pytest.raises(OptionError, match=says):
        tokenizers("bert")[1](**keywords)


@pytest.mark.parametrize(
    ("keywords", "says"),
    [
        ({"use_fast": False}, "fast tokenizers only"),
        ({"add_prefix_space": True}, "add_prefix_space: not a setting of this kind"),
        ({"padding_side": "up"}, "padding_side: expected"),
        ({"max_length": 12}, "did you mean 'model_max_length'"),
        ({"pad_token": "[NEW]"}, "expected a token of the vocabulary"),
        ({"cls_token": "[MASK]"}, r"this tokenizer, .* has '\[CLS\]'"),
    ],
)
def test_loading_that_is_refused(checkpoint, keywords, says):
    with pytest.raises(OptionError, match=says):
        hf.AutoTokenizer.from_pretrained(checkpoint("bert"), **keywords)
    assert hf.AutoTokenizer.from_pretrained(checkpoint("bert"), use_fast=True, token=None)


def test_a_limit_that_is_ignored_is_said(tokenizers):
    theirs, ours = tokenizers("bert")
    with pytest.warns(UserWarning, match="max_length is ignored"):
        found = ours(LONG, padding=True, max_length=3)
    assert found["input_ids"] == theirs(LONG, padding=True, max_length=3, verbose=False)["input_ids"]


def test_no_limit_known(make_checkpoint, tmp_path):
    folder = make_checkpoint(tmp_path / "m", "bert")
    settings_file = folder / "tokenizer_config.json"
    values = json.loads(settings_file.read_text())
    del values["model_max_length"]
    settings_file.write_text(json.dumps(values))
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    ours = hf.AutoTokenizer.from_pretrained(folder)
    assert ours.model_max_length == theirs.model_max_length == int(1e30)
    for keywords in ({"padding": "max_length"}, {"truncation": True}, {"padding": True, "truncation": True}):
        assert_same(ours(LONG, **keywords), theirs(LONG, **keywords))


def test_threads_do_not_disturb_each_other(tokenizers):
    _, ours = tokenizers("bert")
    wrong: list[int] = []

    def work(limit: int) -> None:
        for _ in range(50):
            rows = ours(LONG, truncation=True, max_length=limit, padding="max_length")["input_ids"]
            wrong.extend(len(row) for row in rows if len(row) != limit)

    workers = [threading.Thread(target=work, args=(limit,)) for limit in (3, 5, 9, 17)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_copies(tokenizers):
    _, ours = tokenizers("roberta")
    ours.pad_token = "</s>"
    for twin in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert twin.pad_token == "</s>"
        assert twin(LONG, padding=True).data == ours(LONG, padding=True).data
    encoded = ours(LONG)
    twin = pickle.loads(pickle.dumps(encoded))
    assert twin.data == encoded.data
    assert twin.tokens(1) == encoded.tokens(1)
    assert copy.copy(encoded).data == encoded.data


def test_the_older_call_names(tokenizers):
    _, ours = tokenizers("bert")
    assert (
        ours.encode_plus(LONG[0], LONG[1], max_length=8, truncation=True).data
        == ours(LONG[0], LONG[1], max_length=8, truncation=True).data
    )
    assert ours.batch_encode_plus(LONG, padding=True).data == ours(LONG, padding=True).data


@pytest.mark.parametrize("name", ["bert-base-uncased", "bert-base-chinese", "roberta-base"])
def test_real_vocabularies(name):
    folder = Path(__file__).parents[2].parent / "shared/data/tokenizers" / name
    if not folder.is_dir():
        pytest.skip("the shared tokenizers are not at hand")
    kind = "Roberta" if name == "roberta-base" else "Bert"
    theirs = getattr(transformers, f"{kind}Tokenizer").from_pretrained(folder)
    ours = getattr(hf, f"{kind}Tokenizer").from_pretrained(folder)
    assert_same(ours(TEXTS, padding=True), theirs(TEXTS, padding=True))
    assert (len(ours), ours.vocab_size, ours.model_max_length) == (
        len(theirs),
        theirs.vocab_size,
        theirs.model_max_length,
    )
