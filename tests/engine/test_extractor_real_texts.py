"""Real texts from end to end: a random BERT with the vocabulary of bert-base-uncased, reviews, questions, treebanks."""

from __future__ import annotations

import json
import random
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layertap.data import open_reader
from layertap.engine.extractor import Extractor
from layertap.records import Record

SHARED = Path(__file__).parents[2].parent / "shared/data"
VOCABULARY = SHARED / "tokenizers/bert-base-uncased/vocab.txt"
LIMIT, SPECIALS = 64, 2
LANGUAGES = ("ar", "de", "en", "hi", "ru", "zh")
H = 32

pytestmark = pytest.mark.skipif(
    not VOCABULARY.exists(), reason="real texts and vocabularies are not beside the project"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, make_checkpoint: Callable[..., Path]) -> Path:
    """2 layers, hidden size 32, 64 tokens at most; the tokenizer is a `vocab.txt`."""
    vocabulary = VOCABULARY.read_bytes()
    path = make_checkpoint(
        tmp_path_factory.mktemp("real") / "bert", num_hidden_layers=2, vocab_size=vocabulary.count(b"\n")
    )
    for file in path.glob("tokenizer*"):
        file.unlink()
    (path / "vocab.txt").write_bytes(vocabulary)
    (path / "tokenizer_config.json").write_text('{"do_lower_case": true, "tokenizer_class": "BertTokenizer"}')
    return path


@pytest.fixture(scope="module")
def reviews() -> list[str]:
    """Two of the shortest long reviews, and one of the longest."""
    with zipfile.ZipFile(SHARED / "movie_reviews_long/movie_reviews.zip") as archive:
        files = [info for info in archive.infolist() if info.filename.endswith(".txt")]
        files.sort(key=lambda info: (info.file_size, info.filename))
        return [archive.read(files[i].filename).decode() for i in (20, 300, -40)]


def unlike(found: Any, wanted: Any) -> float:
    """Largest |error| over RMS."""
    wanted = np.asarray(wanted, dtype=np.float64)
    return float(np.abs(found - wanted).max() / np.sqrt(np.square(wanted).mean()))


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_long_reviews_in_windows(folder, reviews, data):
    window = data.draw(st.integers(SPECIALS + 1, LIMIT), label="window")
    overlap = data.draw(st.integers(0, window - SPECIALS - 1), label="overlap")
    _check_windows(folder, reviews[:1] if window < 8 or overlap > window - 8 else reviews, window, overlap)


@pytest.mark.parametrize("overlap", [0, LIMIT - SPECIALS - 1])
def test_the_least_and_the_largest_overlap(folder, reviews, overlap):
    _check_windows(folder, reviews[:1], LIMIT, overlap)


def _check_windows(folder: Path, reviews: list[str], window: int, overlap: int) -> None:
    extractor = Extractor.from_pretrained(folder, long="window", window=window, overlap=overlap)
    own = [encoding.ids for encoding in extractor.tokenizer.backend.encode_batch(reviews, add_special_tokens=False)]
    features = {
        "tokens": "last_hidden_state.tokens(special=False)",
        "mean": "last_hidden_state.mean(special=False)",
        "max": "last_hidden_state.max(special=False)",
        "all": "last_hidden_state",
        "mean_of_all": "last_hidden_state.mean",
        "words": "last_hidden_state.words(mean)",
    }
    details = ["token_ids", "token_special", "token_words", "num_windows"]
    found = extractor.extract(reviews, features, details=details)
    for i, ids in enumerate(own):
        assert found["token_ids"][i][~found["token_special"][i]].tolist() == ids
        assert found["num_windows"][i] >= len(ids) / (window - SPECIALS)
        tokens = found["tokens"][i].astype(np.float64)
        assert len(tokens) == len(ids)
        assert unlike(found["mean"][i], tokens.mean(axis=0)) < 1e-5
        assert unlike(found["mean_of_all"][i], found["all"][i].astype(np.float64).mean(axis=0)) < 1e-5
        np.testing.assert_array_equal(found["max"][i], found["tokens"][i].max(axis=0))
        owners = found["token_words"][i][~found["token_special"][i]]
        assert found["words"][i].any(axis=1).all()
        for word in random.Random(i).sample(range(len(found["words"][i])), 20):
            assert unlike(found["words"][i][word], tokens[owners == word].mean(axis=0)) < 1e-5


def _questions(language: str) -> Iterator[tuple[str, list[tuple[int, int]]]]:
    """Paragraphs and where the answers to their questions stand."""
    for article in json.loads((SHARED / f"xquad_paragraphs/xquad.{language}.json").read_text())["data"]:
        for paragraph in article["paragraphs"]:
            answers = [answer for question in paragraph["qas"] for answer in question["answers"]]
            yield (
                paragraph["context"],
                [(answer["answer_start"], answer["answer_start"] + len(answer["text"])) for answer in answers],
            )


@pytest.mark.parametrize("language", LANGUAGES)
def test_answers_to_questions_are_spans(folder, language):
    paragraphs = list(_questions(language))[::12]
    records = [Record(row=row, text=text, spans=tuple(spans)) for row, (text, spans) in enumerate(paragraphs)]
    features = {"tokens": "last_hidden_state", "answers": "last_hidden_state.spans(mean)"}
    found = Extractor.from_pretrained(folder, long="window").extract(
        records, features, details=["token_offsets", "token_special"]
    )
    for i, (text, spans) in enumerate(paragraphs):
        offsets, special = found["token_offsets"][i], found["token_special"][i]
        assert len(found["answers"][i]) == len(spans) > 0
        for vector, (begin, end) in zip(found["answers"][i], spans, strict=True):
            under = ~special & (offsets[:, 0] < end) & (offsets[:, 1] > begin)
            assert unlike(vector, found["tokens"][i][under].mean(axis=0, dtype=np.float64)) < 1e-5
            covered = np.zeros(len(text), dtype=bool)
            for first, last in offsets[under]:
                covered[first:last] = True
            missed = {letter for letter, has in zip(text[begin:end], covered[begin:end], strict=True) if not has}
            # the tokenizer strips accents, which leave no token of their own
            assert all(letter.isspace() or unicodedata.category(letter) == "Mn" for letter in missed), missed


@pytest.mark.parametrize("given_words", [True, False])
def test_every_word_of_a_treebank_has_a_vector(folder, tmp_path, given_words):
    sentences = (SHARED / "ud_english_ewt/en_ewt-ud-dev.conllu").read_text().split("\n\n")[::8]
    (tmp_path / "ewt.conllu").write_text("\n\n".join(sentences) + "\n\n")
    extractor = Extractor.from_pretrained(folder, long="window")
    feature = "last_hidden_state.words(mean)" if given_words else "last_hidden_state.spans(mean)"
    with open_reader(tmp_path / "ewt.conllu", text_column=None if given_words else "text") as reader:
        records = list(reader)
    stream = extractor.stream(records, {"gold": feature, "white": "last_hidden_state.words(mean)"})
    done = 0
    for batch in stream:
        for record, gold, white in zip(batch.records, batch.features["gold"], batch.features["white"], strict=True):
            wanted = record.words if given_words else record.spans
            assert wanted is not None
            assert gold.shape == (len(wanted), H)
            assert gold.any(axis=1).all(), record.text
            if not given_words:
                assert white.shape == (len(record.text.split()), H)
                assert white.any(axis=1).all(), record.text
            done += 1
    assert done == len(records) > 200
    assert (stream.summary.empty_words, stream.summary.empty_spans) == (0, 0)
