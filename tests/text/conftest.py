"""Folders of small tokenizers of the three kinds, beside transformers' own."""

from __future__ import annotations

import json
import shutil
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from layertap.text.tokenizer import TextTokenizer
from tests.text.sentencepiece import charsmap_of

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


# --- real vocabularies -----------------------------------------------------------------------------------------------

SHARED = Path(__file__).parents[2].parent / "shared/data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real texts and vocabularies, which are not part of the project."""
    if not SHARED.is_dir():
        pytest.skip("real texts and vocabularies are not beside the project")
    return SHARED


@pytest.fixture(scope="session")
def charsmap(shared_data: Path) -> bytes:
    """SentencePiece's normalization table (NFKC), of XLNet's model."""
    return charsmap_of(shared_data / "tokenizers/xlnet-base-cased/spiece.model")


class RealTokenizers(dict[str, TextTokenizer]):
    """Tokenizers by their names, each loaded where a test first asks for it."""

    def __init__(self, shared_data: Path, charsmap: bytes, scratch: pytest.TempPathFactory) -> None:
        super().__init__()
        folder = shared_data / "tokenizers"
        self._made: dict[str, tuple[Callable[[], Path], str]] = {
            "bert-base-uncased": (lambda: folder / "bert-base-uncased", "bert"),
            "bert-base-multilingual-cased": (
                lambda: copied_cased(folder / "bert-base-multilingual-cased", scratch.mktemp("mbert")),
                "bert",
            ),
            "roberta-base": (lambda: folder / "roberta-base", "roberta"),
            "ModernBERT": (lambda: folder / "modernbert-large", "modernbert"),
            "unigram of XLM-R": (lambda: write_xlmr(folder, charsmap, scratch.mktemp("xlmr")), "xlm-roberta"),
        }

    def __missing__(self, name: str) -> TextTokenizer:
        make, model_type = self._made[name]
        self[name] = TextTokenizer.load(make(), model_type=model_type)
        return self[name]


@pytest.fixture(scope="session")
def real_tokenizers(
    shared_data: Path, charsmap: bytes, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, TextTokenizer]:
    """WordPiece, byte-level BPE with and without trimmed offsets, and the unigram model of the XLM-R pieces."""
    return RealTokenizers(shared_data, charsmap, tmp_path_factory)


def copied_cased(source: Path, folder: Path) -> Path:
    shutil.copyfile(source / "vocab.txt", folder / "vocab.txt")
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}', encoding="utf-8")
    return folder


def write_xlmr(tokenizers: Path, charsmap: bytes, folder: Path) -> Path:
    """XLM-R's pieces with their ids, behind a normalization table."""
    from tokenizers import Tokenizer, models, normalizers

    with zipfile.ZipFile(tokenizers / "xlm-roberta-base-pieces/pos.dict.utf8.zip") as archive:
        lines = archive.read("pos.dict.utf8").decode("utf-8").split("\n")
    pieces = [line.split("\t") for line in lines if line]
    vocab = [("<s>", 0.0), *((piece, float(score)) for piece, _, score in pieces)]
    backend = Tokenizer(models.Unigram(vocab, unk_id=3))
    backend.normalizer = normalizers.Precompiled(charsmap)
    backend.save(str(folder / "tokenizer.json"))
    return folder
