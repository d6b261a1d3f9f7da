"""Measures of other projects on texts in `shared/data`, and the numbers that they published.

MTEB's protocols follow its version 1.12.75, which computed the published scores (embeddings-benchmark/results):
Spearman's correlation of cosines with gold scores, and logistic regression on 8 texts per label in 10 draws.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

SHARED = Path(__file__).parents[1].parent / "shared"
DATA = SHARED / "data"
RECORDED = SHARED / "judges/tei/recorded.json"

Vectors = npt.NDArray[Any]
Encode = Callable[[list[str]], Vectors]


@dataclass(frozen=True, kw_only=True)
class Published:
    """Scores that MTEB's results hold for a model; `banking77` is the accuracy of each draw."""

    sts_benchmark: float
    sick_r: float
    banking77: tuple[float, ...] | None = None


MINILM = Published(
    sts_benchmark=0.8203247283076371,
    sick_r=0.7758245525469719,
    banking77=(
        *(0.798051948051948, 0.8016233766233766, 0.812987012987013, 0.8055194805194805, 0.7918831168831169),
        *(0.8048701298701298, 0.7909090909090909, 0.788961038961039, 0.8090909090909091, 0.8003246753246753),
    ),
)
"""all-MiniLM-L6-v2 at 8b3219a92973c328a8e22fadcfa821b5dc75636a."""

MPNET = Published(sts_benchmark=0.8342190973012376, sick_r=0.8058541829408069)
"""all-mpnet-base-v2 at 84f2bcc00d77236f9e89c8a360a00fb1139bf47d."""


def recorded_vectors() -> dict[str, Any]:
    """Load the vectors recorded by text-embeddings-inference, or skip."""
    if not RECORDED.is_file():
        pytest.skip(f"recorded vectors of text-embeddings-inference are not there: {RECORDED}")
    entries: dict[str, Any] = json.loads(RECORDED.read_text(encoding="utf-8"))
    return entries


def cosines(ours: Vectors, theirs: Vectors) -> Vectors:
    """Return the cosine of each row of two matrices."""
    product: Vectors = (ours * theirs).sum(axis=1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    return product


def error(ours: Vectors, theirs: Vectors) -> float:
    """Return the largest |ours - theirs| over the RMS of theirs."""
    return float(np.abs(ours - theirs).max() / np.sqrt(np.mean(np.square(theirs))))


def sts_benchmark(encode: Encode) -> float:
    """Score the 1,379 test pairs of STSBenchmark."""
    rows = list(csv.reader(_lines("stsb_multi/stsb-en-test.csv")))
    assert len(rows) == 1379
    return _spearman(encode, [(one, other, float(gold)) for one, other, gold in rows])


def sick_r(encode: Encode) -> float:
    """Score all 9,927 pairs of SICK, which MTEB joins to one split."""
    rows = []
    for part in ("train", "trial", "test_annotated"):
        for line in _lines(f"sick/SICK_{part}.txt")[1:]:
            _, one, other, gold, _ = line.rstrip().split("\t")
            rows.append((one, other, float(gold)))
    assert len(rows) == 9927
    return _spearman(encode, rows)


def banking77(encode: Encode) -> list[float]:
    """Return the accuracy of each of the ten draws of training texts."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    train, test = (list(csv.DictReader(_lines(f"banking77/{part}.csv"))) for part in ("train", "test"))
    ids = {name: number for number, name in enumerate(sorted({row["category"] for row in train}))}
    draws = list(_draws([row["category"] for row in train], per_label=8, times=10))
    used = sorted(set().union(*draws))
    vectors = dict(zip(used, encode([train[row]["text"] for row in used]), strict=True))
    tested = encode([row["text"] for row in test])
    gold = np.array([ids[row["category"]] for row in test])
    accuracies = []
    for draw in draws:
        classifier = linear_model.LogisticRegression(max_iter=100, random_state=42)
        classifier.fit(np.stack([vectors[row] for row in draw]), [ids[train[row]["category"]] for row in draw])
        accuracies.append(float(np.mean(classifier.predict(tested) == gold)))
    return accuracies


def _draws(labels: list[str], *, per_label: int, times: int) -> Iterable[list[int]]:
    # Each draw shuffles the order that the one before it left, with the same seed.
    order = list(range(len(labels)))
    for _ in range(times):
        np.random.RandomState(42).shuffle(order)
        counts: Counter[str] = Counter()
        draw = []
        for row in order:
            if counts[labels[row]] < per_label:
                counts[labels[row]] += 1
                draw.append(row)
        yield draw


def _spearman(encode: Encode, pairs: list[tuple[str, str, float]]) -> float:
    stats = pytest.importorskip("scipy.stats")
    texts = sorted({text for one, other, _ in pairs for text in (one, other)})
    vectors = np.asarray(encode(texts), dtype=np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    row = {text: number for number, text in enumerate(texts)}
    cosines = [vectors[row[one]] @ vectors[row[other]] for one, other, _ in pairs]
    return float(stats.spearmanr(cosines, [gold for _, _, gold in pairs]).statistic)


def _lines(name: str) -> list[str]:
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"the texts are not there: {path}")
    with path.open(encoding="utf-8", newline="") as file:
        return list(file)
