"""Provide the texts that are timed, real ones in their natural mixture of lengths."""

from __future__ import annotations

import random
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

SEED = 20_240_501
FULL_SIZE = 2_000
DEFAULT_DATA = Path(__file__).parents[2] / "shared" / "data"

# A book of hard-wrapped lines has no line longer than about 110 characters; a book with one paragraph a line
# always has some of more than 1,500.
_WRAPPED_LINE_LIMIT = 500


class DataNotFoundError(Exception):
    """Raised when the texts are missing; the message says where they belong and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Texts to run through a model, in the order in which rows get them."""

    name: str
    description: str
    texts: tuple[str, ...]
    repeats: int = 1  # how often the texts are run in one timing: more than once where once is too short to time


def read_paragraphs(data: Path) -> list[str]:
    """Read the paragraphs of novels whose files have one paragraph per line, book by book."""
    paragraphs: list[str] = []
    for book in sorted((data / "novels_en").glob("*.txt")):
        lines = [line.strip() for line in book.read_text("utf-8-sig").splitlines()]
        if max(map(len, lines), default=0) > _WRAPPED_LINE_LIMIT:
            paragraphs.extend(line for line in lines if line)
    return paragraphs


def read_sentences(data: Path) -> list[str]:
    """Read single sentences of movie reviews, the negative file first."""
    sentences: list[str] = []
    for name in ("rt-polarity.neg", "rt-polarity.pos"):
        lines = (data / "movie_review_sentences" / name).read_text("utf-8").split("\n")
        sentences.extend(line.strip() for line in lines if line.strip())
    return sentences


def read_documents(data: Path) -> list[str]:
    """Read whole movie reviews; most are longer than 512 tokens, so that a model's limit truncates them."""
    with zipfile.ZipFile(data / "movie_reviews_long" / "movie_reviews.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".txt"))
        return [archive.read(name).decode("utf-8").strip() for name in names]


def read_treebank(data: Path) -> Workload:
    """Read the sentences of the training part of UD English EWT as raw text.

    Raises:
        DataNotFoundError: the data are missing.
    """
    file = data / "ud_english_ewt" / "en_ewt-ud-train.conllu"
    try:
        lines = file.read_text("utf-8").split("\n")
    except OSError as error:
        raise DataNotFoundError(
            f"no treebank at {file} ({error}); say where the data is with --data FOLDER."
        ) from error
    texts = tuple(line.removeprefix("# text = ") for line in lines if line.startswith("# text = "))
    return Workload(name="treebank", description=f"{len(texts)} sentences of UD English EWT", texts=texts)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    name: str
    what: str
    count: int  # texts in the full mixture
    read: Callable[[Path], list[str]]


_SOURCES = (
    _Source(name="medium", what="paragraphs of novels", count=1_000, read=read_paragraphs),
    _Source(name="short", what="sentences of movie reviews", count=800, read=read_sentences),
    _Source(name="long", what="whole movie reviews", count=200, read=read_documents),
)
WORKLOAD_NAMES = ("mixture", "short", "medium", "long", "single")


def sample_in_order(items: Sequence[str], count: int, rng: random.Random) -> tuple[str, ...]:
    """Draw ``count`` items without replacement, and keep their order in ``items``."""
    return tuple(items[index] for index in sorted(rng.sample(range(len(items)), count)))


def make_workloads(data: Path, *, size: int = FULL_SIZE, seed: int = SEED) -> dict[str, Workload]:
    """Build the workloads: the mixture, each of its three sources alone, and a single short text.

    Args:
        data: Folder with ``novels_en``, ``movie_review_sentences`` and ``movie_reviews_long``.
        size: Number of texts in the mixture; its three parts keep their proportions (1,000 : 800 : 200 of 2,000).
        seed: Seed of the draw. Each source has its own generator, so that sizes do not affect other draws.

    Raises:
        DataNotFoundError: A source is missing.
        ValueError: ``size`` is less than 10 (one long text) or more than 2,000.
    """
    if not 10 <= size <= FULL_SIZE:
        raise ValueError(f"the mixture has 10 to {FULL_SIZE} texts, not {size}")
    parts: dict[str, Workload] = {}
    for source in _SOURCES:
        try:
            texts = source.read(data)
        except (OSError, zipfile.BadZipFile) as error:
            raise DataNotFoundError(_missing(data, str(error))) from error
        if len(texts) < source.count:
            raise DataNotFoundError(_missing(data, f"{len(texts)} {source.what} found, {source.count} needed"))
        count = round(source.count * size / FULL_SIZE)
        drawn = sample_in_order(texts, count, random.Random(f"{seed}-{source.name}"))
        parts[source.name] = Workload(name=source.name, description=f"{count} {source.what}", texts=drawn)
    mixture = tuple(text for source in _SOURCES for text in parts[source.name].texts)
    single = parts["short"].texts[:1]
    workloads = {
        "mixture": Workload(
            name="mixture", description=" + ".join(part.description for part in parts.values()), texts=mixture
        ),
        **parts,
        "single": Workload(name="single", description="one sentence, alone", texts=single, repeats=20),
    }
    return {name: workloads[name] for name in WORKLOAD_NAMES}


def calibration_texts(data: Path, count: int = 128) -> tuple[str, ...]:
    """Draw texts of the same kind as the mixture with another seed, for libraries that quantise on examples."""
    texts = make_workloads(data, size=200, seed=SEED + 1)["mixture"].texts
    return sample_in_order(texts, min(count, len(texts)), random.Random(SEED))


def _missing(data: Path, reason: str) -> str:
    return (
        f"no texts to time under {data} ({reason}). The benchmark reads novels_en, movie_review_sentences "
        "and movie_reviews_long; say where they are with --data FOLDER."
    )
