"""Segments of texts and pairs that run in one batch."""

from __future__ import annotations

import numpy as np
import pytest

from layertap.records import Record


@pytest.mark.parametrize(
    "feature", ["last_hidden_state.weighted_mean(special=False)", "last_hidden_state.mean(special=False)"]
)
def test_a_text_beside_a_pair_has_the_vector_that_it_has_alone(extractor, feature):
    text, pair = Record(row=0, text="the film"), Record(row=1, text="a river", pair="was good")
    together = extractor.extract([text, pair], feature)
    np.testing.assert_allclose(together[0], extractor.extract([text], feature)[0], atol=1e-6)
    np.testing.assert_allclose(together[1], extractor.extract([pair], feature)[0], atol=1e-6)
