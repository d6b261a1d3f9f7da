from __future__ import annotations

import numpy as np

from layertap.learn.exploring import nearest as module
from layertap.learn.exploring.nearest import nearest


def test_neighbours_are_those_of_all_cosines(monkeypatch):
    vectors = np.random.default_rng(0).normal(size=(30, 6)).astype(np.float32)
    vectors[7] = 0
    vectors[9] = 2 * vectors[8]
    monkeypatch.setattr(module, "BLOCK_BYTES", 4 * 30 * 7)  # seven rows at a time
    indices, cosines = nearest(vectors, 4)
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    exact = vectors.astype(np.float64) @ vectors.T / np.maximum(np.outer(lengths, lengths), 1e-30)
    np.fill_diagonal(exact, -2)
    np.testing.assert_allclose(cosines, -np.sort(-exact, axis=1)[:, :4], atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(exact, indices.astype(int), axis=1), cosines, atol=1e-6)
    assert indices[8][0] == 9
    assert indices[9][0] == 8


def test_there_are_no_more_neighbours_than_other_texts():
    assert nearest(np.ones((3, 2), dtype=np.float32), 10)[0].tolist() == [[1, 2], [0, 2], [0, 1]]
    assert nearest(np.ones((1, 2), dtype=np.float32), 10)[0].shape == (1, 0)
