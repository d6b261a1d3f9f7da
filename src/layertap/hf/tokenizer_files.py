"""Finding and reading the files of a tokenizer, for the classes in `tokenization`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors

from layertap.checkpoints.json_file import read_object
from layertap.errors import OptionError, TokenizerError
from layertap.hf.locating import located
from layertap.text.styles import (
    ALBERT,
    BERT,
    CLASS_OF,
    GENERIC,
    MPNET,
    ROBERTA,
    SENTENCEPIECE,
    STYLES,
    Style,
    albert_normalizer,
)
from layertap.text.tokenizer import TextTokenizer

GENERIC_CLASS = "PreTrainedTokenizerFast"
"""Name of the class for any `tokenizer.json` that is used unchanged."""

CLASSES: Mapping[str, Style] = {
    "BertTokenizer": BERT,
    "DistilBertTokenizer": BERT,
    "RobertaTokenizer": ROBERTA,
    "XLMRobertaTokenizer": SENTENCEPIECE,
    "CamembertTokenizer": SENTENCEPIECE,
    "MPNetTokenizer": MPNET,
    "AlbertTokenizer": ALBERT,
}
"""Tokenizer classes and their behaviour; other classes of transformers with equal behaviour map to the first match."""

BERT_OPTIONS = ("do_lower_case", "strip_accents", "tokenize_chinese_chars")
ALBERT_OPTIONS = ("do_lower_case", "keep_accents")
ROBERTA_OPTIONS = ("add_prefix_space", "trim_offsets")


def open_tokenizer(
    model: str | os.PathLike[str],
    *,
    fallback: str | None,
    cache_dir: str | os.PathLike[str] | None,
    local_files_only: bool,
    revision: str | None,
) -> tuple[str, TextTokenizer]:
    """Open the tokenizer of a folder or hub id; return the name of its class and the tokenizer.

    Args:
        model: the folder or hub id.
        fallback: name of the class to use if no file states one.
        cache_dir, local_files_only, revision: as in `huggingface_hub`.
    """
    checkpoint = located(model, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only)
    file = checkpoint.file("config.json")
    config = {} if file is None else read_object(file)
    stated = config.get("tokenizer_class")
    model_type = config.get("model_type") or _model_type(fallback)
    loaded = TextTokenizer.load(
        checkpoint.tokenizer_folder,
        model_type=str(model_type),
        tokenizer_class=stated if isinstance(stated, str) else None,
    )
    name = loaded.settings.get("tokenizer_class") or stated or CLASS_OF.get(str(model_type))
    return _class_name(name), loaded


def _model_type(class_name: str | None) -> str | None:
    """Return a family whose tokenizer has this class, or a class with equal behaviour."""
    named = [model_type for model_type, name in CLASS_OF.items() if name == class_name]
    alike = [model_type for model_type, name in CLASS_OF.items() if STYLES[name] is STYLES.get(str(class_name))]
    return next(iter(named + alike), None)


def _class_name(stated: object) -> str:
    """Return the class in this package that reads tokenizers of the class `stated`."""
    name = str(stated).removesuffix("Fast")
    if stated is None or name in GENERIC or name not in STYLES:
        return GENERIC_CLASS
    if name in CLASSES:
        return name
    return next((one for one, style in CLASSES.items() if style is STYLES[name]), GENERIC_CLASS)


def check_class(asked: str, stated: str, model: str | os.PathLike[str]) -> None:
    """Refuse a class other than the one that the files call for.

    Raises:
        TokenizerError: the class is wrong; the message names the right one.
    """
    if GENERIC_CLASS not in (asked, stated) and STYLES[asked] is not STYLES[stated]:
        raise TokenizerError(
            f"{model}: its tokenizer is a {stated}, so {asked} does not fit: use {stated}, or AutoTokenizer"
        )


def set_options(backend: Tokenizer, settings: Mapping[str, Any], given: Mapping[str, Any], *, class_name: str) -> None:
    """Apply the settings in `given` that change how a tokenizer splits texts.

    Raises:
        OptionError: a setting belongs to another kind of tokenizer.
    """
    asked = [name for name in dict.fromkeys((*BERT_OPTIONS, *ROBERTA_OPTIONS, *ALBERT_OPTIONS)) if name in given]
    if not asked:
        return
    is_bert = isinstance(backend.normalizer, normalizers.BertNormalizer)
    is_roberta = isinstance(backend.pre_tokenizer, pre_tokenizers.ByteLevel)
    if is_bert and all(name in BERT_OPTIONS for name in asked):
        backend.normalizer = normalizers.BertNormalizer(
            clean_text=True,
            handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
            strip_accents=settings.get("strip_accents"),
            lowercase=settings.get("do_lower_case", True),
        )
    elif is_roberta and all(name in ROBERTA_OPTIONS for name in asked):
        _set_byte_level(backend, settings)
    elif CLASSES.get(class_name) is ALBERT and all(name in ALBERT_OPTIONS for name in asked):
        backend.normalizer = albert_normalizer(
            backend.normalizer,
            lower_case=settings.get("do_lower_case", True),
            keep_accents=settings.get("keep_accents", False),
        )
    else:
        raise OptionError(f"{', '.join(asked)}: not a setting of this kind of tokenizer")


def _set_byte_level(backend: Tokenizer, settings: Mapping[str, Any]) -> None:
    prefix_space, trim = settings.get("add_prefix_space", False), settings.get("trim_offsets", True)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    template = backend.encode("")
    cls, sep = template.tokens[0], template.tokens[-1]
    backend.post_processor = processors.RobertaProcessing(
        (sep, template.ids[-1]), (cls, template.ids[0]), trim_offsets=trim, add_prefix_space=prefix_space
    )
