"""In train mode dropout falls where it does in transformers: with the same random numbers the states are the same."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from layertap.testing.candidate import Candidate  # noqa: E402 - needs torch
from layertap.testing.families import random_sequences  # noqa: E402
from layertap.verify.measure import Difference  # noqa: E402
from tests.conformance.test_families import ROWS  # noqa: E402
from tests.tiny_models import save_model  # noqa: E402

DROPOUTS = {
    "hidden_dropout_prob": 0.5,
    "attention_probs_dropout_prob": 0.0,
}
DROPOUTS_OF_DISTILBERT = {"dropout": 0.5, "attention_dropout": 0.0}
"""Attention weights are dropped by a kernel that draws its own numbers."""


def with_dropout(row):
    return row.small | (DROPOUTS_OF_DISTILBERT if row.model_type == "distilbert" else DROPOUTS)


WITH_DROPOUT = [row for row in ROWS if row.spec(with_dropout(row)).hidden_dropout_prob == 0.5]


@pytest.mark.parametrize("row", WITH_DROPOUT, ids=[row.name for row in WITH_DROPOUT])
def test_dropout_falls_where_it_does_in_transformers(row, tmp_path):
    module = row.random_model(with_dropout(row))
    save_model(tmp_path, module)
    candidate = Candidate.open(tmp_path)
    # one sequence, so that both draw as many numbers at once
    (ids,) = random_sequences([9], candidate.files.spec.vocab_size)
    encoder, packed = candidate.encoder().train(), candidate.packed_tensors([ids], None)
    with torch.no_grad():
        torch.manual_seed(0)
        states = [state.numpy() for _, state in encoder.states(packed)]
        torch.manual_seed(0)
        found = module.train()(input_ids=torch.as_tensor(np.int64(ids))[None], output_hidden_states=True)
        *_, (_, still) = encoder.eval().states(packed)
    assert Difference.of(states[-1], still.numpy()).error_over_rms > 0.1, "nothing was dropped"
    for i, (state, expected) in enumerate(zip(states, found.hidden_states, strict=True)):
        assert Difference.of(state, expected[0].numpy()).error_over_rms < 2e-5, i
