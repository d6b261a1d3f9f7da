"""Folders of small tokenizers of the three kinds, beside transformers' own."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from layertap.text.tokenizer import TextTokenizer

LETTERS = "abcdefghijklmnopqrstuvwxyzABC0123456789.,!?'-[]<>/|\u4f60\u597d\u00e9\u3042\uac00"


class Kind(NamedTuple):
    """Our tokenizer, transformers' tokenizer, and transformers' for given words."""

    ours: TextTokenizer
    theirs: Any
    theirs_for_words: Any

    def __repr__(self) -> str:
        return self.ours.files[0].parent.name  # a failing example prints it


def write_unigram(folder: Path) -> Path:
    """XLM-R's layout: a unigram model behind Metaspace."""
    from tokenizers import Tokenizer, models

    vocab = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces = ["\u2581", *LETTERS, "\u2581the", "ing", "\u2581a"]
    vocab += [(piece, -2.0 - i / 16) for i, piece in enumerate(pieces)]
    folder.mkdir(parents=True, exist_ok=True)
    Tokenizer(models.Unigram([*vocab, ("<mask>", 0.0)], unk_id=3)).save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"model_type": "xlm-roberta"}), encoding="utf-8")
    return folder


def read_kind(folder: Path, model_type: str) -> Kind:
    transformers = pytest.importorskip("transformers", minversion="5")
    spaced = {"add_prefix_space": True} if model_type == "roberta" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = transformers.AutoTokenizer.from_pretrained(folder)
        for_words = transformers.AutoTokenizer.from_pretrained(folder, **spaced)
    return Kind(TextTokenizer.load(folder, model_type=model_type), theirs, for_words)


@pytest.fixture(scope="session")
def kinds(tmp_path_factory: pytest.TempPathFactory, make_checkpoint: Callable[..., Path]) -> dict[str, Kind]:
    """WordPiece, byte-level BPE and unigram."""
    root = tmp_path_factory.mktemp("kinds")
    folders = {name: make_checkpoint(root / name, name) for name in ("bert", "roberta")}
    folders["xlm-roberta"] = write_unigram(root / "xlm-roberta")
    return {name: read_kind(folder, name) for name, folder in folders.items()}
