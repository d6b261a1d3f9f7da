"""Tokenizer classes of transformers 5, each as a few functions: `Style` and the table of classes.

Those in `STYLES` take vocabulary and added tokens from files, and set normalizer, pre-tokenizer and template
themselves, from `tokenizer_config.json` and their defaults.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from layertap.errors import TokenizerError
from layertap.git_lfs import pointer_in_place
from layertap.stored_file import read_whole
from layertap.text.settings import TokenizerSettings, read_json_object

VOCABULARY_BYTES = 64 << 20
"""Bytes of a `vocab.txt` or `merges.txt` at most; those of 250,000 tokens have 5 MB."""

BERT_TOKENS = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
ALBERT_TOKENS = {
    "bos_token": "[CLS]",
    "eos_token": "[SEP]",
    "unk_token": "<unk>",
    "sep_token": "[SEP]",
    "pad_token": "<pad>",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
DEBERTA_TOKENS = {"bos_token": "[CLS]", "eos_token": "[SEP]", **BERT_TOKENS}
ROBERTA_TOKENS = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "cls_token": "<s>",
    "mask_token": "<mask>",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Setup:
    """Settings and special tokens that a style builds a tokenizer from.

    Attributes:
        settings: what the JSON files say.
        special: named special tokens, the style's defaults included (`cls_token` -> `[CLS]`).
        extra: further special tokens.
        mask_lstrip: whether a mask token that no file describes swallows the space before it.
    """

    settings: TokenizerSettings
    special: Mapping[str, str]
    extra: tuple[AddedToken, ...]
    mask_lstrip: bool = False

    def id_of(self, backend: Tokenizer, token: str) -> int:
        """Return the id of a special token that has been added."""
        token_id = backend.token_to_id(token)
        assert token_id is not None
        return token_id


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Style:
    """Construction of a tokenizer as one class of transformers does it.

    Attributes:
        model: the vocabulary's kind; a `tokenizer.json` of another kind is used as it stands.
        defaults: the class's special tokens.
        extra: contents of further ones, which some vocabularies hold.
        mask_lstrip: as in `Setup`.
        vocabulary_files: names of the files that it can be built from.
        from_vocabulary: reads them, or None: it has a SentencePiece model only.
        set_pipeline: sets normalizer, pre-tokenizer and decoder.
        template: makes the post-processor, once the special tokens have ids.
    """

    model: type[models.Model]
    defaults: Mapping[str, str]
    vocabulary_files: tuple[str, ...]
    from_vocabulary: Callable[[tuple[Path, ...]], Tokenizer] | None
    set_pipeline: Callable[[Tokenizer, Setup], None]
    template: Callable[[Tokenizer, Setup], processors.PostProcessor]
    extra: tuple[str, ...] = ()
    mask_lstrip: bool = False


# --- BertTokenizer -------------------------------------------------------------------------------------------------

# What Rust's trim_end removes; `str.rstrip()` would also remove U+001C to U+001F.
WHITE_SPACE = (
    "\t\n\v\f\r \u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)


def read_vocab(path: Path) -> dict[str, int]:
    """Read `vocab.txt`: a token a line, its id the 0-based line number; of a repeated token the last line counts."""
    lines = _read_text(path).split("\n")
    if lines[-1] == "":
        del lines[-1]
    return {line.rstrip(WHITE_SPACE): i for i, line in enumerate(lines)}


def _read_text(path: Path) -> str:
    data = read_whole(path, error=TokenizerError, limit=VOCABULARY_BYTES)
    if pointer := pointer_in_place(path, data):
        raise TokenizerError(pointer)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise TokenizerError(f"{path}: line {line} is not UTF-8") from error


def _bert_from_vocabulary(paths: tuple[Path, ...]) -> Tokenizer:
    return Tokenizer(models.WordPiece(read_vocab(paths[0])))


def _bert_pipeline(backend: Tokenizer, setup: Setup) -> None:
    model, settings = backend.model, setup.settings
    assert isinstance(model, models.WordPiece)
    model.unk_token = setup.special["unk_token"]
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings.flag("tokenize_chinese_chars", True),
        strip_accents=settings.optional_flag("strip_accents"),
        lowercase=settings.flag("do_lower_case", True),
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")


def _bert_template(backend: Tokenizer, setup: Setup) -> processors.PostProcessor:
    cls, sep = setup.special["cls_token"], setup.special["sep_token"]
    return processors.TemplateProcessing(
        single=[f"{cls}:0", "$A:0", f"{sep}:0"],
        pair=[f"{cls}:0", "$A:0", f"{sep}:0", "$B:1", f"{sep}:1"],
        special_tokens=[(token, setup.id_of(backend, token)) for token in (cls, sep)],
    )


# --- RobertaTokenizer ----------------------------------------------------------------------------------------------


def read_merges(path: Path) -> list[tuple[str, str]]:
    """Read `merges.txt`: a pair a line, the first pair merged first; `#version` and empty lines do not count."""
    merges: list[tuple[str, str]] = []
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        pair = line.rstrip("\r")
        if not pair or pair.startswith("#version"):
            continue
        first, _, second = pair.partition(" ")
        if not first or not second or " " in second:
            raise TokenizerError(
                f"{path}: line {number}: expected two tokens with a space between, found {pair[:80]!r}"
            )
        merges.append((first, second))
    return merges


def _roberta_from_vocabulary(paths: tuple[Path, ...]) -> Tokenizer:
    vocab, merges = paths
    model = models.BPE(
        read_json_object(vocab),
        read_merges(merges),
        continuing_subword_prefix="",
        end_of_word_suffix="",
        fuse_unk=False,
    )
    return Tokenizer(model)


def _roberta_pipeline(backend: Tokenizer, setup: Setup) -> None:
    backend.normalizer = None
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=setup.settings.flag("add_prefix_space", False))
    backend.decoder = decoders.ByteLevel()


def _roberta_template(backend: Tokenizer, setup: Setup) -> processors.PostProcessor:
    cls, sep = setup.special["cls_token"], setup.special["sep_token"]
    return processors.RobertaProcessing(
        (sep, setup.id_of(backend, sep)),
        (cls, setup.id_of(backend, cls)),
        trim_offsets=setup.settings.flag("trim_offsets", True),
        add_prefix_space=setup.settings.flag("add_prefix_space", False),
    )


# --- MPNetTokenizer --------------------------------------------------------------------------------------------------


def _mpnet_template(backend: Tokenizer, setup: Setup) -> processors.PostProcessor:
    cls, sep = setup.special["cls_token"], setup.special["sep_token"]
    return processors.RobertaProcessing(
        (sep, setup.id_of(backend, sep)), (cls, setup.id_of(backend, cls)), trim_offsets=True, add_prefix_space=False
    )


# --- XLMRobertaTokenizer, CamembertTokenizer -----------------------------------------------------------------------


def _sentencepiece_pipeline(backend: Tokenizer, setup: Setup) -> None:
    charsmap = _charsmap(backend.normalizer)
    backend.normalizer = None if charsmap is None else normalizers.Precompiled(charsmap)
    _split_at_spaces(backend, setup)


def _split_at_spaces(backend: Tokenizer, setup: Setup) -> None:
    scheme = "always" if setup.settings.flag("add_prefix_space", True) else "never"
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme=scheme)]
    )
    backend.decoder = decoders.Metaspace(replacement="\u2581", prepend_scheme=scheme)


def _charsmap(normalizer: Any) -> bytes | None:
    """SentencePiece's own normalization table; transformers keeps nothing else of the normalizer."""
    if normalizer is None:
        return None
    state = json.loads(normalizer.__getstate__())
    for part in state.get("normalizers", [state]):
        if part.get("type") == "Precompiled":
            return base64.b64decode(part["precompiled_charsmap"])
    return None


def _sentencepiece_template(backend: Tokenizer, setup: Setup) -> processors.PostProcessor:
    bos, eos = setup.special["bos_token"], setup.special["eos_token"]
    return processors.TemplateProcessing(
        single=[bos, "$A", eos],
        pair=[bos, "$A", eos, eos, "$B", eos],
        special_tokens=[(token, setup.id_of(backend, token)) for token in (bos, eos)],
    )


# --- AlbertTokenizer -----------------------------------------------------------------------------------------------


def _albert_pipeline(backend: Tokenizer, setup: Setup) -> None:
    # `remove_space` of older files is not read, as in transformers 5: splitting at spaces drops them all.
    backend.normalizer = albert_normalizer(
        backend.normalizer,
        lower_case=setup.settings.flag("do_lower_case", True),
        keep_accents=setup.settings.flag("keep_accents", False),
    )
    _split_at_spaces(backend, setup)
    _set_unknown(backend, 1)


def albert_normalizer(stored: Any, *, lower_case: bool, keep_accents: bool) -> normalizers.Normalizer:
    """Build the normalizer of `AlbertTokenizer`, with SentencePiece's table from a stored normalizer."""
    steps: list[normalizers.Normalizer] = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    if not keep_accents:
        steps += [normalizers.NFKD(), normalizers.StripAccents()]
    if lower_case:
        steps.append(normalizers.Lowercase())
    charsmap = _charsmap(stored)
    if charsmap is not None:
        steps.append(normalizers.Precompiled(charsmap))
    return normalizers.Sequence(steps)


def _set_unknown(backend: Tokenizer, unknown_id: int) -> None:
    """Makes a unigram model give this id for what it does not know, and no bytes."""
    state = json.loads(backend.model.__getstate__())
    if state["unk_id"] != unknown_id or state["byte_fallback"]:
        backend.model = models.Unigram([(piece, score) for piece, score in state["vocab"]], unknown_id, False)


def _albert_template(backend: Tokenizer, setup: Setup) -> processors.PostProcessor:
    # transformers writes these two words whatever the tokens are called; the ids count
    return processors.TemplateProcessing(
        single=["[CLS]:0", "$A:0", "[SEP]:0"],
        pair=["[CLS]:0", "$A:0", "[SEP]:0", "$B:1", "[SEP]:1"],
        special_tokens=[
            ("[CLS]", setup.id_of(backend, setup.special["cls_token"])),
            ("[SEP]", setup.id_of(backend, setup.special["sep_token"])),
        ],
    )


# --- DebertaV2Tokenizer ----------------------------------------------------------------------------------------------


def _deberta_pipeline(backend: Tokenizer, setup: Setup) -> None:
    settings = setup.settings
    # SentencePiece's own table is not among the steps, as in transformers 5
    steps: list[normalizers.Normalizer] = [normalizers.Lowercase()] if settings.flag("do_lower_case", False) else []
    spaces = normalizers.Replace(Regex(r"\s{2,}|[\n\r\t]"), " ")
    backend.normalizer = normalizers.Sequence(
        [*steps, spaces, normalizers.NFC(), normalizers.Strip(left=False, right=True)]
    )
    scheme = "always" if settings.flag("add_prefix_space", True) else "first"
    split: list[pre_tokenizers.PreTokenizer] = []
    if settings.flag("split_by_punct", False):
        split.append(pre_tokenizers.Punctuation(behavior="isolated"))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [*split, pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme=scheme)]
    )
    backend.decoder = decoders.Metaspace(replacement="\u2581", prepend_scheme=scheme)
    pieces = [(piece, score) for piece, score in json.loads(backend.model.__getstate__())["vocab"]]
    unknown = (setup.special["unk_token"], 0.0)
    _set_unknown(backend, pieces.index(unknown) if unknown in pieces else _unknown_id(setup, len(pieces)))


def _unknown_id(setup: Setup, pieces: int) -> int:
    value = setup.settings.values.get("unk_id", 1)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < pieces:
        raise TokenizerError(
            f"{setup.settings.files[0] if setup.settings.files else 'tokenizer.json'}: unk_id: expected the id of the "
            f"unknown token, below {pieces}, found {value!r}"
        )
    return value


# --- the tables ----------------------------------------------------------------------------------------------------

BERT = Style(
    model=models.WordPiece,
    defaults=BERT_TOKENS,
    vocabulary_files=("vocab.txt",),
    from_vocabulary=_bert_from_vocabulary,
    set_pipeline=_bert_pipeline,
    template=_bert_template,
)
ROBERTA = Style(
    model=models.BPE,
    defaults=ROBERTA_TOKENS,
    vocabulary_files=("vocab.json", "merges.txt"),
    from_vocabulary=_roberta_from_vocabulary,
    set_pipeline=_roberta_pipeline,
    template=_roberta_template,
)
MPNET = replace(BERT, defaults=ROBERTA_TOKENS | {"unk_token": "[UNK]"}, template=_mpnet_template, mask_lstrip=True)
SENTENCEPIECE = Style(
    model=models.Unigram,
    defaults=ROBERTA_TOKENS,
    vocabulary_files=(),
    from_vocabulary=None,
    set_pipeline=_sentencepiece_pipeline,
    template=_sentencepiece_template,
)
CAMEMBERT = replace(SENTENCEPIECE, extra=("<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED"), mask_lstrip=True)
ALBERT = Style(
    model=models.Unigram,
    defaults=ALBERT_TOKENS,
    vocabulary_files=(),
    from_vocabulary=None,
    set_pipeline=_albert_pipeline,
    template=_albert_template,
)

DEBERTA_V2 = Style(
    model=models.Unigram,
    defaults=DEBERTA_TOKENS,
    vocabulary_files=(),
    from_vocabulary=None,
    set_pipeline=_deberta_pipeline,
    template=_bert_template,
)

# class of transformers, without `Fast` -> what it does; aliases and plain subclasses as in transformers 5
STYLES: dict[str, Style] = {
    "AlbertTokenizer": ALBERT,
    "BartTokenizer": ROBERTA,
    "BertTokenizer": BERT,
    "CamembertTokenizer": CAMEMBERT,
    "ConvBertTokenizer": BERT,
    "DebertaV2Tokenizer": DEBERTA_V2,
    "DistilBertTokenizer": BERT,
    "ElectraTokenizer": BERT,
    "LayoutLMTokenizer": BERT,
    "LEDTokenizer": ROBERTA,
    "LongformerTokenizer": ROBERTA,
    "MobileBertTokenizer": BERT,
    "MPNetTokenizer": MPNET,
    "RobertaTokenizer": ROBERTA,
    "SqueezeBertTokenizer": BERT,
    "XLMRobertaTokenizer": SENTENCEPIECE,
}

# model_type -> the class that transformers takes where no file names one; for the others tokenizer.json as it is
CLASS_OF: dict[str, str] = {
    "albert": "AlbertTokenizer",
    "bert": "BertTokenizer",
    "camembert": "CamembertTokenizer",
    "deberta-v2": "DebertaV2Tokenizer",
    "distilbert": "BertTokenizer",
    "electra": "BertTokenizer",
    "gte": "XLMRobertaTokenizer",
    "mpnet": "MPNetTokenizer",
    "megatron-bert": "BertTokenizer",
    "nomic_bert": "BertTokenizer",
    "roberta": "RobertaTokenizer",
    "roberta-prelayernorm": "RobertaTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
}

# model_types for which transformers disregards every class that a file names and takes tokenizer.json as it is
AS_IT_STANDS = ("modernbert",)

# classes that stand for "tokenizer.json as it is"
GENERIC = ("PreTrainedTokenizer", "PreTrainedTokenizerFast", "TokenizersBackend")

# classes with no twin in the tokenizers library, and why
PYTHON_ONLY: dict[str, str] = {
    "BertJapaneseTokenizer": "it splits words with MeCab, Sudachi or Juman++",
    "BertweetTokenizer": "it rewrites tweets before splitting them",
    "PhobertTokenizer": "it expects words that were segmented before",
}
