"""Metrics against scikit-learn, and the bootstrap over pairs against one over rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("sklearn", reason="scikit-learn is not installed (extra: learn)")

from scipy import stats
from sklearn import metrics

from layertap.learn.bootstrap import Gold, correlated, shuffled
from layertap.learn.metrics import METRICS, ConfusionCounts, class_scores, correlation, entity_counts, entity_f1

ORACLES = {
    "accuracy": metrics.accuracy_score,
    "macro_f1": lambda true, predicted: metrics.f1_score(true, predicted, average="macro", zero_division=0),
    "mcc": metrics.matthews_corrcoef,
}


def scored(metric, true, predicted, num_classes, *, seed, groups=None):
    gold = Gold(classes=true, names=tuple(map(str, range(num_classes))), owners=groups)
    return gold.scored(metric, np.arange(len(true)), predicted, seed=seed)


@settings(max_examples=60, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30),
    metric=st.sampled_from(sorted(METRICS)),
)
@pytest.mark.filterwarnings("ignore:A single label:UserWarning")
def test_metrics_are_scikit_learns(pairs, metric):
    true, predicted = np.array(pairs, dtype=np.int64).T
    found = METRICS[metric](ConfusionCounts.of(true, predicted, 4))[0]
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


TAGS = st.sampled_from(["O", "B-x", "I-x", "B-y", "I-y"])


@settings(max_examples=60, deadline=None)
@given(sentences=st.lists(st.lists(st.tuples(TAGS, TAGS), min_size=1, max_size=8), min_size=1, max_size=6))
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
def test_entity_f1_is_seqevals(sentences):
    seqeval = pytest.importorskip("seqeval.metrics", reason="seqeval is not installed (extra: learn)")
    gold, predicted = ([[pair[side] for pair in sentence] for sentence in sentences] for side in (0, 1))
    found = entity_f1(entity_counts(gold, predicted).sum(axis=0, keepdims=True))[0]
    entities = any(tag != "O" for tags in (*gold, *predicted) for tag in tags)
    assert found == pytest.approx(seqeval.f1_score(gold, predicted, zero_division=0) if entities else 0.0)


def test_entity_f1_of_rows_in_any_order_and_its_interval():
    pytest.importorskip("seqeval", reason="seqeval is not installed (extra: learn)")
    random = np.random.default_rng(0)
    owners = np.repeat(np.arange(80), 5)
    classes = random.integers(0, 3, 400)
    predicted = np.where(random.random(400) < 0.8, classes, random.integers(0, 3, 400))
    gold = Gold(classes=classes, names=("B-x", "I-x", "O"), owners=owners)
    rows = np.arange(400)
    found = gold.scored("entity_f1", rows, predicted, seed=0)
    # As cross-validation has them: sentences in another order, words within one in theirs.
    mixed = np.concatenate([rows[owners == owner] for owner in random.permutation(80)])
    assert gold.value("entity_f1", mixed, predicted[mixed]) == found.value
    drawn = []
    for _ in range(300):
        sentences = random.integers(0, 80, 80)
        pieces = [[gold.names[i] for i in column[owners == s]] for column in (classes, predicted) for s in sentences]
        drawn.append(entity_f1(entity_counts(pieces[:80], pieces[80:]).sum(axis=0, keepdims=True))[0])
    assert found.low == pytest.approx(np.quantile(drawn, 0.025), abs=0.03)
    assert found.high == pytest.approx(np.quantile(drawn, 0.975), abs=0.03)
    assert found.low < found.value < found.high


NUMBERS = st.integers(-3, 3).map(float)


@settings(max_examples=80, deadline=None)
@given(pairs=st.lists(st.tuples(NUMBERS, NUMBERS), min_size=3, max_size=30), seed=st.integers(0, 9))
@pytest.mark.filterwarnings("ignore::scipy.stats.ConstantInputWarning")
def test_correlations_of_resamples_are_scipys_of_the_rows_they_stand_for(pairs, seed):
    one, other = np.array(pairs).T
    chosen = np.random.default_rng(seed).integers(0, len(one), (4, len(one)))
    counts = np.array([np.bincount(rows, minlength=len(one)) for rows in chosen], dtype=np.float64)
    for metric, oracle in (("spearman", stats.spearmanr), ("pearson", stats.pearsonr)):
        expected = np.nan_to_num([oracle(one[rows], other[rows]).statistic for rows in chosen])
        np.testing.assert_allclose(correlation(metric, one, other, counts), expected, atol=1e-9)


@pytest.mark.parametrize("metric", ["spearman", "pearson"])
def test_intervals_of_correlations(metric):
    random = np.random.default_rng(0)
    one = random.standard_normal(400)
    other = one + random.standard_normal(400)
    found = correlated(metric, one, other, seed=0)
    oracle = getattr(stats, f"{metric}r")
    drawn = [oracle(one[rows], other[rows]).statistic for rows in random.integers(0, 400, (1000, 400))]
    assert found.value == pytest.approx(oracle(one, other).statistic)
    assert found.low == pytest.approx(np.quantile(drawn, 0.025), abs=0.012)
    assert found.high == pytest.approx(np.quantile(drawn, 0.975), abs=0.012)
    # Of numbers that have nothing to do with each other the correlation has a deviation of 1 / sqrt(N).
    assert shuffled(metric, one, other, seed=0) == pytest.approx(1.96 / 20, rel=0.1)
