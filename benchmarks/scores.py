"""Measure the effect of precisions on two tasks: SST-2 with a linear classifier, and STS-B with cosines.

The reference is transformers in float32, in padded batches; the rows are the native engine in each precision of the
machine. All rows embed the same texts, and the solver of ``layertap fit`` fits all classifiers. The interval of a
difference to the reference is a paired bootstrap's: both are scored on the same resamples of the test part.

Shape letters: L layers, N texts, H numbers in a vector, R resamples.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from benchmarks.learning.tasks import LearningTask, Part, read_task
from benchmarks.workload import DataNotFoundError

Vectors = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Classes = npt.NDArray[np.int64]
Classifier = Callable[[Vectors], Classes]

REFERENCE = "transformers float32"
PRECISIONS: tuple[Literal["float32", "bfloat16", "int8"], ...] = ("float32", "bfloat16", "int8")
RESAMPLES = 1_000
SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Score of a row, its difference to the reference, and the middle 95 % of the resampled differences."""

    value: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Closeness:
    """Cosines of the vectors of all texts with those of the reference."""

    smallest: float
    median: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoresTable:
    """Scores of every row.

    Attributes:
        texts: number of embedded texts of both tasks.
        sentences, pairs: sizes of the test parts of SST-2 and STS-B.
        scores: scores of each row, by the name of the score.
        closeness: cosines of each row, by feature.
        failed: rows that this machine cannot run, with the reason.
    """

    texts: int
    sentences: int
    pairs: int
    scores: dict[str, dict[str, Score]]
    closeness: dict[str, dict[str, Closeness]]
    failed: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Similarity:
    """Pairs of texts with human judgements of their similarity, 0 to 5."""

    first: list[str]
    second: list[str]
    scores: Doubles


def measure_scores(data: Path, *, threads: int, say: Callable[[str], None]) -> ScoresTable:
    """Measure the scores of MiniLM in a separate process.

    Raises:
        DataNotFoundError: SST-2 or STS-B is missing.
    """
    say("scores")
    sentiment, similarity = read_task("sst2", data), read_similarity(data)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(scores_of_rows, sentiment, similarity, threads).result()


def read_similarity(data: Path) -> Similarity:
    """Read the English test part of STS-B.

    Raises:
        DataNotFoundError: the data are missing.
    """
    file = data / "stsb_multi" / "stsb-en-test.csv"
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            rows = list(csv.reader(lines))
    except OSError as error:
        raise DataNotFoundError(f"no STS-B at {file} ({error}); say where the data is with --data FOLDER.") from error
    scores = np.array([float(score) for _, _, score in rows])
    return Similarity(first=[row[0] for row in rows], second=[row[1] for row in rows], scores=scores)


def scores_of_rows(sentiment: LearningTask, similarity: Similarity, threads: int) -> ScoresTable:
    """Score the rows in turn, on the last layer and on the reference's best layer on the validation part."""
    import torch

    from benchmarks.learning.layertap_side import LayertapSide
    from benchmarks.learning.transformers_side import TransformersSide
    from layertap.errors import LayertapError

    torch.set_num_threads(threads)
    tasks = _Tasks(sentiment, similarity, LayertapSide().fit_layer)
    states = TransformersSide().vectors(tasks.texts)
    last = len(states) - 1
    best = max(range(last + 1), key=lambda layer: tasks.accuracy_on_dev(states[layer]))
    layers = {"last_hidden_state.mean": last, f"hidden_states[{best}].mean": best}
    vectors_of = {REFERENCE: {feature: states[layer] for feature, layer in layers.items()}}
    failed = {}
    for precision in PRECISIONS:
        row = f"layertap {precision}"
        try:
            side = LayertapSide(precision=precision, backend="native", threads=threads)
        except LayertapError as error:
            failed[row] = str(error)
            continue
        states = side.vectors(tasks.texts)
        vectors_of[row] = {feature: states[layer] for feature, layer in layers.items()}
    return _table(tasks, vectors_of, failed)


class _Tasks:
    """Texts of both tasks laid end to end, and the scores of their vectors [N, H]."""

    def __init__(
        self,
        sentiment: LearningTask,
        similarity: Similarity,
        fit: Callable[[Vectors, Classes, int], Classifier],
    ) -> None:
        assert sentiment.dev is not None
        self._fit = fit
        self._scores = similarity.scores
        parts = (sentiment.train, sentiment.dev, sentiment.test)
        texts = [item for part in parts for item in part.items]
        texts += [*similarity.first, *similarity.second]
        self.texts = Part(items=texts, labels=[""] * len(texts))
        names = sorted(set(sentiment.train.flat))
        self._classes = [np.array([names.index(label) for label in part.flat], dtype=np.int64) for part in parts]
        ends = np.cumsum([0, *map(len, parts), *[len(similarity.first)] * 2]).tolist()
        self.sentences, self.pairs = len(sentiment.test), len(similarity.scores)
        self._train, self._dev, self._test, self._first, self._second = map(slice, ends[:-1], ends[1:])

    def accuracy_on_dev(self, vectors: Vectors) -> float:
        """Return the validation accuracy of a classifier fitted on the training part."""
        return float((self._fitted(vectors)(vectors[self._dev]) == self._classes[1]).mean())

    def classifiers(self, vectors: Mapping[str, Vectors]) -> dict[str, Classifier]:
        """Fit one classifier per feature on the training part."""
        return {feature: self._fitted(each) for feature, each in vectors.items()}

    def statistics(
        self, vectors: Mapping[str, Vectors], classifiers: Mapping[str, Mapping[str, Classifier]]
    ) -> dict[str, Statistic]:
        """Build the statistics to score, by name, for each set of classifiers and a note about their training data."""
        statistics: dict[str, Statistic] = {}
        for feature, each in vectors.items():
            for note, fitted in classifiers.items():
                right = fitted[feature](each[self._test]) == self._classes[2]
                statistics[f"SST-2 accuracy, `{feature}`{note}"] = accuracy(right)
        for feature, each in vectors.items():
            statistics[f"STS-B Spearman, `{feature}`"] = spearman(
                _cosines(each[self._first], each[self._second]), self._scores
            )
        return statistics

    def _fitted(self, vectors: Vectors) -> Classifier:
        return self._fit(vectors[self._train], self._classes[0], int(self._classes[0].max()) + 1)


def _table(tasks: _Tasks, vectors_of: Mapping[str, Mapping[str, Vectors]], failed: dict[str, str]) -> ScoresTable:
    """Build the table from the vectors [N, H] of each row and feature."""
    reference = vectors_of[REFERENCE]
    classifiers = {row: tasks.classifiers(vectors) for row, vectors in vectors_of.items()}
    scored = {
        row: tasks.statistics(vectors, {"": classifiers[row], f", fitted on {REFERENCE}": classifiers[REFERENCE]})
        for row, vectors in vectors_of.items()
    }
    return ScoresTable(
        texts=len(tasks.texts),
        sentences=tasks.sentences,
        pairs=tasks.pairs,
        scores={
            row: {name: compared(statistic, scored[REFERENCE][name]) for name, statistic in statistics.items()}
            for row, statistics in scored.items()
        },
        closeness={
            row: {feature: closeness(vectors[feature], reference[feature]) for feature in reference}
            for row, vectors in vectors_of.items()
        },
        failed=failed,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistic:
    """A statistic of test items that can be resampled.

    Attributes:
        number: number N of items.
        of: function of float64 [R, N], how often each item is drawn, that returns the score of each resample, [R].
    """

    number: int
    of: Callable[[Doubles], Doubles]


def accuracy(right: npt.NDArray[np.bool_]) -> Statistic:
    """Build the accuracy from whether each prediction [N] is right."""
    return Statistic(number=len(right), of=lambda counts: counts @ right.astype(np.float64) / len(right))


def spearman(cosines: Doubles, scores: Doubles) -> Statistic:
    """Build the rank correlation of cosines [N] with human judgements [N]."""
    from layertap.learn.metrics import correlation

    return Statistic(number=len(scores), of=lambda counts: correlation("spearman", cosines, scores, counts))


def compared(statistic: Statistic, reference: Statistic) -> Score:
    """Compare a score with the reference's on the same resamples of the same items."""
    assert statistic.number == reference.number
    number = statistic.number
    once = np.ones((1, number))
    value, base = float(statistic.of(once)[0]), float(reference.of(once)[0])
    random = np.random.default_rng(SEED)
    counts = random.multinomial(number, np.full(number, 1 / number), size=RESAMPLES).astype(np.float64)
    low, high = np.quantile(statistic.of(counts) - reference.of(counts), (0.025, 0.975))
    return Score(value=value, difference=value - base, low=float(low), high=float(high))


def closeness(vectors: Vectors, reference: Vectors) -> Closeness:
    """Summarise the cosines of vectors [N, H] with those of the reference."""
    cosines = _cosines(vectors, reference)
    return Closeness(smallest=float(cosines.min()), median=float(np.median(cosines)))


def _cosines(one: Vectors, other: Vectors) -> Doubles:
    left, right = one.astype(np.float64), other.astype(np.float64)
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    cosines: Doubles = (left * right).sum(axis=1) / norms
    return cosines
