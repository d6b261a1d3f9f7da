"""Probes find what is there and nothing else; CKA and projections do what their papers say."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed (extra: learn)")

from layertap.learn.bootstrap import Gold
from layertap.learn.probing.geometry import projection, similarity
from layertap.learn.probing.logistic import STRENGTHS, Split, probe_control, probe_split


def halves(number):
    rows = np.arange(number)
    train, test = rows[: number // 2], rows[number // 2 :]
    return Split(train=train, test=test, fit=train[::2], validate=train[1::2])


def measure(classes, metric):
    gold = Gold(classes=classes, names=("0", "1"))
    return lambda rows, guess: gold.value(metric, rows, guess)


def test_a_probe_finds_a_direction_whatever_its_scale():
    random = np.random.default_rng(0)
    vectors = random.standard_normal((400, 8)).astype(np.float32) * np.float32(1e-3) + 50
    vectors[:, 3] = 7.0  # the same everywhere
    classes = (vectors[:, 5] > 50).astype(np.int64)
    fitted = probe_split(vectors, classes, halves(400), measure(classes, "accuracy"))
    assert (fitted.predicted == classes[200:]).mean() > 0.93
    split = halves(400)
    assert (fitted.validated == classes[split.validate]).mean() > 0.9
    right = fitted.predicted == classes[split.test]
    assert fitted.confidence[right].mean() > fitted.confidence[~right].mean() > 0.5
    assert fitted.strength in STRENGTHS


def test_a_probe_of_noise_predicts_nothing():
    random = np.random.default_rng(0)
    vectors, classes = random.standard_normal((600, 5)).astype(np.float32), random.integers(0, 2, 600)
    predicted = probe_control(vectors, classes, halves(600), 0.01)
    assert abs((predicted == classes[300:]).mean() - 0.5) < 0.1


def test_the_test_rows_tell_the_probe_nothing():
    random = np.random.default_rng(0)
    vectors, classes = random.standard_normal((100, 5)).astype(np.float32), random.integers(0, 2, 100)
    split = halves(100)
    once = probe_split(vectors, classes, split, measure(classes, "mcc"))
    changed = classes.copy()
    changed[split.test] = 1 - changed[split.test]
    again = probe_split(vectors, changed, split, measure(changed, "mcc"))
    np.testing.assert_array_equal(once.predicted, again.predicted)
    assert once.strength == again.strength


def test_cka_knows_rotations_and_scales_and_nothing_else():
    random = np.random.default_rng(0)
    vectors = random.standard_normal((200, 6)).astype(np.float32)
    rotation, _ = np.linalg.qr(random.standard_normal((6, 6)))
    other = random.standard_normal((200, 6)).astype(np.float32)
    flat = np.ones((200, 4), dtype=np.float32)
    found = similarity([vectors, (3 * vectors @ rotation + 5).astype(np.float32), other, flat])
    np.testing.assert_allclose(np.diag(found)[:3], 1)
    assert found[0, 1] == pytest.approx(1, abs=1e-6)
    assert found[0, 2] < 0.1
    assert (found[3] == 0).all()
    kernels = [one @ one.T for one in (vectors - vectors.mean(0), other - other.mean(0))]
    naive = (kernels[0] * kernels[1]).sum() / np.linalg.norm(kernels[0]) / np.linalg.norm(kernels[1])
    assert found[0, 2] == pytest.approx(naive, rel=1e-4)


@pytest.mark.parametrize("how", ["pca", "tsne"])
@pytest.mark.parametrize(("number", "width"), [(12, 5), (2, 5), (5, 1)])
def test_projections_are_planes(how, number, width):
    vectors = np.random.default_rng(0).standard_normal((number, width)).astype(np.float32)
    found = projection(vectors, how=how, seed=0)
    assert found.shape == (number, 2)
    assert np.isfinite(found).all()
    assert (projection(np.ones_like(vectors), how=how, seed=0) == 0).all()
    np.testing.assert_array_equal(found, projection(vectors, how=how, seed=0))
