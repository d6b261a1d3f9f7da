"""Advice of a probe: true of all numbers that are printed."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed (extra: learn)")

from layertap.learn.bootstrap import Score
from layertap.learn.probing.findings import ClassDetails, Findings, Row
from layertap.learn.probing.table import CELLS, recommendation, scale, whiskers


def score(value, error=0.01):
    return Score(value=value, low=value - 2 * error, high=value + 2 * error, error=error)


def findings(*rows, apart=True):
    """Build findings from pairs of a test score and a held-out score, one per layer."""
    details = ClassDetails(
        names=("a", "b"),
        control_metric="accuracy",
        baseline=score(0.5),
        chance=score(0.5),
        confusion=np.eye(2, dtype=np.int64),
        plane=np.zeros((1, 2)),
        plane_classes=np.zeros(1, dtype=np.int64),
        plane_feature="x",
        plane_how="pca",
    )
    return Findings(
        metric="accuracy",
        rows=tuple(
            Row(
                feature=f"hidden_states[{layer}].mean",
                layer=layer,
                pooling="mean",
                score=score(tested),
                control=0.5,
                selectivity=0.1,
                selection=score(held),
            )
            for layer, (tested, held) in enumerate(rows)
        ),
        details=details,
        apart=apart,
        alike=np.eye(1),
        alike_features=("x",),
        mistakes=(),
        num_mistakes=0,
        settings={},
        provenance={},
        notes=(),
    )


def test_a_cheaper_layer_is_within_an_error_of_the_best_by_both_scores():
    # as for TREC: near on the held-out part, far below on the test part that is printed
    assert findings((0.912, 0.866), (0.939, 0.874)).frugal is None
    assert findings((0.939, 0.842), (0.939, 0.874)).frugal is None
    found = findings((0.912, 0.866), (0.935, 0.866), (0.939, 0.874))
    assert found.frugal is found.rows[1]
    assert recommendation(found) == (
        "hidden_states[2].mean: accuracy 0.939 (95% interval 0.919 to 0.959); the most frequent class alone has 0.500 "
        "(95% interval 0.480 to 0.520). hidden_states[1].mean costs less: 0.935 (95% interval 0.915 to 0.955); held "
        "out 0.866 (95% interval 0.846 to 0.886) against 0.874 (95% interval 0.854 to 0.894). Both are within one "
        "standard error (0.010; held out 0.010) of the best."
    )


def test_in_a_cross_validation_the_score_decides():
    found = findings((0.92, 0.92), (0.931, 0.931), (0.94, 0.94), apart=False)
    assert found.frugal is found.rows[1]
    assert recommendation(found).endswith(
        "hidden_states[1].mean costs less: 0.931 (95% interval 0.911 to 0.951), within one standard error (0.010) of "
        "the best."
    )


def test_the_chart_begins_at_chance_so_that_a_flat_result_looks_flat():
    found = findings((0.9, 0.9), (0.91, 0.91))
    assert found.axis == (0.48, pytest.approx(0.93))
    assert scale(found) == "|0.480" + " " * (CELLS - 10) + "0.930|"
    places = [whiskers(row, found).index("o") for row in found.rows]
    assert min(places) > 0.8 * CELLS
    assert places[1] - places[0] <= 1


def test_features_at_chance_are_not_recommended():
    found = findings((0.5, 0.9), (0.41, 0.95))  # chance is 0.5
    assert found.at_chance
    assert recommendation(found).endswith(
        " No feature is better than predicting the most frequent class, so that none is worth using for these labels."
    )
    assert not findings((0.5, 0.9), (0.51, 0.95)).at_chance
