from __future__ import annotations

import random
import zipfile
from pathlib import Path

import pytest

from benchmarks.workload import (
    FULL_SIZE,
    WORKLOAD_NAMES,
    DataNotFoundError,
    calibration_texts,
    make_workloads,
    read_documents,
    read_paragraphs,
    read_sentences,
    sample_in_order,
)

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def write_corpus(data: Path, *, paragraphs: int = 1_200, sentences: int = 900, documents: int = 220) -> None:
    novels, reviews, long = (data / name for name in ("novels_en", "movie_review_sentences", "movie_reviews_long"))
    for folder in (novels, reviews, long):
        folder.mkdir(parents=True)
    # one book of paragraphs: byte-order mark, CRLF, blank lines; and one of hard-wrapped lines
    lines = [f"Paragraph {i}. " + "word " * (i % 7 + 1) for i in range(paragraphs - 1)] + ["a long one " * 60]
    (novels / "b_lines.txt").write_bytes(("\ufeff" + "\r\n\r\n".join(lines)).encode())
    (novels / "a_wrapped.txt").write_text("wrapped at seventy characters\n" * 50, "utf-8")
    (novels / "SOURCE.md").write_text("not a book", "utf-8")
    half = sentences // 2
    (reviews / "rt-polarity.neg").write_text("".join(f"bad {i} \n" for i in range(half)), "utf-8")
    (reviews / "rt-polarity.pos").write_text("".join(f"good {i} \n" for i in range(sentences - half)), "utf-8")
    with zipfile.ZipFile(long / "movie_reviews.zip", "w") as archive:
        for i in reversed(range(documents)):
            archive.writestr(f"movie_reviews/{'neg' if i % 2 else 'pos'}/cv{i:03}.txt", f"document {i} \n on and on\n")
        archive.writestr("movie_reviews/README", "not a review")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_corpus(folder)
    return folder


def test_only_books_with_a_paragraph_a_line_are_read(data: Path) -> None:
    paragraphs = read_paragraphs(data)
    assert len(paragraphs) == 1_200
    assert paragraphs[0] == "Paragraph 0. word"
    assert not any("wrapped" in paragraph or "\r" in paragraph for paragraph in paragraphs)


def test_sentences_come_negative_first_and_documents_by_name(data: Path) -> None:
    sentences = read_sentences(data)
    assert (sentences[0], sentences[449], sentences[450], len(sentences)) == ("bad 0", "bad 449", "good 0", 900)
    documents = read_documents(data)
    assert len(documents) == 220
    assert documents[0] == "document 1 \n on and on"


@pytest.mark.parametrize("size", [10, 200, FULL_SIZE])
def test_mixture_keeps_its_proportions_at_every_size(data: Path, size: int) -> None:
    workloads = make_workloads(data, size=size)
    counts = {name: len(workloads[name].texts) for name in ("medium", "short", "long")}
    assert counts == {"medium": size // 2, "short": size * 2 // 5, "long": size // 10}
    joined = workloads["medium"].texts + workloads["short"].texts + workloads["long"].texts
    assert workloads["mixture"].texts == joined
    assert tuple(workloads) == WORKLOAD_NAMES


def test_texts_stand_in_corpus_order(data: Path) -> None:
    workloads = make_workloads(data, size=200)
    for name, source in (
        ("medium", read_paragraphs(data)),
        ("short", read_sentences(data)),
        ("long", read_documents(data)),
    ):
        places = [source.index(text) for text in workloads[name].texts]
        assert places == sorted(places)
        assert len(set(places)) == len(places)


def test_same_seed_same_texts_and_another_seed_others(data: Path) -> None:
    assert make_workloads(data, size=200) == make_workloads(data, size=200)
    assert make_workloads(data, size=200, seed=1)["mixture"].texts != make_workloads(data, size=200)["mixture"].texts


def test_single_is_one_sentence_timed_several_times(data: Path) -> None:
    workloads = make_workloads(data, size=200)
    assert workloads["single"].texts == workloads["short"].texts[:1]
    assert workloads["single"].repeats > 1
    assert workloads["mixture"].repeats == 1


def test_calibration_is_drawn_apart_from_what_is_timed(data: Path) -> None:
    texts = calibration_texts(data, count=50)
    assert len(texts) == 50
    assert set(texts) != set(make_workloads(data, size=200)["mixture"].texts)


def test_sample_in_order_draws_without_replacement() -> None:
    items = [str(i) for i in range(20)]
    assert sample_in_order(items, 20, random.Random(0)) == tuple(items)
    drawn = [int(item) for item in sample_in_order(items, 7, random.Random(0))]
    assert drawn == sorted(set(drawn))
    assert len(drawn) == 7


def test_absent_texts_are_said_to_be_absent(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match="--data FOLDER"):
        make_workloads(tmp_path / "nowhere")


def test_too_few_texts_are_refused(tmp_path: Path) -> None:
    write_corpus(tmp_path, documents=199)
    with pytest.raises(DataNotFoundError, match="199 whole movie reviews found, 200 needed"):
        make_workloads(tmp_path, size=200)


def test_damaged_archive_is_refused(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    (tmp_path / "movie_reviews_long" / "movie_reviews.zip").write_bytes(b"not a zip")
    with pytest.raises(DataNotFoundError, match="zip"):
        make_workloads(tmp_path)


@pytest.mark.parametrize("size", [9, FULL_SIZE + 1])
def test_size_out_of_range_is_refused(data: Path, size: int) -> None:
    with pytest.raises(ValueError, match="10 to 2000"):
        make_workloads(data, size=size)


def test_rule_for_books_agrees_with_the_corpus_own_list() -> None:
    if not (SHARED / "novels_en").is_dir():
        pytest.skip("the corpus novels_en is not here")
    rows = (SHARED / "novels_en" / "SOURCE.md").read_text("utf-8").splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows if row.startswith("|")]
    listed = sum(int(row[2]) for row in cells if row[-1] == "line")
    assert len(read_paragraphs(SHARED)) == listed
