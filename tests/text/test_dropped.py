"""Offsets of texts whose first characters a SentencePiece normalizer drops, with a real normalization table."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from layertap.text.dropped import drops_unseen, num_dropped
from layertap.text.tokenizer import TextTokenizer


@pytest.fixture(scope="module")
def tokenizer(charsmap: bytes, tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    """A unigram model of a few words behind the table."""
    folder = tmp_path_factory.mktemp("dropped")
    letters = [(letter, -9.0) for letter in "abcdefghijklmnopqrstuvwxyz\u2581"]
    words = [(f"\u2581{word}", -1.0) for word in ("good", "film", "dull")]
    special = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    backend = Tokenizer(models.Unigram([*special, *words, *letters], unk_id=3))
    backend.normalizer = normalizers.Precompiled(charsmap)
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.add_special_tokens([token for token, _ in special])
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "XLMRobertaTokenizer"}))
    return TextTokenizer.load(folder, model_type="xlm-roberta")


def covered(tokenizer: TextTokenizer, text: str, pair: str | None = None) -> list[str]:
    """The characters that each token stands for, special tokens left out."""
    (encoded,) = tokenizer.encode([text], None if pair is None else [pair], offsets=True)
    assert encoded.offsets is not None
    own = [text[begin:end] for begin, end in encoded.offsets[slice(*encoded.content)]]
    if encoded.pair_content is not None:
        assert pair is not None
        own += [pair[begin:end] for begin, end in encoded.offsets[slice(*encoded.pair_content)]]
    return own


@pytest.mark.parametrize("before", ["", "\x07", "\x01\x02\x7f", "\u200b"])
def test_tokens_stand_for_their_own_characters(tokenizer: TextTokenizer, before: str) -> None:
    assert [part.strip(" \u200b") for part in covered(tokenizer, f"{before}good film")] == ["good", "film"]
    # each text of a pair by itself
    parts = covered(tokenizer, f"{before}good film", "\x03dull film")
    assert [part.strip(" \u200b") for part in parts] == ["good", "film", "dull", "film"]


def test_ids_are_not_changed(tokenizer: TextTokenizer) -> None:
    one, other = tokenizer.encode(["\x07good film", "good film"], offsets=True)
    assert np.array_equal(one.input_ids, other.input_ids)
    assert one.offsets is not None
    assert one.offsets[0].tolist() == [0, 0], "special tokens have none"


def test_each_stretch_between_special_tokens_by_itself(tokenizer: TextTokenizer) -> None:
    assert covered(tokenizer, "\x1f</s>") == ["</s>"]
    assert covered(tokenizer, "\x1f</s>\x07\x08good film") == ["</s>", "good", "film"]
    assert covered(tokenizer, "\x1fgood<unk>\x07film</s> dull") == ["good", "<unk>", "film", "</s>", "dull"]
    assert covered(tokenizer, "good</s>film", "\x03</s>\x04dull") == ["good", "</s>", "film", "</s>", "dull"]


def test_what_counts_as_dropped(tokenizer: TextTokenizer) -> None:
    assert drops_unseen(tokenizer.backend)
    texts = ("a", "\x07a", "\x07\x08a", "a\x07", "\x07", "\ta")
    assert [num_dropped(tokenizer.backend, text) for text in texts] == [0, 1, 2, 0, 1, 0]
    assert num_dropped(tokenizer.backend, "a\x07\x08b", 1) == 2
    assert not drops_unseen(Tokenizer(models.WordPiece({"[UNK]": 0}, unk_token="[UNK]")))
