from __future__ import annotations

import numpy as np

from layertap.learn.exploring.index import CorpusIndex
from layertap.learn.exploring.nearest import nearest
from layertap.learn.exploring.planes import planes

random = np.random.default_rng(3)
LAYERS = [random.normal(size=(40, 6)).astype(np.float32) for _ in range(3)]


def test_a_text_of_the_corpus_finds_itself_then_its_neighbours_at_its_place():
    made = planes(LAYERS)
    arrays = CorpusIndex.of(LAYERS, made).search([layer[7] for layer in LAYERS], 5)
    assert {name: array.shape for name, array in arrays.items()} == {"near": (3, 5), "cosine": (3, 5), "place": (3, 2)}
    for i, layer in enumerate(LAYERS):
        indices, cosines = nearest(layer, 4)
        assert arrays["near"][i].tolist() == [7, *indices[7]]
        np.testing.assert_allclose(arrays["cosine"][i], [1, *cosines[7]], atol=1e-6)
        np.testing.assert_allclose(arrays["place"][i], made[i].points[7], atol=1e-5)


def test_few_texts_equal_texts_and_a_vector_of_zeros():
    same = np.ones((2, 3), dtype=np.float32)
    arrays = CorpusIndex.of([same], planes([same])).search([np.zeros(3, dtype=np.float32)], 9)
    assert arrays["near"].tolist() == [[0, 1]]
    assert arrays["cosine"].tolist() == [[0, 0]]
    assert np.isfinite(arrays["place"]).all()
