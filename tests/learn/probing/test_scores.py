"""Metrics against scikit-learn, and the bootstrap over pairs against one over rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("sklearn", reason="scikit-learn is not installed (extra: learn)")

from sklearn import metrics

from layertap.learn.metrics import METRICS, Tally, class_scores
from layertap.learn.probing.scores import scored

ORACLES = {
    "accuracy": metrics.accuracy_score,
    "macro_f1": lambda true, predicted: metrics.f1_score(true, predicted, average="macro", zero_division=0),
    "mcc": metrics.matthews_corrcoef,
}


@settings(max_examples=60, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30),
    metric=st.sampled_from(sorted(METRICS)),
)
@pytest.mark.filterwarnings("ignore:A single label:UserWarning")
def test_metrics_are_scikit_learns(pairs, metric):
    true, predicted = np.array(pairs, dtype=np.int64).T
    found = METRICS[metric](Tally.of(true, predicted, 4))[0]
    assert found == pytest.approx(ORACLES[metric](true, predicted), abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(pairs=st.lists(st.tuples(*[st.sampled_from("abcd")] * 2), min_size=1, max_size=30))
@pytest.mark.filterwarnings("ignore:A single label:UserWarning")
def test_scores_of_each_class_are_scikit_learns(pairs):
    gold, predicted = zip(*pairs, strict=True)
    found = class_scores(gold, predicted)
    expected = metrics.classification_report(gold, predicted, output_dict=True, zero_division=0)
    assert list(found["classes"]) == sorted({*gold, *predicted})
    for name, scores in found["classes"].items():
        theirs = [expected[name][key] for key in ("precision", "recall", "f1-score", "support")]
        assert list(scores.values()) == pytest.approx(theirs)
    for name, oracle in ORACLES.items():
        assert found[name] == pytest.approx(oracle(gold, predicted), abs=1e-12)


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_intervals_are_those_of_resampled_rows(metric):
    random = np.random.default_rng(1)
    true = random.integers(0, 3, 300)
    predicted = np.where(random.random(300) < 0.7, true, random.integers(0, 3, 300))
    found = scored(metric, true, predicted, 3, seed=0)
    rows = [random.integers(0, 300, 300) for _ in range(1000)]
    drawn = [ORACLES[metric](true[chosen], predicted[chosen]) for chosen in rows]
    assert found.value == pytest.approx(ORACLES[metric](true, predicted))
    assert found.low == pytest.approx(np.quantile(drawn, 0.025), abs=0.012)
    assert found.high == pytest.approx(np.quantile(drawn, 0.975), abs=0.012)
    assert found.error == pytest.approx(np.std(drawn), rel=0.15)
    assert found.low < found.value < found.high


def test_the_same_seed_gives_the_same_interval():
    true, predicted = np.arange(40) % 2, np.arange(40) % 3 % 2
    assert scored("accuracy", true, predicted, 2, seed=3) == scored("accuracy", true, predicted, 2, seed=3)
    assert scored("accuracy", true, predicted, 2, seed=3) != scored("accuracy", true, predicted, 2, seed=4)


def test_rows_of_a_group_are_drawn_together():
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), 10)
    right = np.repeat(random.random(60) < 0.7, 10)  # a sentence is all right or all wrong
    true = random.integers(0, 2, 600)
    predicted = np.where(right, true, 1 - true)
    alone = scored("accuracy", true, predicted, 2, seed=0)
    together = scored("accuracy", true, predicted, 2, seed=0, groups=groups)
    assert together.value == alone.value
    assert together.error == pytest.approx(alone.error * 10**0.5, rel=0.15)
    chosen = [random.integers(0, 60, 60) for _ in range(2000)]
    drawn = [right.reshape(60, 10)[sentences].mean() for sentences in chosen]
    assert together.low == pytest.approx(np.quantile(drawn, 0.025), abs=0.02)
