from __future__ import annotations

import numpy as np
import pytest

from layertap.learn.exploring.planes import extent, planes, principal


def test_components_are_those_of_scikit_learn():
    decomposition = pytest.importorskip("sklearn.decomposition")
    vectors = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32) * np.arange(1, 9, dtype=np.float32)
    centred = vectors - vectors.mean(axis=0, dtype=np.float64)
    axes, variance = principal(centred)
    points = centred @ axes
    fitted = decomposition.PCA(2).fit(vectors)
    expected = fitted.transform(vectors)
    scale = np.sqrt(np.square(expected).sum(axis=1).mean())
    np.testing.assert_allclose(np.abs(points), np.abs(expected) / scale, atol=1e-5)
    np.testing.assert_allclose(variance, fitted.explained_variance_ratio_, atol=1e-6)


def test_a_plane_is_turned_onto_the_one_before():
    random = np.random.default_rng(1)
    first = random.normal(size=(40, 5)).astype(np.float32)
    # The same vectors in other coordinates: rotated, mirrored, scaled.
    turned = 3 * first @ np.linalg.qr(random.normal(size=(5, 5)))[0].astype(np.float32)
    one, other = planes([first, turned])
    np.testing.assert_allclose(other.points, one.points, atol=1e-4)
    # Further vectors find their places by the same projection and the same turn.
    np.testing.assert_allclose(other.places(turned), other.points, atol=1e-4)


@pytest.mark.parametrize("vectors", [np.ones((3, 4)), np.zeros((1, 2)), np.array([[1.0], [2.0], [4.0]])])
def test_few_or_equal_vectors_give_finite_points(vectors):
    made = planes([vectors.astype(np.float32), vectors.astype(np.float32)])
    assert all(np.isfinite(plane.points).all() and plane.points.shape == (len(vectors), 2) for plane in made)
    assert min(extent(made)[:2]) > 0
    assert np.isfinite(extent(made)).all()
