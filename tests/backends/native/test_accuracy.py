"""MiniLM's real weights on every instruction set and precision, against transformers in float64."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("layertap.backends.native._native", reason="the native kernels are not built")
transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

from layertap.backends.native import _native  # noqa: E402 - after what may skip

LENGTHS = (1, 3, 9, 26, 70, 200)
FLOAT32_GRADE = 1.5
"""How many times transformers' own float32 error float32 may have."""

HIGH = 2e-4
SMALLEST_COSINE = {"bfloat16": 0.999, "int8": 0.99}
"""Over all tokens of all states, of texts of random words, on which int8 is at its worst."""

SMALLEST_POOLED_COSINE = {"bfloat16": 0.9998, "int8": 0.99}
"""Of the means over the tokens of a text of the same."""


@pytest.fixture(scope="module")
def minilm(minilm_folder, wrap_model):
    return wrap_model(transformers.BertModel.from_pretrained(minilm_folder))


@pytest.fixture(scope="module")
def sequences(minilm):
    random = np.random.default_rng(0)
    return [
        np.concatenate([[101], random.integers(1000, minilm.spec.vocab_size, length), [102]]).astype(np.int32)
        for length in LENGTHS
    ]


@pytest.fixture(scope="module")
def truth(minilm_folder, wrap_model, sequences):
    return wrap_model(transformers.BertModel.from_pretrained(minilm_folder).double()).expected(sequences)[0]


@pytest.fixture(scope="module")
def their_error(minilm, sequences, truth, error_over_rms):
    """Error of transformers in float32."""
    theirs, _ = minilm.expected(sequences)
    return max(error_over_rms(found, expected) for found, expected in zip(theirs, truth, strict=True))


CASES = [(name, precision) for name in _native.instruction_sets() for precision in _native.precisions(name)]


@pytest.mark.parametrize(("instruction_set", "precision"), CASES)
def test_states_are_as_exact_as_the_precision_says(
    instruction_set,
    precision,
    minilm,
    sequences,
    truth,
    their_error,
    run_everything,
    error_over_rms,
    smallest_cosine,
    report,
):
    backend = minilm.native(instruction_set=instruction_set, precision=precision)
    states, _ = run_everything(backend, minilm, sequences)
    error = max(error_over_rms(found, expected) for found, expected in zip(states, truth, strict=True))
    cosine = min(smallest_cosine(found, expected) for found, expected in zip(states, truth, strict=True))
    report(f"{instruction_set} {precision}: largest |error| / RMS", error)
    report(f"{instruction_set} {precision}: 1 - smallest cosine", 1 - cosine)
    begins = np.cumsum([0, *map(len, sequences)])[:-1]
    pooled = smallest_cosine(*(np.add.reduceat(array, begins) for array in (states[-1], truth[-1])))
    report(f"{instruction_set} {precision}: 1 - smallest cosine of means", 1 - pooled)
    if precision == "float32":
        report(f"{instruction_set} float32: over transformers' own", error / their_error)
        assert error <= FLOAT32_GRADE * their_error
    elif precision == "float32-high":
        assert error <= HIGH
    else:
        assert cosine >= SMALLEST_COSINE[precision]
        assert pooled >= SMALLEST_POOLED_COSINE[precision]
